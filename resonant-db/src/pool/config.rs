//! Settings of a pool.

use std::time::Duration;

use resonant_common::backoff::Backoff;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Settings of a [`ConnectionPool`](crate::pool::ConnectionPool).
///
/// Durations read human text (`"300s"`) or plain seconds in files. `Duration::MAX` turns a time limit off.
///
/// ```
/// use resonant_db::pool::PoolConfig;
/// let config = PoolConfig::default().min_size(2).max_size(20);
/// assert!(config.validate().is_ok());
/// assert!(PoolConfig::default().min_size(101).validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Connections kept open in total, busy ones included: opened when the pool is built and again after every loss,
    /// never closed for being idle. Default 10.
    pub min_size: u32,
    /// The most connections that exist at once, counting those being opened and those being closed. Default 100.
    pub max_size: u32,
    /// A connection above `min_size` that nobody used for this long is closed. The newest one is lent first, so that
    /// the others get the chance. Default 300 s.
    #[serde(with = "resonant_common::duration")]
    pub max_idle_time: Duration,
    /// The age at which a connection is replaced. Each gets its own limit, up to a quarter earlier, and a replacement is
    /// opened first unless the pool is at `max_size`; a busy one goes when it is returned. Default 3600 s.
    #[serde(with = "resonant_common::duration")]
    pub max_lifetime: Duration,
    /// An idle connection that has not been used or checked for this long is checked in the background. Each gets its
    /// own interval, up to a fifth shorter. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub health_check_interval: Duration,
    /// How long a caller waits for a connection. Default 10 s.
    #[serde(with = "resonant_common::duration")]
    pub acquire_timeout: Duration,
    /// How long opening one connection may take in all: name resolution, handshakes, login. Default 5 s.
    #[serde(with = "resonant_common::duration")]
    pub connect_timeout: Duration,
    /// How long the background check of one connection may take before it counts as failed. Default 2 s.
    #[serde(with = "resonant_common::duration")]
    pub health_check_timeout: Duration,
    /// How long cleaning or closing one connection may take before it is dropped. Default 5 s.
    #[serde(with = "resonant_common::duration")]
    pub clean_timeout: Duration,
    /// The most connections being opened at once. Few is right: a burst is mostly served by connections that come back
    /// while new ones are still being opened. Default 2.
    pub max_parallel_connects: u32,
    /// The pause after a failed connect, growing with each failure in a row. Default 100 ms to 5 s.
    pub connect_backoff: Backoff,
    /// The most callers that wait at once; the next is refused at once. Default 10,000.
    pub max_waiting: u32,
    /// A connection held longer than this is reported once in the log, with the place in the code that took it.
    /// Default 60 s.
    #[serde(with = "resonant_common::duration")]
    pub leak_warning_after: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            min_size: 10,
            max_size: 100,
            max_idle_time: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(3600),
            health_check_interval: Duration::from_secs(30),
            acquire_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            health_check_timeout: Duration::from_secs(2),
            clean_timeout: Duration::from_secs(5),
            max_parallel_connects: 2,
            connect_backoff: Backoff { max: Duration::from_secs(5), ..Backoff::default() },
            max_waiting: 10_000,
            leak_warning_after: Duration::from_secs(60),
        }
    }
}

macro_rules! setters {
    ($($field:ident: $type:ty),* $(,)?) => {
        /// The settings as a chain: each method sets the field of its name.
        impl PoolConfig {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](PoolConfig#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

setters! {
    min_size: u32,
    max_size: u32,
    max_idle_time: Duration,
    max_lifetime: Duration,
    health_check_interval: Duration,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    health_check_timeout: Duration,
    clean_timeout: Duration,
    max_parallel_connects: u32,
    connect_backoff: Backoff,
    max_waiting: u32,
    leak_warning_after: Duration,
}

impl PoolConfig {
    /// Whether the settings make sense together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], naming the rule that is broken and the values that break it.
    pub fn validate(&self) -> Result<()> {
        let broken = |message: String| Err(Error::new(ErrorKind::Config, "pool config", message));
        let counts = [
            ("max_size", self.max_size),
            ("max_parallel_connects", self.max_parallel_connects),
            ("max_waiting", self.max_waiting),
        ];
        for (name, value) in counts {
            if value == 0 {
                return broken(format!("{name} must be at least 1"));
            }
        }
        if self.min_size > self.max_size {
            return broken(format!(
                "min_size ({}) must not exceed max_size ({}): lower the one or raise the other",
                self.min_size, self.max_size
            ));
        }
        let times = [
            ("max_idle_time", self.max_idle_time),
            ("max_lifetime", self.max_lifetime),
            ("health_check_interval", self.health_check_interval),
            ("acquire_timeout", self.acquire_timeout),
            ("connect_timeout", self.connect_timeout),
            ("health_check_timeout", self.health_check_timeout),
            ("clean_timeout", self.clean_timeout),
            ("leak_warning_after", self.leak_warning_after),
        ];
        for (name, value) in times {
            if value.is_zero() {
                return broken(format!("{name} must be longer than nothing"));
            }
        }
        Ok(())
    }
}
