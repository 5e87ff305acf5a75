//! Settings of a checker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::track::Policy;

/// Settings of a checker, and the defaults of each of its checks.
///
/// Plain data: set fields in code, read them from a file (durations as `"10s"` or plain seconds), or from the
/// environment with [`from_env`](HealthConfig::from_env); all three give the same value.
///
/// ```
/// use std::time::Duration;
/// use resonant_health::HealthConfig;
///
/// let in_code = HealthConfig { interval: Duration::from_secs(5), fall: 2, ..HealthConfig::default() };
/// let in_a_file: HealthConfig = serde_json::from_str(r#"{"interval": "5s", "fall": 2}"#)?;
/// assert_eq!(in_code, in_a_file);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How often each check runs while all is well. Default 10 s, the kubelet's own period.
    #[serde(with = "resonant_common::duration")]
    pub interval: Duration,
    /// By what share each wait is shortened or lengthened at random, so that a fleet does not ask its database in
    /// step. Default 0.1. Between 0 and 0.5.
    pub jitter: f64,
    /// After how long a check is given up. Default 800 ms, below the kubelet's 1 s. At most `interval`.
    #[serde(with = "resonant_common::duration")]
    pub timeout: Duration,
    /// How soon a check runs again after a result that differs from the state it is in, and how soon the first time
    /// after it went down; while it stays down the wait doubles up to `interval`. Default 1 s. At most `interval`.
    #[serde(with = "resonant_common::duration")]
    pub recheck: Duration,
    /// Better results in a row before the state gets better. Default 2.
    pub rise: u32,
    /// Worse results in a row before the state gets worse. Default 3.
    pub fall: u32,
    /// The least time a state is kept once it changed. Default 5 s. The first result is taken at once.
    #[serde(with = "resonant_common::duration")]
    pub dwell: Duration,
    /// After how many intervals without a result the state is unknown. Default 3. At least 2.
    pub stale_intervals: u32,
    /// How many changes of state each check remembers. Default 16. At most 1000.
    pub history: usize,
    /// How many checks run at once. Default 16.
    pub max_concurrency: usize,
    /// How many threads blocking checks may hold, hung ones included. Default 4. At most 64.
    pub blocking_threads: usize,
    /// The longest [`run_all`](crate::HealthChecker::run_all) takes. Default 3 s. At least `timeout`.
    #[serde(with = "resonant_common::duration")]
    pub deadline: Duration,
    /// How long [`drain`](crate::HealthChecker::drain) waits for load balancers to notice. Default 5 s.
    #[serde(with = "resonant_common::duration")]
    pub drain_delay: Duration,
    /// The most checks and watchdogs one checker takes. Default 256.
    pub max_checks: usize,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            jitter: 0.1,
            timeout: Duration::from_millis(800),
            recheck: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            dwell: Duration::from_secs(5),
            stale_intervals: 3,
            history: 16,
            max_concurrency: 16,
            blocking_threads: 4,
            deadline: Duration::from_secs(3),
            drain_delay: Duration::from_secs(5),
            max_checks: 256,
        }
    }
}

impl HealthConfig {
    /// Reads `RESONANT_HEALTH_<FIELD>` variables, such as `RESONANT_HEALTH_INTERVAL=5s`; what is absent keeps its
    /// default.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: an unknown field, a value of the wrong form, or a broken rule.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// The same from any list of variables.
    ///
    /// # Errors
    ///
    /// As [`from_env`](HealthConfig::from_env).
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut fields = serde_json::Map::new();
        for (name, value) in vars {
            let Some(field) = name.strip_prefix("RESONANT_HEALTH_") else { continue };
            let value = match value.trim().parse::<serde_json::Number>() {
                Ok(number) => serde_json::Value::Number(number),
                Err(_) => serde_json::Value::String(value),
            };
            fields.insert(field.to_ascii_lowercase(), value);
        }
        let config: Self =
            serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| {
                Error::new(ErrorKind::Config, "from_env", format!("RESONANT_HEALTH_*: {error}"))
            })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the rules between the fields.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let rules = [
            (!(0.0..=0.5).contains(&self.jitter), "jitter must lie between 0 and 0.5"),
            (self.stale_intervals < 2, "stale_intervals must be at least 2"),
            (self.history > 1000, "history must be at most 1000"),
            (
                self.max_concurrency == 0 || self.max_concurrency > 1024,
                "max_concurrency must lie between 1 and 1024",
            ),
            (
                self.blocking_threads == 0 || self.blocking_threads > 64,
                "blocking_threads must lie between 1 and 64",
            ),
            (self.deadline < self.timeout, "deadline must be at least timeout"),
            (self.max_checks == 0, "max_checks must be at least 1"),
        ];
        let broken = rules.iter().find(|(broken, _)| *broken).map(|(_, rule)| *rule);
        match broken.map_or_else(|| self.policy().broken_rule(self.timeout), Some) {
            Some(rule) => Err(Error::new(ErrorKind::Config, "validate", rule)),
            None => Ok(()),
        }
    }

    /// The part that each check can override.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            interval: self.interval,
            jitter: self.jitter,
            recheck: self.recheck,
            rise: self.rise,
            fall: self.fall,
            dwell: self.dwell,
            stale_intervals: self.stale_intervals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn code_file_and_environment_give_the_same_value() -> Result<(), Box<dyn std::error::Error>> {
        let code = HealthConfig {
            interval: Duration::from_secs(30),
            timeout: Duration::from_millis(250),
            rise: 1,
            jitter: 0.25,
            ..HealthConfig::default()
        };
        let file: HealthConfig = serde_json::from_str(
            r#"{"interval": 30, "timeout": "250ms", "rise": 1, "jitter": 0.25}"#,
        )?;
        let environment = HealthConfig::from_vars(vars(&[
            ("RESONANT_HEALTH_INTERVAL", "30s"),
            ("RESONANT_HEALTH_TIMEOUT", "0.25"),
            ("RESONANT_HEALTH_RISE", "1"),
            ("RESONANT_HEALTH_JITTER", "0.25"),
            ("PATH", "/bin"),
        ]))?;
        assert_eq!(code, file);
        assert_eq!(code, environment);
        let again: HealthConfig = serde_json::from_str(&serde_json::to_string(&code)?)?;
        assert_eq!(code, again);
        Ok(())
    }

    #[test]
    fn each_broken_rule_is_named() {
        let bad = |change: fn(&mut HealthConfig)| {
            let mut config = HealthConfig::default();
            change(&mut config);
            config.validate().err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(bad(|c| c.jitter = 0.9).contains("jitter must lie between 0 and 0.5"));
        assert!(bad(|c| c.jitter = f64::NAN).contains("jitter must"));
        assert!(bad(|c| c.interval = Duration::ZERO).contains("interval must be longer than 0"));
        assert!(bad(|c| c.timeout = Duration::ZERO).contains("timeout must be longer than 0"));
        assert!(bad(|c| c.timeout = Duration::from_secs(11)).contains("deadline must be at least"));
        assert!(
            bad(|c| (c.timeout, c.deadline) = (Duration::from_secs(11), Duration::from_secs(20)))
                .contains("timeout must be at most interval")
        );
        assert!(bad(|c| c.recheck = Duration::ZERO).contains("recheck must"));
        assert!(bad(|c| c.rise = 0).contains("rise and fall must be at least 1"));
        assert!(bad(|c| c.fall = 0).contains("rise and fall must be at least 1"));
        assert!(bad(|c| c.stale_intervals = 1).contains("stale_intervals must"));
        assert!(bad(|c| c.blocking_threads = 0).contains("blocking_threads must"));
        assert!(bad(|c| c.max_concurrency = 0).contains("max_concurrency must"));
        assert!(bad(|c| c.history = 5000).contains("history must"));
        assert!(bad(|c| c.max_checks = 0).contains("max_checks must"));
        assert!(bad(|_| ()).is_empty());
    }

    #[test]
    fn an_unknown_variable_or_field_is_refused() {
        let error = HealthConfig::from_vars(vars(&[("RESONANT_HEALTH_INTERVALL", "5s")]));
        assert!(error.is_err_and(|error| error.to_string().contains("intervall")));
        assert!(serde_json::from_str::<HealthConfig>(r#"{"speed": 1}"#).is_err());
    }
}
