//! The partition key: what a message is ordered by.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, ErrorKind, Result};

/// The key of a message: text. Numbers and booleans become the text JSON writes for them.
///
/// Messages of one key are handled in the order they were published. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition of this key among `partitions`: XXH64 of its UTF-8 bytes, modulo their number.
    pub fn partition(&self, partitions: u32) -> u32 {
        resonant_common::hash::slot(self.0.as_bytes(), partitions)
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! from_text {
    ($($from:ty),*) => {$(
        impl From<$from> for Key {
            fn from(text: $from) -> Self {
                Self(text.into())
            }
        }
    )*};
}
from_text!(&str, String, Arc<str>);

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        Self(text.as_str().into())
    }
}

macro_rules! from_display {
    ($($from:ty),*) => {$(
        impl From<$from> for Key {
            fn from(value: $from) -> Self {
                Self(value.to_string().into())
            }
        }
    )*};
}
from_display!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool);

/// Where the key of a message comes from.
pub(crate) enum KeySource<T> {
    /// Nowhere: messages are unkeyed unless one is given.
    None,
    /// A field of the serialised message.
    Field(String),
    /// The user's closure.
    Closure(Arc<dyn Fn(&T) -> Key + Send + Sync>),
}

impl<T> KeySource<T> {
    pub(crate) fn key(
        &self,
        operation: &'static str,
        message: &T,
        body: &[u8],
    ) -> Result<Option<Key>> {
        match self {
            KeySource::None => Ok(None),
            KeySource::Closure(key) => Ok(Some(key(message))),
            KeySource::Field(field) => match field_of(body, field) {
                Found::Key(key) => Ok(Some(key)),
                Found::Unusable(what) => Err(no_key(operation, field, what)),
                Found::Absent => Err(no_key(operation, field, "is not there")),
            },
        }
    }
}

impl<T> fmt::Debug for KeySource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::None => f.write_str("None"),
            KeySource::Field(field) => f.debug_tuple("Field").field(field).finish(),
            KeySource::Closure(_) => f.write_str("Closure"),
        }
    }
}

fn no_key(operation: &'static str, field: &str, what: &str) -> Error {
    let message = format!(
        "the partition key {field:?} {what}; it must be text, a number or a boolean at the top of the message"
    );
    Error::new(ErrorKind::Key, operation, message)
}

enum Found {
    Absent,
    Unusable(&'static str),
    Key(Key),
}

/// Reads one field at the top of a JSON object and stops there: the rest of the body is not parsed again.
fn field_of(body: &[u8], field: &str) -> Found {
    let mut found = Found::Absent;
    let mut json = serde_json::Deserializer::from_slice(body);
    // Leaving the map early is an error to serde; what was found counts.
    let _ = FieldSeed { field, found: &mut found }.deserialize(&mut json);
    found
}

struct FieldSeed<'a> {
    field: &'a str,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(this) = map.next_key_seed(IsField(self.field))? {
            if this {
                *self.found = map.next_value_seed(KeySeed)?;
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Compares a field's name without allocating it.
struct IsField<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for IsField<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for IsField<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field")
    }
    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Found;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number or a boolean")
    }
    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(Found::Key(text.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Found, E> {
        Ok(Found::Key(number.into()))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Found, E> {
        Ok(Found::Key(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Found, E> {
        Ok(match serde_json::Number::from_f64(number) {
            Some(number) => Found::Key(number.to_string().into()),
            None => Found::Unusable("is no finite number"),
        })
    }
    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(Found::Key(value.into()))
    }
    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Unusable("is null"))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        // What is not read to its end is an error of syntax.
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Unusable("is an object"))
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Unusable("is an array"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(body: &str) -> Result<Option<Key>> {
        KeySource::<()>::Field("agent".into()).key("publish", &(), body.as_bytes())
    }

    #[test]
    fn scalars_at_the_top_are_keys() {
        for (body, expected) in [
            (r#"{"agent":"a\u0031","x":1}"#, "a1"),
            (r#"{"x":{"agent":"no"},"agent":7}"#, "7"),
            (r#"{"x":["agent"],"agent":-7}"#, "-7"),
            (r#"{"agent":18446744073709551615}"#, "18446744073709551615"),
            (r#"{"agent":1.5}"#, "1.5"),
            (r#"{"agent":true}"#, "true"),
            (r#"{"agent":""}"#, ""),
        ] {
            assert_eq!(key(body).ok().flatten().as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for (body, what) in [
            (r#"{"agent":null}"#, "null"),
            (r#"{"agent":[1]}"#, "array"),
            (r#"{"agent":{"id":1}}"#, "object"),
            (r#"{"agents":1}"#, "not there"),
            ("[1]", "not there"),
            ("3", "not there"),
        ] {
            let error = key(body).err();
            assert_eq!(error.as_ref().map(Error::kind), Some(ErrorKind::Key), "{body}");
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains(what) && text.contains("agent"), "{text}");
        }
    }

    #[test]
    fn the_partition_function_is_pinned() {
        // By another implementation of XXH64.
        let vectors = [
            ("", 9),
            ("a", 11),
            ("agent_123", 13),
            ("DFW", 1),
            ("ORD", 2),
            ("Zürich", 9),
            ("7", 7),
        ];
        for (key, partition) in vectors {
            assert_eq!(Key::from(key).partition(16), partition, "{key:?}");
        }
        assert_eq!(Key::from("agent_123").partition(16), 13);
        assert_eq!(Key::from(7u64).partition(16), Key::from("7").partition(16));
        assert_eq!(Key::from("x").partition(0), 0);
    }
}
