//! Settings no crate has: those of the service as a whole, and of what lies between the parts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use resonant_scale::{AutoscalerConfig, Policy, guide};
use serde::{Deserialize, Serialize};

use crate::http::ApiConfig;

/// `[service]`: the service as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// What stands at the top of the status page. Default `service`.
    pub name: String,
    /// How long the end may take in all, from the signal on. Keep it below what the platform grants (Kubernetes: 30 s).
    /// Default 25 s.
    #[serde(with = "resonant_common::duration")]
    pub shutdown_deadline: Duration,
    /// Whether to install a recorder for Prometheus, served at `/api/v1/metrics`. One per process; needs the feature
    /// `prometheus`. Default no.
    pub metrics: bool,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { name: "service".into(), shutdown_deadline: Duration::from_secs(25), metrics: false }
    }
}

impl ServiceConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.metrics && !cfg!(feature = "prometheus") {
            let message =
                "metrics needs the feature `prometheus` of resonant-sdk, which this build lacks";
            return Err(message.into());
        }
        match self.shutdown_deadline.is_zero() {
            true => Err("shutdown_deadline must be above 0".into()),
            false => Ok(()),
        }
    }
}

/// `[http]`: where the service listens, and who may look closely.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpConfig {
    /// The address and port. Default `0.0.0.0:8000`.
    pub listen: String,
    /// Who may see details and scale: names with their tokens of at least 16 characters. Default nobody.
    pub tokens: BTreeMap<String, String>,
    /// Everybody may: only where something else lets in only operators. Default no.
    pub without_tokens: bool,
    /// Metrics, too, only for those with a token. Default no.
    pub private_metrics: bool,
    /// The limits of the API.
    pub api: ApiConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8000".into(),
            tokens: BTreeMap::new(),
            without_tokens: false,
            private_metrics: false,
            api: ApiConfig::default(),
        }
    }
}

impl HttpConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        let port = self.listen.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
        if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
            return Err("listen must be an address and a port, such as 0.0.0.0:8000".into());
        }
        if self.tokens.is_empty() && !self.without_tokens {
            return Err("tokens must name somebody, or without_tokens must say that everybody \
                        may see details and scale"
                .into());
        }
        let setting = |error: resonant_scale::Error| match error.message() {
            message if message.contains("token") => format!("tokens: {message}"),
            message => message.to_owned(),
        };
        self.builder().build().map(drop).map_err(setting)
    }

    pub(super) fn builder(&self) -> crate::http::ApiBuilder {
        let mut api = crate::http::Api::builder().config(self.api.clone());
        for (name, token) in &self.tokens {
            api = api.token(name, token);
        }
        if self.without_tokens {
            api = api.without_tokens();
        }
        if self.private_metrics { api.private_metrics() } else { api }
    }
}

/// Without the tokens.
impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("listen", &self.listen)
            .field("tokens", &self.tokens.keys().collect::<Vec<_>>())
            .field("without_tokens", &self.without_tokens)
            .field("private_metrics", &self.private_metrics)
            .field("api", &self.api)
            .finish()
    }
}

/// `[scaling.<name>]`: workers that come and go with a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ScalingConfig {
    /// The queue whose depth is the metric `queue_depth`. No default.
    pub queue: String,
    /// The Deployment that is scaled, as `namespace/name`; needs the feature `kubernetes`. Default none: the workers that this
    /// process was given for the queue.
    pub deployment: Option<String>,
    /// The rules. Default those of the scaling guide: 2 to 50, ten messages each.
    pub policy: Policy,
    /// How often it decides, and the like.
    pub autoscaler: AutoscalerConfig,
}

impl Default for ScalingConfig {
    fn default() -> Self {
        Self {
            queue: String::new(),
            deployment: None,
            policy: guide::workers().into(),
            autoscaler: AutoscalerConfig::default(),
        }
    }
}

/// The metric a scaler of the file can have.
pub(super) const QUEUE_DEPTH: &str = "queue_depth";

impl ScalingConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        if let Some(deployment) = &self.deployment {
            if !cfg!(feature = "kubernetes") {
                let message = "deployment needs the feature `kubernetes` of resonant-sdk, which this build lacks";
                return Err(message.into());
            }
            if deployment.split('/').filter(|part| !part.is_empty()).count() != 2 {
                return Err("deployment must be namespace/name".into());
            }
        }
        let message = |error: resonant_scale::Error| error.message().to_owned();
        match &self.policy {
            Policy::Hpa(hpa) => hpa.validate().map_err(message)?,
            Policy::TargetTracking(tracking) => tracking.validate().map_err(message)?,
            _ => {}
        }
        if self.policy.metrics().iter().any(|metric| *metric != QUEUE_DEPTH) {
            return Err(format!(
                "policy can have only the metric {QUEUE_DEPTH}; scalers of other metrics are built in code"
            ));
        }
        self.autoscaler.validate().map_err(message)
    }
}
