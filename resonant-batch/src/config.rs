//! Settings of a [`BatchProcessor`](crate::BatchProcessor).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// When a batch that is not full is dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// At once while a batch may run; items gather only while all slots are busy. A lone item never waits, and the busier
    /// the processor is, the larger the batches get. No timer is used; `max_wait_time` has nothing to bound.
    #[default]
    Idle,
    /// When its first item has waited `max_wait_time`. Everything that arrives within that time shares one batch, up to
    /// the caps: fewest batches, at the price of the wait.
    Fixed,
}

/// Settings of a [`BatchProcessor`](crate::BatchProcessor), as plain data for files and builders.
///
/// Durations are human text (`"100ms"`) or plain seconds (`0.1`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchConfig {
    /// The most items of a batch. A hard cap. Default 100.
    pub max_batch_size: usize,
    /// With [`Policy::Fixed`], the longest time the first item of a batch waits for others before the batch is
    /// dispatched (as soon as a slot is free). Default 100 ms, at most one hour.
    #[serde(with = "resonant_common::duration")]
    pub max_wait_time: Duration,
    /// When a batch that is not full is dispatched. Default [`Policy::Idle`].
    pub policy: Policy,
    /// The most weight of a batch, where items are [weighed](crate::Builder::weight). A hard cap; an item above it fails
    /// alone. Default none.
    pub max_batch_weight: Option<u64>,
    /// The most items queued, not counting those being processed. Above it `submit` waits in line and `try_submit` fails.
    /// Default 10,000.
    pub max_queued: usize,
    /// The most batches processed at the same time. Raise it when the processor mostly waits for a server. Default 4.
    pub max_in_flight: usize,
    /// The most batches of one key processed at the same time. 1 keeps the order of items within a key. Default none of
    /// its own: `max_in_flight`.
    pub max_in_flight_per_key: Option<usize>,
    /// The longest a processor may take for one batch. Then its future is dropped and the items fail as timed out, so a
    /// server that hangs does not hold a slot for ever. `None` waits for ever. Default 60 s.
    #[serde(with = "resonant_common::duration::option")]
    pub max_process_time: Option<Duration>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_batch_size: 100,
            max_wait_time: Duration::from_millis(100),
            policy: Policy::Idle,
            max_batch_weight: None,
            max_queued: 10_000,
            max_in_flight: 4,
            max_in_flight_per_key: None,
            max_process_time: Some(Duration::from_secs(60)),
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const MOST_QUEUED: usize = 1 << 24;
const MOST_IN_FLIGHT: usize = 1 << 12;

impl BatchConfig {
    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with the rule the first bad setting breaks.
    pub fn validate(&self) -> Result<()> {
        let zero = Some(0);
        let rules = [
            (self.max_batch_size > 0, "max_batch_size must be at least 1"),
            (self.max_wait_time <= HOUR, "max_wait_time must be at most one hour"),
            (self.max_batch_weight != zero, "max_batch_weight must be at least 1"),
            (
                self.max_queued >= self.max_batch_size,
                "max_queued must be at least max_batch_size, or no batch can fill",
            ),
            (self.max_queued <= MOST_QUEUED, "max_queued must be at most 16,777,216"),
            (
                (1..=MOST_IN_FLIGHT).contains(&self.max_in_flight),
                "max_in_flight must be between 1 and 4,096",
            ),
            (
                self.max_in_flight_per_key
                    .is_none_or(|limit| limit > 0 && limit <= self.max_in_flight),
                "max_in_flight_per_key must be between 1 and max_in_flight",
            ),
            (self.max_process_time != Some(Duration::ZERO), "max_process_time must be above zero"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(Error::new(ErrorKind::Config, "build", rule)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_guides() {
        let config = BatchConfig::default();
        assert_eq!(
            (config.max_batch_size, config.max_wait_time),
            (100, Duration::from_millis(100))
        );
        assert!(config.validate().is_ok());
    }

    #[test]
    fn files_and_code_give_the_same_value() {
        let text = r#"{"max_batch_size": 100, "max_wait_time": 0.1, "policy": "idle", "max_process_time": "1min"}"#;
        assert_eq!(serde_json::from_str::<BatchConfig>(text).unwrap(), BatchConfig::default());
        let written = serde_json::to_string(&BatchConfig::default()).unwrap();
        assert_eq!(serde_json::from_str::<BatchConfig>(&written).unwrap(), BatchConfig::default());
        assert!(serde_json::from_str::<BatchConfig>(r#"{"max_batchsize": 1}"#).is_err());
    }

    #[test]
    fn a_bad_setting_is_refused_with_its_rule() {
        type Break = fn(&mut BatchConfig);
        let table: [(Break, &str); 7] = [
            (|c| c.max_batch_size = 0, "max_batch_size"),
            (|c| c.max_wait_time = Duration::from_secs(3601), "max_wait_time"),
            (|c| c.max_batch_weight = Some(0), "max_batch_weight"),
            (|c| c.max_queued = 99, "max_queued"),
            (|c| c.max_in_flight = 0, "max_in_flight"),
            (|c| c.max_in_flight_per_key = Some(5), "max_in_flight_per_key"),
            (|c| c.max_process_time = Some(Duration::ZERO), "max_process_time"),
        ];
        for (spoil, name) in table {
            let mut config = BatchConfig::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().starts_with(name), "{error}");
        }
    }
}
