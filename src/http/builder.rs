//! What the API is made of.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use resonant_common::error::BoxError;
use resonant_common::join::Topology;
use resonant_health::HealthChecker;
use resonant_scale::{Autoscaler, Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::auth::{SHORTEST, Tokens};
use super::limit::Bucket;
use super::overview::{Overview, Table};
use super::page::Page;
use super::replay::Replays;
use super::rows::{self, Row};

/// Settings of an [`Api`].
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// The longest body taken, in bytes. Default 16 KiB.
    pub max_body: usize,
    /// How long a body may take to arrive. Default 10 s.
    #[serde(with = "resonant_common::duration")]
    pub body_timeout: Duration,
    /// Changes a second that are taken in the long run; bursts of 20, or of what a second brings. Default 1.
    pub writes_per_second: f64,
    /// Questions a second of those with a token, all together; bursts of 100, or of what a second
    /// brings. Default 50.
    pub reads_per_second: f64,
    /// The same of those without, refused ones included. Default 20.
    pub strangers_per_second: f64,
    /// How many idempotency keys are remembered in this process, for a day at most; the oldest answers go first. Default 1000.
    pub max_keys: usize,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            max_body: 16 * 1024,
            body_timeout: Duration::from_secs(10),
            writes_per_second: 1.0,
            reads_per_second: 50.0,
            strangers_per_second: 20.0,
            max_keys: 1000,
        }
    }
}

impl ApiConfig {
    fn validate(&self) -> Result<()> {
        let rates = [
            ("writes_per_second", self.writes_per_second),
            ("reads_per_second", self.reads_per_second),
            ("strangers_per_second", self.strangers_per_second),
        ];
        for (name, rate) in rates {
            if !rate.is_finite() || rate <= 0.0 {
                return Err(refuse(format!("{name} must be above 0, not {rate}")));
            }
        }
        if self.max_body == 0 || self.max_keys == 0 || self.body_timeout.is_zero() {
            return Err(refuse("max_body, max_keys and body_timeout must be above 0"));
        }
        Ok(())
    }
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "build", message)
}

pub(super) type Render = Box<dyn Fn() -> String + Send + Sync>;

/// Gathers what the API tells of and who may ask.
#[must_use = "a builder does nothing until `build` is called"]
pub struct ApiBuilder {
    config: ApiConfig,
    service: String,
    tokens: Tokens,
    open: bool,
    wrong: Option<Error>,
    health: Option<HealthChecker>,
    scalers: Vec<Autoscaler>,
    metrics: Option<Render>,
    private_metrics: bool,
    tables: Vec<Table>,
}

impl ApiBuilder {
    fn new() -> Self {
        Self {
            config: ApiConfig::default(),
            service: "service".into(),
            tokens: Tokens::default(),
            open: false,
            wrong: None,
            health: None,
            scalers: Vec::new(),
            metrics: None,
            private_metrics: false,
            tables: Vec::new(),
        }
    }

    /// Settings other than the defaults.
    pub fn config(mut self, config: ApiConfig) -> Self {
        self.config = config;
        self
    }

    /// What stands at the top of the page. Default `service`.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// Whoever presents `token` is `name`: may see details and scale, and stands in the history. At least 16 bytes.
    /// Several may be given, such as the old one and the new.
    pub fn token(mut self, name: impl Into<String>, token: &str) -> Self {
        let fits =
            token.len() >= SHORTEST && token.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if fits && token.trim() == token {
            self.tokens.add(name.into(), token);
        } else {
            let message = "a token must have at least 16 printable ASCII characters and none of space around it";
            self.wrong = Some(refuse(message));
        }
        self
    }

    /// Nobody needs a token: everybody may see details and scale. Only where something else lets in only operators. Refused
    /// beside a [`token`](Self::token).
    pub fn without_tokens(mut self) -> Self {
        self.open = true;
        self
    }

    /// The health checker whose answers are served. [`start`](HealthChecker::start) it, too.
    pub fn health(mut self, health: HealthChecker) -> Self {
        self.health = Some(health);
        self
    }

    /// A scaler that is shown and may be scaled by hand. Several may be given.
    pub fn scaler(mut self, scaler: Autoscaler) -> Self {
        self.scalers.push(scaler);
        self
    }

    /// What `GET /api/v1/metrics` answers, in Prometheus' text format: `move || prometheus.render()`.
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Box::new(render));
        self
    }

    /// Metrics, too, only for who has a token.
    pub fn private_metrics(mut self) -> Self {
        self.private_metrics = true;
        self
    }

    /// A table of the page: `read` is called at most once a second, and given up after two.
    pub fn show<T, F, Fut, E>(mut self, read: F) -> Self
    where
        T: Row,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<T>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.tables.push(Table::new(read));
        self
    }

    /// The regions and the epoch, as a failover manager publishes them.
    pub fn topology(self, topology: watch::Receiver<Topology>) -> Self {
        self.show(rows::regions(topology))
    }

    /// Puts it together.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config): no token and not told to do without, or both, a token that is too short, two scalers or
    /// tables of one name, or a setting that breaks a rule.
    pub fn build(self) -> Result<Api> {
        self.config.validate()?;
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if self.tokens.is_empty() && !self.open {
            return Err(refuse("give a token, or say without_tokens"));
        }
        if !self.tokens.is_empty() && self.open {
            let message =
                "take either the tokens or without_tokens away: without_tokens lets everybody in";
            return Err(refuse(message));
        }
        for (index, scaler) in self.scalers.iter().enumerate() {
            if self.scalers[..index].iter().any(|other| other.name() == scaler.name()) {
                return Err(refuse(format!("two scalers are called {:?}", scaler.name())));
            }
        }
        for (index, table) in self.tables.iter().enumerate() {
            if self.tables[..index].iter().any(|other| other.id == table.id) {
                return Err(refuse(format!("two tables are called {:?}", table.id)));
            }
        }
        let limits = Limits {
            writes: Bucket::new(self.config.writes_per_second, 20.0),
            reads: Bucket::new(self.config.reads_per_second, 100.0),
            strangers: Bucket::new(self.config.strangers_per_second, 100.0),
        };
        let shared = Shared {
            limits: Mutex::new(limits),
            replays: Arc::new(Mutex::new(Replays::new(self.config.max_keys))),
            work: Mutex::default(),
            overview: Overview::new(self.service, self.tables),
            page: Page::new(),
            config: self.config,
            tokens: self.tokens,
            open: self.open,
            health: self.health,
            scalers: self.scalers,
            metrics: self.metrics,
            private_metrics: self.private_metrics,
        };
        Ok(Api { shared: Arc::new(shared) })
    }
}

impl fmt::Debug for ApiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiBuilder").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// The HTTP API and the status page. Clones are the same.
#[derive(Clone)]
pub struct Api {
    pub(super) shared: Arc<Shared>,
}

/// What all routes share.
pub(super) struct Shared {
    pub(super) config: ApiConfig,
    pub(super) tokens: Tokens,
    pub(super) open: bool,
    pub(super) health: Option<HealthChecker>,
    pub(super) scalers: Vec<Autoscaler>,
    pub(super) metrics: Option<Render>,
    pub(super) private_metrics: bool,
    pub(super) overview: Overview,
    pub(super) page: Page,
    pub(super) limits: Mutex<Limits>,
    pub(super) replays: Arc<Mutex<Replays>>,
    /// Changes under way: they go on when the client goes away, and end with the last handle.
    pub(super) work: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
pub(super) struct Limits {
    pub(super) writes: Bucket,
    pub(super) reads: Bucket,
    pub(super) strangers: Bucket,
}

/// A lock nobody panics under.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Api {
    /// Gathers what it tells of.
    pub fn builder() -> ApiBuilder {
        ApiBuilder::new()
    }

    /// The routes, to be merged or nested.
    pub fn router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        super::routes::router(&self.shared)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { tokens, scalers, .. } = &*self.shared;
        f.debug_struct("Api")
            .field("tokens", tokens)
            .field("scalers", scalers)
            .finish_non_exhaustive()
    }
}
