//! How values become bytes for the shared tier.

use std::fmt;

use bytes::Bytes;
use resonant_common::error::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Turns values into bytes and back.
///
/// # Contract
///
/// - [`decode`](Codec::decode) of what [`encode`](Codec::encode) wrote gives an equal value.
/// - Foreign or mutated bytes make `decode` return an error, never panic: the cache takes the error for a miss.
/// - [`name`](Codec::name) changes whenever bytes written before can no longer be read: values under another name are
///   misses.
pub trait Codec<V>: fmt::Debug + Send + Sync + 'static {
    /// The codec's name, part of the fingerprint that every stored value carries.
    fn name(&self) -> &str;

    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    ///
    /// Whatever makes the value impossible to encode; `set` and the loads report it as
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec).
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError>;

    /// The value `bytes` stand for.
    ///
    /// # Errors
    ///
    /// Anything that is not a value; the cache treats it as a miss.
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError>;

    /// What the decoded value weighs in the in-process tier, given the length of its encoding. Override it where
    /// the decoded form is much larger.
    fn weight(&self, value: &V, encoded: usize) -> usize {
        let _ = value;
        encoded
    }
}

/// JSON, the default: readable in the store, and tolerant of added fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn name(&self) -> &str {
        "json"
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
        serde_json::to_writer(out, value).map_err(Into::into)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        serde_json::from_slice(bytes).map_err(Into::into)
    }
}

/// Postcard: smaller and faster than JSON, and not readable by eye. Its bytes do not say what they are: change the namespace's
/// [`schema`](crate::NamespaceConfig::schema) whenever the type changes, or old values may be read as something else.
#[cfg(feature = "postcard")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    fn name(&self) -> &str {
        "postcard"
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
        *out = postcard::to_extend(value, std::mem::take(out))?;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            (_, _) => Err("bytes are left over behind the value".into()),
        }
    }
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn name(&self) -> &str {
        "raw"
    }

    fn encode(&self, value: &Bytes, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// What a stored value says of its layout: the codec's name and the namespace's schema, hashed.
pub(crate) fn fingerprint(codec: &str, schema: &str) -> u32 {
    let hash = resonant_common::hash::key_hash(format!("{codec}\0{schema}").as_bytes());
    // The low half is as good as any; the format pins it.
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}
