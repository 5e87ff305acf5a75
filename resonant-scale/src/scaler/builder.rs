//! What a scaler is made of.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::error::BoxError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Autoscaler, Core};
use crate::error::{Result, config};
use crate::policy::Policy;
use crate::source::{FromFn, MetricSource};
use crate::target::ScaleTarget;

/// Settings of a [`Autoscaler`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoscalerConfig {
    /// How often it decides. Default 15 s, as Kubernetes does.
    #[serde(with = "resonant_common::duration")]
    pub interval: Duration,
    /// How long a metric or the target may take to answer. Default 5 s.
    #[serde(with = "resonant_common::duration")]
    pub timeout: Duration,
    /// How long the target may take to accept a change. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub set_timeout: Duration,
    /// How long after a person's change there is no other without force. Default 30 s.
    #[serde(with = "resonant_common::duration")]
    pub manual_cooldown: Duration,
    /// The longest a person may hold the number of replicas. Default 24 h.
    #[serde(with = "resonant_common::duration")]
    pub max_hold: Duration,
    /// How many changes are remembered, and as many decisions. Default 100. At most 10,000.
    pub history: usize,
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(5),
            set_timeout: Duration::from_secs(30),
            manual_cooldown: Duration::from_secs(30),
            max_hold: Duration::from_secs(24 * 3600),
            history: 100,
        }
    }
}

impl AutoscalerConfig {
    /// Whether the settings can be used.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), naming the rule that is broken.
    pub fn validate(&self) -> Result<()> {
        let least = Duration::from_millis(1);
        for (name, value) in [
            ("interval", self.interval),
            ("timeout", self.timeout),
            ("set_timeout", self.set_timeout),
        ] {
            if value < least {
                return Err(config("validate", format!("{name} must be above 0")));
            }
        }
        if self.history == 0 || self.history > 10_000 {
            return Err(config("validate", "history must be 1 to 10000"));
        }
        Ok(())
    }
}

/// Gathers what a [`Autoscaler`] needs.
#[must_use = "a builder does nothing until `build` is called"]
pub struct AutoscalerBuilder {
    name: String,
    config: AutoscalerConfig,
    policy: Option<Policy>,
    target: Option<Arc<dyn ScaleTarget>>,
    sources: HashMap<String, Arc<dyn MetricSource>>,
    forbidden: Vec<Forbidden>,
}

/// Says whether nothing may be taken away now.
pub(super) type Forbidden = Box<dyn Fn() -> bool + Send + Sync>;

impl AutoscalerBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            config: AutoscalerConfig::default(),
            policy: None,
            target: None,
            sources: HashMap::new(),
            forbidden: Vec::new(),
        }
    }

    /// Settings other than the defaults.
    pub fn config(mut self, config: AutoscalerConfig) -> Self {
        self.config = config;
        self
    }

    /// How often it decides. Default 15 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.config.interval = interval;
        self
    }

    /// The rules: an [`HpaConfig`](crate::HpaConfig) or a [`TrackingConfig`](crate::TrackingConfig).
    pub fn policy(mut self, policy: impl Into<Policy>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// What is scaled.
    pub fn target(mut self, target: impl ScaleTarget) -> Self {
        self.target = Some(Arc::new(target));
        self
    }

    /// Where the metric `name` comes from.
    pub fn source(mut self, name: impl Into<String>, source: impl MetricSource) -> Self {
        self.sources.insert(name.into(), Arc::new(source));
        self
    }

    /// The metric `name` by a closure: one value for all, such as the depth of a queue.
    pub fn measure<F, Fut, E>(self, name: impl Into<String>, read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<f64, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.source(name, FromFn::total(read))
    }

    /// Nothing is taken away while `forbidden` says so, as during a failover. Asked at each evaluation; must not block.
    pub fn forbid_scale_in_while(
        mut self,
        forbidden: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.forbidden.push(Box::new(forbidden));
        self
    }

    /// Nothing is taken away while the channel holds `true`.
    pub fn forbid_scale_in_on(self, signal: watch::Receiver<bool>) -> Self {
        self.forbid_scale_in_while(move || *signal.borrow())
    }

    /// Puts it together. [`Autoscaler::start`] sets it going.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for settings that break a rule, a missing policy or target, and a metric without a
    /// source.
    pub fn build(self) -> Result<Autoscaler> {
        let refuse = |message: String| Err(config("build", message));
        self.config.validate()?;
        if self.name.is_empty() || self.name.len() > 128 || self.name.chars().any(char::is_control)
        {
            return refuse("the name must be 1 to 128 bytes, without control characters".into());
        }
        let Some(policy) = self.policy else { return refuse("name a policy".into()) };
        let Some(target) = self.target else { return refuse("name a target".into()) };
        for metric in policy.metrics() {
            if !self.sources.contains_key(metric) {
                return refuse(format!("the metric {metric:?} of the policy has no source"));
            }
        }
        if let Some(name) =
            self.sources.keys().find(|name| !policy.metrics().contains(&name.as_str()))
        {
            return refuse(format!(
                "the policy has no metric {name:?}, which a source was given for"
            ));
        }
        let core = Core::new(self.name, self.config, policy, target, self.sources, self.forbidden)?;
        Ok(Autoscaler::of(core))
    }
}

impl fmt::Debug for AutoscalerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoscalerBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
