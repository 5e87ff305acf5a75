//! Settings: plain data with stated defaults, the same in code and in files.

use std::time::Duration;

use resonant_common::backoff::Backoff;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The longest wait between two attempts.
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// Settings of a queue.
///
/// Durations read human text (`"300s"`) or seconds. `PartitionedQueue::from_config(config)` and the builder's methods
/// give the same queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// The queue's name, also the `queue` label of its metrics. 1 to 128 letters, digits, `-`, `_`, `.` or `:`.
    pub name: String,
    /// Into how many partitions keys are spread. Default 16; 1 to 4096. Fixed once the queue exists.
    pub partitions: u32,
    /// The field of the serialised message that is its key. Default none.
    pub partition_key: Option<String>,
    /// How failed deliveries are tried again.
    pub retry: RetryConfig,
    /// What happens to a message that failed for good. Default [`Poison::Park`].
    pub poison: Poison,
    /// The most messages the queue stores, in whatever state (ready, delayed, parked, dead). Default 10,000,000.
    pub max_depth: u64,
    /// The largest body in bytes. Default 1 MiB.
    pub max_payload: usize,
    /// How long a publish waits for room in a full queue. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub publish_timeout: Duration,
    /// For how long a unique id is remembered. Default 5 min.
    #[serde(with = "resonant_common::duration")]
    pub dedup_window: Duration,
    /// The most unique ids remembered; past it the oldest are forgotten early. Default 1,000,000.
    pub dedup_limit: u64,
    /// For how long a worker leases a partition: a dead worker's partitions are taken over after at most this. Renewed
    /// three times as often. Default 5 s; at least 100 ms. Engines that one process owns use a longer one.
    #[serde(with = "resonant_common::duration")]
    pub lease_ttl: Duration,
    /// How many messages of one partition a worker holds in memory; failed ones that wait for their next attempt may
    /// come on top, up to four times as many. Default 2048; at least 16.
    pub prefetch: usize,
    /// How many bytes of bodies of one partition a worker holds in memory, counted in the same way. One read may go past
    /// it, and a single body that is larger is held all the same. Default 16 MiB.
    pub prefetch_bytes: usize,
    /// How long a drain waits for handlers that run. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub drain_timeout: Duration,
    /// How old the oldest unfinished message may be before the queue's findings warn of it. Default 5 min.
    #[serde(with = "resonant_common::duration")]
    pub max_age: Duration,
    /// How many messages that wait or run ask for a worker, see [`Depth::wanted_workers`](crate::Depth::wanted_workers).
    /// Default 10; at least 1.
    pub messages_per_worker: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            partitions: 16,
            partition_key: None,
            retry: RetryConfig::default(),
            poison: Poison::default(),
            max_depth: 10_000_000,
            max_payload: 1 << 20,
            publish_timeout: Duration::from_secs(30),
            dedup_window: Duration::from_secs(300),
            dedup_limit: 1_000_000,
            lease_ttl: Duration::from_secs(5),
            prefetch: 2048,
            prefetch_bytes: 16 << 20,
            drain_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(300),
            messages_per_worker: 10,
        }
    }
}

/// How failed deliveries are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Deliveries before a message counts as failed for good. Default 10; at least 1.
    pub max_attempts: u32,
    /// The wait before the next attempt, with full jitter. Default 100 ms doubling to 30 s.
    pub backoff: Backoff,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_attempts: 10, backoff: Backoff::default() }
    }
}

/// What happens to a message that failed for good, or whose body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// Its key is parked with its later messages until somebody calls `resume_key`; all other keys flow. Order is
    /// kept. Unkeyed messages, which hold up nobody, become dead letters.
    #[default]
    Park,
    /// The message becomes a dead letter, its key goes on without it. `redrive` brings it back, behind what waits. One of a
    /// version this program does not know parks its key all the same.
    DeadLetter,
}

impl QueueConfig {
    /// The defaults, for a queue of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Checks every rule.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let name_is_fine = !self.name.is_empty()
            && self.name.len() <= 128
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
        let backoff = self.retry.backoff;
        let rules: [(bool, &str); 15] = [
            (name_is_fine, "name must be 1 to 128 letters, digits, '-', '_', '.' or ':'"),
            ((1..=4096).contains(&self.partitions), "partitions must be 1 to 4096"),
            (
                self.partition_key.as_ref().is_none_or(|field| !field.is_empty()),
                "partition_key must name a field",
            ),
            (self.retry.max_attempts >= 1, "retry.max_attempts must be at least 1"),
            (backoff.initial <= backoff.max, "retry.backoff.initial must not exceed its max"),
            (backoff.max <= YEAR, "retry.backoff.max must be at most a year"),
            (
                backoff.factor.is_finite() && backoff.factor >= 1.0,
                "retry.backoff.factor must be at least 1",
            ),
            (self.max_depth >= 1, "max_depth must be at least 1"),
            (self.max_payload >= 1, "max_payload must be at least 1"),
            (self.dedup_limit >= 1, "dedup_limit must be at least 1"),
            (self.lease_ttl >= Duration::from_millis(100), "lease_ttl must be at least 100 ms"),
            (self.lease_ttl <= Duration::from_secs(3600), "lease_ttl must be at most one hour"),
            (self.prefetch >= 16, "prefetch must be at least 16"),
            (self.messages_per_worker >= 1, "messages_per_worker must be at least 1"),
            (self.prefetch_bytes >= 1024, "prefetch_bytes must be at least 1024"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Error::new(ErrorKind::Config, "build", *rule)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_gives_the_same_settings_as_code() -> Result<(), serde_json::Error> {
        let read: QueueConfig = serde_json::from_str(
            r#"{"name":"session-tasks","partition_key":"agent_id","retry":{"max_attempts":3},
                "poison":"dead_letter","publish_timeout":"2s","dedup_window":60}"#,
        )?;
        let mut written = QueueConfig::new("session-tasks");
        written.partition_key = Some("agent_id".into());
        written.retry.max_attempts = 3;
        written.poison = Poison::DeadLetter;
        written.publish_timeout = Duration::from_secs(2);
        written.dedup_window = Duration::from_secs(60);
        assert_eq!(read, written);
        assert_eq!(read.partitions, 16);
        assert_eq!(
            serde_json::from_str::<QueueConfig>(&serde_json::to_string(&written)?)?,
            written
        );
        Ok(())
    }

    #[test]
    fn a_bad_setting_is_refused_by_its_rule() {
        type Spoil = fn(&mut QueueConfig);
        let cases: [(Spoil, &str); 10] = [
            (|c| c.name = "a b".into(), "name must"),
            (|c| c.name = String::new(), "name must"),
            (|c| c.partitions = 0, "partitions must"),
            (|c| c.partition_key = Some(String::new()), "partition_key must"),
            (|c| c.retry.max_attempts = 0, "max_attempts must"),
            (|c| c.retry.backoff.factor = f64::NAN, "factor must"),
            (|c| c.retry.backoff.max = Duration::MAX, "backoff.max must"),
            (|c| c.lease_ttl = Duration::ZERO, "lease_ttl must"),
            (|c| c.prefetch = 1, "prefetch must"),
            (|c| c.messages_per_worker = 0, "messages_per_worker must"),
        ];
        for (spoil, rule) in cases {
            let mut config = QueueConfig::new("q");
            assert!(config.validate().is_ok());
            spoil(&mut config);
            let text = config.validate().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains(rule), "{text:?} should name {rule:?}");
        }
    }
}
