//! Shard keys: lossless conversion to the declared type, and the canonical bytes that are hashed.
//!
//! Two values the engine holds equal must land on one shard, however they are written, and two that differ must never
//! meet by accident. So each table declares the [`KeyType`] of its key, and every parameter and literal is converted to
//! it without loss or the statement is refused: `Text("7")` is the integer 7 for an integer key (the engine would say
//! so too), `Int(7)` is nothing for a text key, and `"07"`, `7.0` and NULL are no keys at all.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Param;

/// The type of a shard key, as the table declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KeyType {
    /// Raw bytes (`bytea`, `BLOB`).
    Bytes,
    /// A whole number of up to 64 bits.
    Int,
    /// Text under a collation that compares bytes.
    Text,
    /// A UUID: sixteen bytes, or their hyphenated text in any case.
    Uuid,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Bytes => "bytes",
            KeyType::Int => "int",
            KeyType::Text => "text",
            KeyType::Uuid => "uuid",
        })
    }
}

/// A key converted to its [`KeyType`]: what a shard function sees.
///
/// `Debug` shows the type, never the value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShardKey<'a> {
    /// A key of [`KeyType::Bytes`].
    Bytes(&'a [u8]),
    /// A key of [`KeyType::Int`].
    Int(i64),
    /// A key of [`KeyType::Text`].
    Text(&'a str),
    /// A key of [`KeyType::Uuid`].
    Uuid([u8; 16]),
}

impl ShardKey<'_> {
    /// The type of the key.
    pub fn key_type(&self) -> KeyType {
        match self {
            ShardKey::Bytes(_) => KeyType::Bytes,
            ShardKey::Int(_) => KeyType::Int,
            ShardKey::Text(_) => KeyType::Text,
            ShardKey::Uuid(_) => KeyType::Uuid,
        }
    }

    /// Hands the canonical bytes to `read`: a number as eight little-endian bytes, text as UTF-8, a UUID as its sixteen
    /// bytes in network order, bytes as they are.
    pub fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            ShardKey::Bytes(bytes) => read(bytes),
            ShardKey::Int(number) => read(&number.to_le_bytes()),
            ShardKey::Text(text) => read(text.as_bytes()),
            ShardKey::Uuid(bytes) => read(bytes),
        }
    }

    pub(crate) fn to_owned_key(self) -> OwnedKey {
        match self {
            ShardKey::Bytes(bytes) => OwnedKey::Bytes(bytes.into()),
            ShardKey::Int(number) => OwnedKey::Int(number),
            ShardKey::Text(text) => OwnedKey::Text(text.into()),
            ShardKey::Uuid(bytes) => OwnedKey::Uuid(bytes),
        }
    }
}

impl fmt::Debug for ShardKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key({})", self.key_type())
    }
}

/// A key that owns its bytes: literals of a compiled route, entries of a directory.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum OwnedKey {
    Bytes(Box<[u8]>),
    Int(i64),
    Text(Box<str>),
    Uuid([u8; 16]),
}

impl OwnedKey {
    pub(crate) fn as_key(&self) -> ShardKey<'_> {
        match self {
            OwnedKey::Bytes(bytes) => ShardKey::Bytes(bytes),
            OwnedKey::Int(number) => ShardKey::Int(*number),
            OwnedKey::Text(text) => ShardKey::Text(text),
            OwnedKey::Uuid(bytes) => ShardKey::Uuid(*bytes),
        }
    }

    pub(crate) fn as_param(&self) -> Param<'_> {
        match self {
            OwnedKey::Bytes(bytes) => Param::Bytes(bytes),
            OwnedKey::Int(number) => Param::Int(*number),
            OwnedKey::Text(text) => Param::Text(text),
            OwnedKey::Uuid(bytes) => Param::Bytes(bytes),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            OwnedKey::Bytes(bytes) => bytes.len(),
            OwnedKey::Text(text) => text.len(),
            OwnedKey::Int(_) | OwnedKey::Uuid(_) => 0,
        }
    }
}

impl fmt::Debug for OwnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_key().fmt(f)
    }
}

/// Why a value is no key of a type. Names kinds, never values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyFault {
    given: &'static str,
    wanted: KeyType,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.given, self.wanted) {
            ("null", wanted) => write!(f, "NULL belongs to no shard: give a key of type {wanted}"),
            ("text", KeyType::Int) => f.write_str(
                "the text is not a whole number in its plain form (such as 7 or -12): give an integer",
            ),
            ("text", KeyType::Uuid) => f.write_str(
                "the text is not a UUID in its hyphenated form of 36 characters: give that form or 16 bytes",
            ),
            ("bytes", KeyType::Uuid) => f.write_str("a UUID has 16 bytes"),
            ("text", KeyType::Bytes) => {
                f.write_str("the text is not of the form \\x00ff: give bytes, or that form in a list")
            }
            (given, wanted) => {
                write!(f, "{given} does not convert to a key of type {wanted} without loss")
            }
        }
    }
}

impl KeyType {
    /// Converts a parameter, losslessly or not at all.
    pub(crate) fn key<'a>(self, value: Param<'a>) -> Result<ShardKey<'a>, KeyFault> {
        let fault = |given| Err(KeyFault { given, wanted: self });
        match (self, value) {
            (KeyType::Int, Param::Int(number)) => Ok(ShardKey::Int(number)),
            (KeyType::Int, Param::Text(text)) => match plain_integer(text) {
                Some(number) => Ok(ShardKey::Int(number)),
                None => fault("text"),
            },
            (KeyType::Text, Param::Text(text)) => Ok(ShardKey::Text(text)),
            (KeyType::Bytes, Param::Bytes(bytes)) => Ok(ShardKey::Bytes(bytes)),
            (KeyType::Uuid, Param::Bytes(bytes)) => match bytes.try_into() {
                Ok(bytes) => Ok(ShardKey::Uuid(bytes)),
                Err(_) => fault("bytes"),
            },
            (KeyType::Uuid, Param::Uuid(bytes)) => Ok(ShardKey::Uuid(bytes)),
            (KeyType::Uuid, Param::Text(text)) => match hyphenated_uuid(text) {
                Some(bytes) => Ok(ShardKey::Uuid(bytes)),
                None => fault("text"),
            },
            (_, other) => fault(kind_of(other)),
        }
    }

    /// Reads a key from the text the server would read, as elements of arrays and fields of a COPY are given.
    pub(crate) fn read<T>(
        self,
        text: &str,
        read: impl FnOnce(ShardKey<'_>) -> T,
    ) -> Result<T, KeyFault> {
        match self {
            KeyType::Bytes => match hexadecimal(text) {
                Some(bytes) => Ok(read(ShardKey::Bytes(&bytes))),
                None => Err(KeyFault { given: "text", wanted: self }),
            },
            _ => self.key(Param::Text(text)).map(read),
        }
    }
}

/// The bytes of `\x00ff`, the form in which the server writes them.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((nibble(high)? << 4) | nibble(low)?),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

fn kind_of(value: Param<'_>) -> &'static str {
    match value {
        Param::Null => "null",
        Param::Bool(_) => "a boolean",
        Param::Int(_) => "an integer",
        Param::Float(_) => "a floating-point number",
        Param::Text(_) => "text",
        Param::Bytes(_) => "bytes",
        #[allow(unreachable_patterns, reason = "parameters may gain kinds")]
        _ => "a value of this kind",
    }
}

/// The number a text spells in the one form printing gives back: no sign but a minus, no leading zero, no blank.
fn plain_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if plain { text.parse().ok() } else { None }
}

fn hyphenated_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0u8; 16];
    let mut nibbles = 0usize;
    for (at, byte) in text.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let nibble = char::from(*byte).to_digit(16)?;
        let slot = bytes.get_mut(nibbles / 2)?;
        *slot = (*slot << 4) | u8::try_from(nibble).ok()?;
        nibbles += 1;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_convert_without_loss_or_not_at_all() {
        let ok = |wanted: KeyType, given, key| assert_eq!(wanted.key(given), Ok(key));
        ok(KeyType::Int, Param::Int(7), ShardKey::Int(7));
        ok(KeyType::Int, Param::Text("7"), ShardKey::Int(7));
        ok(KeyType::Int, Param::Text("-9223372036854775808"), ShardKey::Int(i64::MIN));
        ok(KeyType::Int, Param::Text("0"), ShardKey::Int(0));
        ok(KeyType::Text, Param::Text("7"), ShardKey::Text("7"));
        ok(KeyType::Bytes, Param::Bytes(b"7"), ShardKey::Bytes(b"7"));
        let uuid = ShardKey::Uuid([
            0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38,
            0x0a, 0x11,
        ]);
        ok(KeyType::Uuid, Param::Text("A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"), uuid);

        for (wanted, given) in [
            (KeyType::Int, Param::Text("07")),
            (KeyType::Int, Param::Text("+7")),
            (KeyType::Int, Param::Text(" 7")),
            (KeyType::Int, Param::Text("-0")),
            (KeyType::Int, Param::Text("7.0")),
            (KeyType::Int, Param::Text("")),
            (KeyType::Int, Param::Text("9223372036854775808")),
            (KeyType::Int, Param::Float(7.0)),
            (KeyType::Int, Param::Bool(true)),
            (KeyType::Int, Param::Null),
            (KeyType::Text, Param::Int(7)),
            (KeyType::Text, Param::Null),
            (KeyType::Text, Param::Bytes(b"7")),
            (KeyType::Bytes, Param::Text("7")),
            (KeyType::Uuid, Param::Text("a0eebc999c0b4ef8bb6d6bb9bd380a11")),
            (KeyType::Uuid, Param::Text("a0eebc99+9c0b-4ef8-bb6d-6bb9bd380a11")),
            (KeyType::Uuid, Param::Bytes(b"short")),
        ] {
            assert!(wanted.key(given).is_err(), "{wanted} took {given:?}");
        }
    }

    #[test]
    fn keys_of_two_types_have_two_encodings() {
        let bytes = |key: ShardKey<'_>| key.with_bytes(<[u8]>::to_vec);
        assert_eq!(bytes(ShardKey::Int(7)), [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(ShardKey::Text("7")), b"7");
        assert_eq!(format!("{:?}", ShardKey::Text("hunter2")), "key(text)");
    }
}
