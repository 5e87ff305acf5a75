//! Durations in settings: human text (`"300s"`, `"5min"`, `"100ms"`) or a plain number of seconds (`300`, `0.1`).
//!
//! Use with `#[serde(with = "resonant_common::duration")]`, or [`option`] for an `Option<Duration>`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use tokio::time::Instant;

/// The longest wait that is told from a longer one: thirty years.
pub const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The instant `wait` after `start`, at most [`FOR_EVER`] after it: `Duration::MAX` is a common way to say "never", and
/// adding it to an instant would panic.
pub fn after(start: Instant, wait: Duration) -> Instant {
    start + wait.min(FOR_EVER)
}

/// Writes human text.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*value))
}

/// Reads human text or seconds.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(HumanDuration)
}

/// Reads human text or a plain number of seconds, as in an environment variable.
///
/// # Errors
///
/// A message that says what is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| expected(text)),
        Err(_) => humantime::parse_duration(text).map_err(|_| expected(text)),
    }
}

/// The same for an optional duration: absent or null is `None`.
pub mod option {
    use super::{Deserializer, Duration, HumanDuration, Serializer, Visitor, de, fmt};

    /// Writes human text, or null.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads human text, seconds, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        struct Optional;
        impl<'de> Visitor<'de> for Optional {
            type Value = Option<Duration>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                HumanDuration.expecting(f)
            }
            fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_some<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                super::deserialize(deserializer).map(Some)
            }
        }
        deserializer.deserialize_option(Optional)
    }
}

fn expected(text: &str) -> String {
    format!(
        "{text:?} is no duration: write seconds (300) or text with a unit (\"300s\", \"100ms\", \"5min\")"
    )
}

struct HumanDuration;

impl Visitor<'_> for HumanDuration {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds (300) or text with a unit (\"300s\", \"100ms\", \"5min\")")
    }
    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        Ok(Duration::from_secs(seconds))
    }
    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
        u64::try_from(seconds)
            .map(Duration::from_secs)
            .map_err(|_| E::custom(expected(&seconds.to_string())))
    }
    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
        Duration::try_from_secs_f64(seconds).map_err(|_| E::custom(expected(&seconds.to_string())))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        #[serde(with = "crate::duration")]
        wait: Duration,
        #[serde(default, with = "crate::duration::option")]
        limit: Option<Duration>,
    }

    #[test]
    fn text_and_seconds_give_the_same_value() -> Result<(), serde_json::Error> {
        for json in [r#"{"wait":"100ms"}"#, r#"{"wait":0.1}"#, r#"{"wait":"0.1","limit":null}"#] {
            let settings: Settings = serde_json::from_str(json)?;
            assert_eq!(
                settings,
                Settings { wait: Duration::from_millis(100), limit: None },
                "{json}"
            );
        }
        let settings: Settings = serde_json::from_str(r#"{"wait":300,"limit":"5min"}"#)?;
        assert_eq!(settings.wait, settings.limit.unwrap_or_default());
        assert_eq!(serde_json::from_str::<Settings>(&serde_json::to_string(&settings)?)?, settings);
        Ok(())
    }

    #[test]
    fn no_wait_is_too_long_to_be_added() {
        let start = Instant::now();
        let far = after(start, Duration::MAX);
        assert_eq!(far - start, FOR_EVER);
        assert_eq!(after(start, Duration::from_secs(1)) - start, Duration::from_secs(1));
    }

    #[test]
    fn a_bad_one_says_what_is_expected() {
        for json in [
            r#"{"wait":"soon"}"#,
            r#"{"wait":-1}"#,
            r#"{"wait":-0.5}"#,
            r#"{"wait":true}"#,
            r#"{"wait":"NaN"}"#,
        ] {
            let error = serde_json::from_str::<Settings>(json).err().map(|error| error.to_string());
            assert!(
                error.as_deref().is_some_and(|text| text.contains("seconds (300)")),
                "{json}: {error:?}"
            );
        }
    }
}
