//! Arrays, read from the notation PostgreSQL writes them in: `{1,NULL,"a b"}`, `{{1,2},{3,4}}`.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::Fault;

/// The elements of an array, one by one.
pub(super) struct Elements<'a> {
    rest: &'a str,
}

impl<'a> Elements<'a> {
    /// The elements between the outer braces.
    pub(super) fn new(text: &'a str) -> Result<Self, Fault> {
        let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        Ok(Self { rest: inside.ok_or_else(broken)? })
    }

    fn next(&mut self) -> Result<Option<Element<'a>>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (element, end) = match self.rest.as_bytes()[0] {
            b'"' => quoted(self.rest)?,
            b'{' => {
                let end = closing(self.rest)?;
                (Element::Array(&self.rest[..end]), end)
            }
            _ => {
                let end = self.rest.find(',').unwrap_or(self.rest.len());
                match &self.rest[..end] {
                    "NULL" => (Element::Null, end),
                    text => (Element::Text(Cow::Borrowed(text)), end),
                }
            }
        };
        self.rest = match self.rest[end..].strip_prefix(',') {
            Some(rest) => rest,
            None if end == self.rest.len() => "",
            None => return Err(broken()),
        };
        Ok(Some(element))
    }
}

/// Calls `visit` with the text of each element of an array of one dimension, `None` for NULL; answers whether it was one, and
/// each visit was good.
pub(in crate::row) fn for_each(text: &str, mut visit: impl FnMut(Option<&str>) -> bool) -> bool {
    let Ok(mut elements) = Elements::new(text) else { return false };
    loop {
        let good = match elements.next() {
            Ok(None) => return true,
            Ok(Some(Element::Null)) => visit(None),
            Ok(Some(Element::Text(text))) => visit(Some(&text)),
            Ok(Some(Element::Array(_))) | Err(_) => false,
        };
        if !good {
            return false;
        }
    }
}

fn broken() -> Fault {
    Fault::new("its array is not well formed")
}

/// A text in quotes, and where it ends.
fn quoted(text: &str) -> Result<(Element<'_>, usize), Fault> {
    let mut plain = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Element::Text(Cow::Owned(plain)), at + 1)),
            '\\' => plain.push(chars.next().ok_or_else(broken)?.1),
            c => plain.push(c),
        }
    }
    Err(broken())
}

/// Where the array at the front ends.
fn closing(text: &str) -> Result<usize, Fault> {
    let (mut depth, mut in_quotes, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_quotes = !in_quotes,
            _ if in_quotes => {}
            b'{' => depth += 1,
            b'}' if depth == 1 => return Ok(at + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    Err(broken())
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        match self.next()? {
            Some(element) => seed.deserialize(element).map(Some),
            None => Ok(None),
        }
    }
}

/// An element: what it is, whoever asks for it has to know.
enum Element<'a> {
    Null,
    Array(&'a str),
    Text(Cow<'a, str>),
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match &self {
                Element::Text(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(Fault::new(concat!("an element is no ", stringify!($type)))),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Element<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Element::Null => visitor.visit_unit(),
            Element::Array(text) => visitor.visit_seq(Elements::new(text)?),
            Element::Text(text) => visitor.visit_str(&text),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self {
            Element::Text(text) if text == "t" => visitor.visit_bool(true),
            Element::Text(text) if text == "f" => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Element::Null => visitor.visit_none(),
            element => visitor.visit_some(element),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Element::Text(text) => visitor.visit_enum(super::Variant(&text)),
            _ => Err(Fault::new("text is expected for an enum")),
        }
    }

    every_number!(parsed);

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde::de::value::SeqAccessDeserializer;

    use super::*;

    fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
        T::deserialize(SeqAccessDeserializer::new(Elements::new(text)?))
    }

    #[test]
    fn elements_are_what_is_asked_for() {
        assert_eq!(read::<Vec<i64>>("{1,-2,3}").ok(), Some(vec![1, -2, 3]));
        assert_eq!(read::<Vec<Option<f64>>>("{0.5,NULL}").ok(), Some(vec![Some(0.5), None]));
        assert_eq!(read::<Vec<bool>>("{t,f}").ok(), Some(vec![true, false]));
        let texts = read::<Vec<String>>(r#"{a,"b \"c\"","NULL","","x,y","{}"}"#).ok();
        let expected = ["a", "b \"c\"", "NULL", "", "x,y", "{}"].map(str::to_owned);
        assert_eq!(texts, Some(expected.to_vec()));
        let nested = read::<Vec<Vec<String>>>(r#"{{a,"}"},{"\\",d}}"#).ok();
        assert_eq!(nested, Some(vec![vec!["a".into(), "}".into()], vec!["\\".into(), "d".into()]]));
        assert_eq!(read::<Vec<i64>>("{}").ok(), Some(Vec::new()));
    }

    #[test]
    fn what_does_not_fit_is_a_fault_without_the_value() {
        let fault = read::<Vec<u8>>("{1,4711}").expect_err("too big").to_string();
        assert!(fault.contains("u8") && !fault.contains("4711"), "{fault}");
        assert!(read::<Vec<i64>>("{1,NULL}").is_err());
        assert!(read::<Vec<i64>>("1,2").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = read::<Vec<String>>(&text);
            let _ = read::<Vec<Vec<i64>>>(&format!("{{{text}}}"));
        }
    }
}
