//! A message in the broker: the body is the user's JSON, everything else is in headers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::message::{Headers, Message};
use crate::version::VERSION;

pub(super) const KEY: &str = "resonant-key";
pub(super) const PUBLISHED: &str = "resonant-published";
pub(super) const PARTITION: &str = "resonant-partition";
pub(super) const DUE: &str = "resonant-due";
pub(super) const MARKER: &str = "resonant-marker";
pub(super) const SEQUENCE: &str = "resonant-sequence";
pub(super) const FAILURES: &str = "resonant-failures";
pub(super) const ERROR: &str = "resonant-error";
pub(super) const DIED: &str = "resonant-died";

/// Headers the broker adds.
const BROKER: [&str; 8] = [
    "x-acquired-count",
    "x-death",
    "x-delivery-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-reason",
    "x-stream-offset",
];

/// A number no other message has.
pub(super) fn fresh_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The user's part of a message in the broker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub(super) key: Option<Key>,
    pub(super) headers: Option<Arc<Headers>>,
    pub(super) body: Bytes,
}

impl Content {
    pub(super) fn of(message: &Message) -> Self {
        let (key, headers, body) =
            (message.key.clone(), message.headers.clone(), message.body.clone());
        Self { key, headers, body }
    }

    /// Its properties, with further facts as headers.
    pub(super) fn properties(
        &self,
        operation: &'static str,
        facts: &[(&str, AMQPValue)],
    ) -> Result<BasicProperties> {
        let mut table = FieldTable::default();
        for (name, value) in self.headers.iter().flat_map(|headers| headers.iter()) {
            let short = ShortString::try_new(name.as_str()).ok();
            let free = !name.starts_with("resonant-") && !BROKER.contains(&name.as_str());
            let Some(short) = short.filter(|_| free) else {
                let text = format!(
                    "the header {name:?} cannot be sent: at most 255 bytes, and neither resonant-* nor one of RabbitMQ's own"
                );
                return Err(Error::new(ErrorKind::Encoding, operation, text));
            };
            table.insert(short, text(value));
        }
        if let Some(key) = &self.key {
            table.insert(KEY.into(), text(key));
        }
        for (name, value) in facts {
            table.insert((*name).into(), value.clone());
        }
        Ok(BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(fresh_id().as_str().into())
            .with_headers(table))
    }
}

pub(super) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub(super) fn number(number: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Reads what a message carries beside its body.
#[derive(Debug)]
pub(super) struct Facts<'a>(pub(super) &'a BasicProperties);

impl Facts<'_> {
    fn value(&self, name: &str) -> Option<&AMQPValue> {
        self.0.headers().as_ref()?.inner().get(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        as_text(self.value(name)?)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            AMQPValue::Timestamp(seconds) => seconds.checked_mul(1000),
            value => u64::try_from(integer(value)?).ok(),
        }
    }

    /// When it was published, in milliseconds since 1970; other programs may set only the AMQP time, in seconds.
    pub(super) fn published(&self) -> u64 {
        let stamp = || self.0.timestamp().and_then(|seconds| seconds.checked_mul(1000));
        self.number(PUBLISHED).or_else(stamp).unwrap_or_default()
    }

    pub(super) fn content(&self, body: Bytes) -> Content {
        let mut headers: Headers = BTreeMap::new();
        for (name, value) in self.0.headers().iter().flat_map(|table| table.inner()) {
            let name = name.as_str();
            // A version that cannot be read is not none: none means the first one.
            let unread = || (name == VERSION).then(|| "unreadable".to_owned());
            if !name.starts_with("resonant-")
                && !BROKER.contains(&name)
                && let Some(value) = as_text(value).or_else(unread)
            {
                headers.insert(name.to_owned(), value);
            }
        }
        let headers = (!headers.is_empty()).then(|| Arc::new(headers));
        Content { key: self.text(KEY).map(Key::from), headers, body }
    }
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::Boolean(truth) => Some(truth.to_string()),
        value => integer(value).map(|number| number.to_string()),
    }
}

/// A number of any width: each client has a type of its own for a small one.
fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::LongLongInt(number) => *number,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let headers = Headers::from([("traceparent".to_owned(), "00-1".to_owned())]);
        let content = Content {
            key: Some(Key::from("Zürich")),
            headers: Some(Arc::new(headers)),
            body: Bytes::from_static(b"{}"),
        };
        let properties = content.properties("publish", &[(PUBLISHED, number(1_700_000_000_123))]);
        let Ok(properties) = properties else { panic!("{properties:?}") };
        let facts = Facts(&properties);
        assert_eq!(facts.published(), 1_700_000_000_123);
        assert_eq!(facts.content(content.body.clone()), content);
        assert_eq!(facts.number(SEQUENCE), None);
    }

    /// Clients of other languages send a number in the smallest type that holds it, or in the largest.
    #[test]
    fn a_number_is_read_in_whatever_type_it_comes() {
        let values = [
            AMQPValue::ShortShortInt(2),
            AMQPValue::ShortShortUInt(2),
            AMQPValue::ShortInt(2),
            AMQPValue::ShortUInt(2),
            AMQPValue::LongInt(2),
            AMQPValue::LongUInt(2),
            AMQPValue::LongLongInt(2),
            text("2"),
        ];
        for value in values {
            let mut table = FieldTable::default();
            table.insert("schema-version".into(), value.clone());
            table.insert(PARTITION.into(), value.clone());
            let properties = BasicProperties::default().with_headers(table);
            let facts = Facts(&properties);
            let headers = facts.content(Bytes::new()).headers.unwrap_or_default();
            assert_eq!(headers.get("schema-version").map(String::as_str), Some("2"), "{value:?}");
            let expected = (value != text("2")).then_some(2);
            assert_eq!(facts.number(PARTITION), expected, "{value:?}");
        }
        // A version that is no number is not none.
        let mut table = FieldTable::default();
        table.insert("schema-version".into(), AMQPValue::Double(2.5));
        let properties = BasicProperties::default().with_headers(table);
        let headers = Facts(&properties).content(Bytes::new()).headers.unwrap_or_default();
        assert!(headers.get("schema-version").is_some_and(|told| told.parse::<u32>().is_err()));
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused() {
        for name in ["resonant-key", "x-death", &"x".repeat(256)] {
            let headers = Headers::from([(name.to_owned(), String::new())]);
            let content =
                Content { key: None, headers: Some(Arc::new(headers)), body: Bytes::new() };
            let refused = content.properties("publish", &[]).map_err(|error| error.kind());
            assert_eq!(refused.map(drop), Err(ErrorKind::Encoding), "{name}");
        }
    }
}
