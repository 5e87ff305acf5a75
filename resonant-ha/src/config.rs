//! Settings of a manager, and the laws between them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{self, Result};

/// What to do when no proof can be had that the old primary is unable to acknowledge writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FencePolicy {
    /// Promote nobody and say why. The default.
    #[default]
    Require,
    /// Promote all the same once `step_timeout` has passed. Two primaries may take writes; the history says that nothing
    /// was proven.
    AllowUnfenced,
}

/// Settings of a [`FailoverManager`](crate::FailoverManager), with the scaling guide's names and defaults.
///
/// Plain data: set fields in code or read them from a file (durations as `"10s"` or plain seconds).
///
/// ```
/// use std::time::Duration;
/// use resonant_ha::FailoverConfig;
///
/// let in_code = FailoverConfig { failover_threshold: 5, ..FailoverConfig::default() };
/// let in_a_file: FailoverConfig = toml::from_str("failover_threshold = 5\nhealth_check_interval = 10")?;
/// assert_eq!(in_code, in_a_file);
/// assert!(in_code.recovery().total > Duration::from_secs(50));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailoverConfig {
    /// How often each region is probed. Default 10 s.
    #[serde(with = "resonant_common::duration")]
    pub health_check_interval: Duration,
    /// Failed probes of the primary in a row before it counts as failed. Default 3.
    pub failover_threshold: u32,
    /// Whether writes go back to the primary region once it has been well for `failback_delay`. Default yes; it is a planned
    /// switchover and needs `allow_promotion` like any other.
    pub auto_failback: bool,
    /// For how long the primary region must have been well without a break before the failback. Doubles with each relapse,
    /// up to sixteen times. Default 300 s.
    #[serde(with = "resonant_common::duration")]
    pub failback_delay: Duration,
    /// Whether this manager may promote. Default no: it watches, publishes what it sees and answers `plan()`.
    pub allow_promotion: bool,
    /// After how long a probe counts as failed. Default 2 s. Shorter than `health_check_interval`. A region that answers its
    /// probes has half of `step_timeout` to be frozen, one that does not has this.
    #[serde(with = "resonant_common::duration")]
    pub probe_timeout: Duration,
    /// How many standbys must have each commit before the primary acknowledges it, as `synchronous_standby_names` says.
    /// Default 0: none. Reachable standbys are then proof enough against a primary that cannot be reached.
    pub synchronous_standbys: u32,
    /// Without synchronous standbys: the most bytes the new primary may lack of what the old one was last seen to have
    /// written. Default 16 MiB.
    pub max_lag: u64,
    /// What to do without proof that the old primary is fenced. Default: nothing.
    pub fence: FencePolicy,
    /// For how long a lease to act is granted. Default 15 s.
    #[serde(with = "resonant_common::duration")]
    pub lease_ttl: Duration,
    /// By what share two clocks may differ in rate. Default 0.01.
    pub clock_drift: f64,
    /// By how much earlier than its end a lease is no longer acted on. Default 500 ms.
    #[serde(with = "resonant_common::duration")]
    pub lease_guard: Duration,
    /// How long one step of the protocol may take before the next attempt begins at a higher epoch. Default 10 s.
    #[serde(with = "resonant_common::duration")]
    pub step_timeout: Duration,
    /// How often a manager that does not hold the lease asks for the record. Default 1 s.
    #[serde(with = "resonant_common::duration")]
    pub poll_interval: Duration,
    /// How many failovers may begin within `failover_window`. Default 2; `resume()` clears the count.
    pub failover_budget: u32,
    /// See `failover_budget`. Default one hour.
    #[serde(with = "resonant_common::duration")]
    pub failover_window: Duration,
    /// How long one step takes when all is well, for the predicted recovery time. Default 500 ms.
    #[serde(with = "resonant_common::duration")]
    pub step_estimate: Duration,
    /// Where you have stated how soon a failure must be noticed: settings that take longer are refused.
    #[serde(with = "resonant_common::duration::option")]
    pub detection_budget: Option<Duration>,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            health_check_interval: Duration::from_secs(10),
            failover_threshold: 3,
            auto_failback: true,
            failback_delay: Duration::from_secs(300),
            allow_promotion: false,
            probe_timeout: Duration::from_secs(2),
            synchronous_standbys: 0,
            max_lag: 16 << 20,
            fence: FencePolicy::Require,
            lease_ttl: Duration::from_secs(15),
            clock_drift: 0.01,
            lease_guard: Duration::from_millis(500),
            step_timeout: Duration::from_secs(10),
            poll_interval: Duration::from_secs(1),
            failover_budget: 2,
            failover_window: Duration::from_secs(3600),
            step_estimate: Duration::from_millis(500),
            detection_budget: None,
        }
    }
}

/// How long a failover is predicted to take, by phase, while the managers themselves are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Recovery {
    /// Until the primary counts as failed.
    pub detection: Duration,
    /// Until it is proven unable to acknowledge writes, and the standbys' positions stand still.
    pub fence: Duration,
    /// Until the new one takes writes.
    pub promotion: Duration,
    /// Until the others follow it and the change is durable.
    pub commit: Duration,
    /// Until clients of every manager know.
    pub publication: Duration,
    /// All of it.
    pub total: Duration,
    /// What comes on top when the manager that holds the lease is lost with the primary.
    pub lease_takeover: Duration,
}

impl FailoverConfig {
    /// Short intervals for regions that are near each other: 250 ms by 3.
    pub fn fast() -> Self {
        Self {
            health_check_interval: Duration::from_millis(250),
            probe_timeout: Duration::from_millis(200),
            lease_ttl: Duration::from_secs(3),
            lease_guard: Duration::from_millis(100),
            step_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_millis(100),
            step_estimate: Duration::from_millis(150),
            ..Self::default()
        }
    }

    /// How long a failover is predicted to take.
    pub fn recovery(&self) -> Recovery {
        let detection = self.detection();
        let (fence, promotion) = (self.step_estimate, self.step_estimate);
        let (commit, publication) = (self.step_estimate, self.poll_interval + self.step_estimate);
        let total = detection + fence + promotion + commit + publication;
        let lease_takeover = self.lease_ttl + self.lease_ttl / 3 + self.poll_interval;
        Recovery { detection, fence, promotion, commit, publication, total, lease_takeover }
    }

    fn detection(&self) -> Duration {
        self.health_check_interval * self.failover_threshold + self.probe_timeout
    }

    /// For how long a lease is acted on, counted from before it was asked for.
    pub(crate) fn trusted(&self) -> Duration {
        self.lease_ttl.mul_f64(1.0 - self.clock_drift).saturating_sub(self.lease_guard)
    }

    /// A gap between two looks at the clock that is so long that everything known is old.
    pub(crate) fn longest_gap(&self) -> Duration {
        (self.lease_ttl / 4).min(Duration::from_secs(2))
    }

    /// How often the state machine looks at the clock.
    pub(crate) fn tick(&self) -> Duration {
        (self.health_check_interval / 10)
            .min(self.longest_gap() / 5)
            .clamp(Duration::from_millis(10), Duration::from_millis(250))
    }

    /// Checks the laws between the settings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the law that is broken.
    pub fn validate(&self) -> Result<()> {
        let drift = (0.0..=0.1).contains(&self.clock_drift);
        let laws = [
            (self.health_check_interval.is_zero(), "health_check_interval must be longer than 0"),
            (self.failover_threshold == 0, "failover_threshold must be at least 1"),
            (
                self.probe_timeout.is_zero() || self.probe_timeout >= self.health_check_interval,
                "probe_timeout must be longer than 0 and shorter than health_check_interval",
            ),
            (
                self.failback_delay < self.health_check_interval * self.failover_threshold,
                "failback_delay must be at least health_check_interval * failover_threshold",
            ),
            (!drift, "clock_drift must lie between 0 and 0.1"),
            (self.lease_ttl < Duration::from_millis(500), "lease_ttl must be at least 500 ms"),
            (
                drift && self.trusted() <= self.lease_ttl * 2 / 3,
                "a lease must outlive two renewals: lease_ttl * (1 - clock_drift) - lease_guard must be longer than two thirds of lease_ttl",
            ),
            (self.step_timeout < self.probe_timeout, "step_timeout must be at least probe_timeout"),
            (self.poll_interval.is_zero(), "poll_interval must be longer than 0"),
            (self.failover_budget == 0, "failover_budget must be at least 1"),
            (
                self.detection_budget.is_some_and(|budget| self.detection() > budget),
                "health_check_interval * failover_threshold + probe_timeout must not exceed detection_budget",
            ),
        ];
        match laws.iter().find(|(broken, _)| *broken) {
            Some((_, law)) => Err(error::config(*law)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_broken_law_is_named() {
        let bad = |change: fn(&mut FailoverConfig)| {
            let mut config = FailoverConfig::default();
            change(&mut config);
            config.validate().err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(bad(|_| ()), "");
        assert!(bad(|c| c.health_check_interval = Duration::ZERO).contains("longer than 0"));
        assert!(bad(|c| c.failover_threshold = 0).contains("failover_threshold must"));
        assert!(bad(|c| c.probe_timeout = secs(10)).contains("shorter than health_check"));
        assert!(bad(|c| c.failback_delay = secs(29)).contains("failback_delay must be at least"));
        assert!(bad(|c| c.clock_drift = f64::NAN).contains("clock_drift must"));
        assert!(bad(|c| c.lease_ttl = secs(0)).contains("lease_ttl must be"));
        assert!(bad(|c| c.lease_guard = secs(5)).contains("outlive two renewals"));
        assert!(bad(|c| c.step_timeout = secs(1)).contains("step_timeout must"));
        assert!(bad(|c| c.poll_interval = secs(0)).contains("poll_interval must"));
        assert!(bad(|c| c.failover_budget = 0).contains("failover_budget must"));
        assert!(bad(|c| c.detection_budget = Some(secs(31))).contains("detection_budget"));
        assert!(FailoverConfig::fast().validate().is_ok());
    }

    #[test]
    fn the_guides_settings_are_predicted_to_recover_in_thirty_five_seconds() {
        let recovery = FailoverConfig::default().recovery();
        assert_eq!(recovery.detection, secs(32));
        assert_eq!(recovery.total, secs(35));
        assert!(FailoverConfig::fast().recovery().total < secs(2));
    }
}
