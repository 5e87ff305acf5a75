//! Settings from the tree, by way of serde.
//!
//! Written here and not left to the parser's own deserializer for three reasons: an error has to name the setting in a form a
//! program can go on with, values must not be repeated in messages, and text of the environment is read as its setting wants.

use std::collections::btree_map;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::tree::{Node, Value};

/// What serde found wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// From the inside out.
    path: Vec<String>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The table has a key nobody knows.
    Unknown { key: String, known: &'static [&'static str] },
    /// The table lacks a key.
    Missing(&'static str),
    /// The value is not what is expected.
    Wrong(String),
    /// The same in the words of the setting's crate.
    Told(String),
}

impl Fault {
    fn new(what: What) -> Self {
        Self { path: Vec::new(), what }
    }

    /// From the outside in.
    pub(super) fn path(&self) -> Vec<String> {
        self.path.iter().rev().cloned().collect()
    }

    fn within(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }

    /// Without the value, where a crate's own message repeats it.
    fn hiding(mut self, text: &str) -> Self {
        if let What::Told(message) = &mut self.what {
            *message = message.replace(&format!("{text:?}"), "this");
            // Shorter than what anybody would keep secret, and part of many a word.
            if text.len() > 3 {
                *message = message.replace(text, "…");
            }
        }
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Unknown { key, .. } => write!(f, "unknown setting {key}"),
            What::Missing(key) => write!(f, "{key} is missing"),
            What::Wrong(message) | What::Told(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(What::Told(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "text",
        };
        Self::new(What::Wrong(format!("expected {expected}, found {found}")))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(What::Wrong(format!("expected {expected}")))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::Wrong(format!("expected one of {}", expected.join(", "))))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::Unknown { key: field.to_owned(), known: expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing(field))
    }
}

impl<'a> Node {
    fn parse<T: FromStr>(&self, text: &str, what: &str) -> Result<T, Fault> {
        let wrong = || Fault::new(What::Wrong(format!("expected {what}, found text")));
        text.trim().parse().map_err(|_| wrong())
    }

    /// What an optional setting is when it says `none`, for TOML has no null.
    fn is_nothing(&self) -> bool {
        matches!(&self.value, Value::Text(text) | Value::Loose(text) if text == "none")
    }

    fn visit<V: Visitor<'a>>(&'a self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Loose(text) => {
                visitor.visit_str(text).map_err(|fault: Fault| fault.hiding(text))
            }
            Value::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Table(entries) => {
                visitor.visit_map(Entries { entries: entries.iter(), next: None })
            }
        }
    }
}

/// Numbers and the like, which the environment gives as text.
macro_rules! parsed {
    ($($method:ident $visit:ident $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match &self.value {
                Value::Loose(text) => visitor.$visit(self.parse(text, $what)?),
                _ => self.visit(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_nothing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Loose(text) = &self.value else { return self.visit(visitor) };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        if parts.clone().next().is_none() {
            let message = "expected a list, found nothing: write [] for an empty one";
            return Err(Fault::new(What::Wrong(message.into())));
        }
        let parts = de::value::SeqDeserializer::new(parts.map(StrDeserializer::new));
        visitor.visit_seq(parts).map_err(|fault: Fault| fault.hiding(text))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(text) | Value::Loose(text) => {
                visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text.as_str()))
            }
            Value::Table(entries) if entries.len() == 1 => {
                let map = Entries { entries: entries.iter(), next: None };
                MapAccessDeserializer::new(map).deserialize_enum("", variants, visitor)
            }
            other => {
                let one_of = variants.join(", ");
                let message = format!("expected one of {one_of}, found {}", other.kind());
                Err(Fault::new(What::Wrong(message)))
            }
        }
    }

    parsed! {
        deserialize_bool visit_bool "true or false";
        deserialize_u8 visit_u8 "a whole number from 0 to 255";
        deserialize_u16 visit_u16 "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 "a whole number from 0";
        deserialize_u64 visit_u64 "a whole number from 0";
        deserialize_i8 visit_i8 "a whole number";
        deserialize_i16 visit_i16 "a whole number";
        deserialize_i32 visit_i32 "a whole number";
        deserialize_i64 visit_i64 "a whole number";
        deserialize_f32 visit_f32 "a number";
        deserialize_f64 visit_f64 "a number";
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a>(std::iter::Enumerate<std::slice::Iter<'a, Node>>);

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.0.next() else { return Ok(None) };
        seed.deserialize(node).map(Some).map_err(|fault| fault.within(index.to_string()))
    }
}

struct Entries<'a> {
    entries: btree_map::Iter<'a, String, Node>,
    next: Option<(&'a String, &'a Node)>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.next = self.entries.next();
        let Some((key, _)) = self.next else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.next else {
            return Err(Fault::new(What::Wrong("a value was asked for before its key".into())));
        };
        seed.deserialize(node).map_err(|fault| fault.within(key.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use serde::Deserialize;

    use super::super::error::Place;
    use super::super::tree::parse;
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        size: u32,
        #[serde(default, with = "resonant_common::duration::option")]
        wait: Option<Duration>,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        inner: Option<Box<Sample>>,
    }

    fn read(text: &str) -> Result<Sample, Fault> {
        Sample::deserialize(&parse(text, Path::new("x.toml"), &mut Vec::new()))
    }

    fn loose(text: &str) -> Node {
        Node { value: Value::Loose(text.into()), place: Place::Variable("X".into()) }
    }

    #[test]
    fn faults_name_the_setting_and_never_its_value() {
        let fault = read("[inner]\nwait = \"hunter2\"").unwrap_err();
        assert_eq!(fault.path(), ["inner", "wait"]);
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
        assert!(fault.to_string().contains("300s"), "{fault}");
        let fault = read("names = [\"a\", 7]").unwrap_err();
        assert_eq!(fault.path(), ["names", "1"]);
        assert_eq!(fault.to_string(), "expected a string, found a number");
        let fault = read("[inner]\nsice = 1").unwrap_err();
        assert_eq!(fault.path(), ["inner"]);
        assert!(matches!(fault.what, What::Unknown { known, .. } if known.contains(&"size")));
        assert_eq!(read("size = -1").unwrap_err().to_string(), "expected u32");
    }

    #[test]
    fn text_of_the_environment_is_what_its_setting_wants() -> Result<(), Fault> {
        assert_eq!(u32::deserialize(&loose(" 20 "))?, 20);
        assert!(bool::deserialize(&loose("true"))?);
        assert_eq!(String::deserialize(&loose("20"))?, "20");
        assert_eq!(Vec::<String>::deserialize(&loose("a, b,"))?, ["a", "b"]);
        for nothing in ["", " ", ","] {
            let refused = Vec::<String>::deserialize(&loose(nothing)).err();
            assert!(refused.is_some_and(|it| it.to_string().contains("write []")), "{nothing:?}");
        }
        assert_eq!(Option::<u32>::deserialize(&loose("none"))?, None);
        let duration = resonant_common::duration::option::deserialize(&loose("250ms"))?;
        assert_eq!(duration, Some(Duration::from_millis(250)));
        assert!(u32::deserialize(&loose("s3cr3t")).is_err_and(|it| !it.to_string().contains("s3")));
        Ok(())
    }
}
