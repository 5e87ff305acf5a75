//! A check of something outside this process, and how much it counts.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use resonant_common::error::BoxError;
use resonant_common::join::Finding;
use serde::{Deserialize, Serialize};

use crate::config::HealthConfig;
use crate::track::Policy;
use crate::work::Work;

/// How much a check counts for the ready probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criticality {
    /// The service works with less: failed or unknown turns ready to warn, which is still 200. Right for most
    /// dependencies that all instances share: taking every instance out does not bring the cache back.
    Degrading,
    /// Shown, never counted.
    Informational,
    /// Nothing works without it: failed or unknown turns ready red (503). The default.
    #[default]
    Required,
}

/// A check with settings of its own; what is not set comes from [`HealthConfig`].
///
/// For the plain case use [`HealthChecker::check`](crate::HealthChecker::check).
///
/// ```
/// use std::time::Duration;
/// use resonant_health::{Check, HealthChecker};
/// # #[derive(Clone)] struct Cache;
/// # impl Cache { async fn ping(&self) -> Result<(), std::io::Error> { Ok(()) } }
/// # let cache = Cache;
///
/// let health = HealthChecker::new()
///     .with(
///         Check::new("cache", move || { let cache = cache.clone(); async move { cache.ping().await } })
///             .degrading()
///             .timeout(Duration::from_millis(200)),
///     )
///     .with(Check::blocking("disk", || std::fs::metadata("/").map(drop)).interval(Duration::from_secs(60)));
/// ```
#[must_use = "a check does nothing until it is added to a checker"]
pub struct Check {
    pub(crate) name: String,
    pub(crate) work: Work,
    pub(crate) criticality: Criticality,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    recheck: Option<Duration>,
    rise: Option<u32>,
    fall: Option<u32>,
    dwell: Option<Duration>,
}

impl Check {
    /// A check that passes when the future of `probe` returns `Ok`. Past the timeout the future is dropped.
    ///
    /// A name has 1 to 64 letters, digits, `_`, `-` or `.`, and is public.
    pub fn new<F, Fut, E>(name: &str, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::of(name, Work::from_future(probe))
    }

    /// A check by a function that blocks, run on a thread of its own.
    ///
    /// A thread cannot be stopped: past the timeout it is left behind, the check counts as timed out, and no second
    /// copy starts until it returns. All checks together hold at most
    /// [`blocking_threads`](HealthConfig::blocking_threads) threads. They do not keep the process from ending.
    pub fn blocking<F, E>(name: &str, probe: F) -> Self
    where
        F: Fn() -> Result<(), E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Self::of(name, Work::from_blocking(probe))
    }

    /// A check contributed by a primitive that knows its own state: saturation, lag, oldest age. It fails or warns as
    /// the worst finding does. `read` should only read memory.
    pub fn findings<F>(name: &str, read: F) -> Self
    where
        F: Fn() -> Vec<Finding> + Send + Sync + 'static,
    {
        Self::of(name, Work::from_findings(read))
    }

    fn of(name: &str, work: Work) -> Self {
        Self {
            name: name.to_owned(),
            work,
            criticality: Criticality::default(),
            interval: None,
            timeout: None,
            recheck: None,
            rise: None,
            fall: None,
            dwell: None,
        }
    }

    /// Nothing works without it (the default).
    pub fn required(self) -> Self {
        self.criticality(Criticality::Required)
    }

    /// The service works with less.
    pub fn degrading(self) -> Self {
        self.criticality(Criticality::Degrading)
    }

    /// Shown, never counted.
    pub fn informational(self) -> Self {
        self.criticality(Criticality::Informational)
    }

    /// How much it counts.
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = criticality;
        self
    }

    /// How often it runs while all is well.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// After how long it is given up. At most the interval.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How soon it runs again after a result that differs from its state. At most the interval.
    pub fn recheck(mut self, recheck: Duration) -> Self {
        self.recheck = Some(recheck);
        self
    }

    /// Better results in a row before the state gets better.
    pub fn rise(mut self, rise: u32) -> Self {
        self.rise = Some(rise);
        self
    }

    /// Worse results in a row before the state gets worse.
    pub fn fall(mut self, fall: u32) -> Self {
        self.fall = Some(fall);
        self
    }

    /// The least time a state is kept once it changed.
    pub fn dwell(mut self, dwell: Duration) -> Self {
        self.dwell = Some(dwell);
        self
    }

    /// The settings that hold. Defaults that an own, shorter interval does not leave room for give way to it.
    pub(crate) fn resolve(&self, config: &HealthConfig) -> (Policy, Duration) {
        let defaults = config.policy();
        let interval = self.interval.unwrap_or(defaults.interval);
        let policy = Policy {
            interval,
            jitter: defaults.jitter,
            recheck: self.recheck.unwrap_or(defaults.recheck.min(interval)),
            rise: self.rise.unwrap_or(defaults.rise),
            fall: self.fall.unwrap_or(defaults.fall),
            dwell: self.dwell.unwrap_or(defaults.dwell),
            stale_intervals: defaults.stale_intervals,
        };
        (policy, self.timeout.unwrap_or(config.timeout.min(interval)))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("criticality", &self.criticality)
            .finish_non_exhaustive()
    }
}

/// Whether a name may appear in bodies, labels and queries.
pub(crate) fn is_public_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}
