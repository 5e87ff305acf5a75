//! What a file says, once it is known to hold no mistake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use resonant_health::HealthConfig;

#[cfg(feature = "queue")]
use super::broker::BrokerConfig;
use super::config::{HttpConfig, ScalingConfig, ServiceConfig};
use super::environment;
use super::error::{Mistake, Mistakes, Place};
use super::rehearsal::Rehearsal;
use super::sections::Sections;
use super::tree;

/// What a file says: each section as the settings of the crate that reads it. Plain data, for those who build some parts by
/// hand.
///
/// ```
/// use resonant_sdk::app::Settings;
///
/// let mistakes = Settings::text("resonant.toml", "
///     [http]
///     lissen = '0.0.0.0:8000'
///     without_tokens = true
///
///     [health]
///     interval = 'soon'
/// ").vars([]).read().unwrap_err();
/// assert_eq!(mistakes.to_string(), "\
/// 2 mistakes in the settings
///   resonant.toml:3: http.lissen: there is no such setting; did you mean listen?
///   resonant.toml:7: health.interval: this is no duration: write seconds (300) or text with a unit (\"300s\", \"100ms\", \"5min\")");
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Settings {
    /// `[service]`.
    pub service: ServiceConfig,
    /// `[http]`. None: nothing is listened to.
    pub http: Option<HttpConfig>,
    /// `[health]`.
    pub health: HealthConfig,
    /// `[database]`.
    #[cfg(feature = "db")]
    pub database: Option<resonant_db::DatabaseConfig>,
    /// `[sharded_database]`.
    #[cfg(feature = "sharding")]
    pub sharded_database: Option<resonant_db::sharding::ShardedConfig>,
    /// `[sharded_database.pool]`: the pool of each node of each shard.
    #[cfg(feature = "sharding")]
    pub shard_pool: Option<resonant_db::PoolConfig>,
    /// `[cache]`.
    #[cfg(feature = "cache")]
    pub cache: Option<resonant_cache::CacheConfig>,
    /// `[broker]`.
    #[cfg(feature = "queue")]
    pub broker: BrokerConfig,
    /// `[queues.<name>]`.
    #[cfg(feature = "queue")]
    pub queues: BTreeMap<String, resonant_queue::QueueConfig>,
    /// `[batches.<name>]`.
    #[cfg(feature = "batch")]
    pub batches: BTreeMap<String, resonant_batch::BatchConfig>,
    /// `[regions.<name>]` and `[failover]`.
    #[cfg(feature = "ha")]
    pub failover: Option<resonant_ha::MultiRegion>,
    /// `[scaling.<name>]`.
    pub scaling: BTreeMap<String, ScalingConfig>,
    /// Of what the settings were read, for messages.
    pub(super) file: PathBuf,
    /// The sections that were given.
    pub(super) given: Vec<String>,
}

impl Settings {
    /// Reads a file. The environment goes over it.
    pub fn file(path: impl Into<PathBuf>) -> Reader {
        Reader { path: path.into(), text: None, vars: None, set: Vec::new() }
    }

    /// Reads a text as if it were the file of this name.
    pub fn text(name: impl Into<PathBuf>, text: impl Into<String>) -> Reader {
        Reader { text: Some(text.into()), ..Self::file(name) }
    }

    /// The sections that the file and the environment name, for a line about what was checked.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = &str> {
        self.given.iter().map(String::as_str)
    }

    /// Where they were read from.
    pub fn path(&self) -> &Path {
        &self.file
    }
}

/// On the way to [`Settings`].
#[derive(Clone)]
#[must_use = "nothing is read before `read` is called"]
pub struct Reader {
    path: PathBuf,
    text: Option<String>,
    vars: Option<Vec<(String, String)>>,
    set: Vec<(String, String)>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reader {
    /// Other variables than those of the process.
    pub fn vars(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        self.vars = Some(vars.into_iter().collect());
        self
    }

    /// A setting that goes over file and environment, such as `("http.listen", "0.0.0.0:9000")` from a command line. Read as
    /// the environment is.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.push((key.into(), value.into()));
        self
    }

    /// Reads and checks everything; connects to nothing.
    ///
    /// # Errors
    ///
    /// Every mistake there is: what is no TOML, sections and settings nobody knows, values of another kind, rules that are
    /// broken within a section and between sections, and features that are not compiled in.
    pub fn read(self) -> Result<Settings, Mistakes> {
        let path = &self.path;
        let only = |expected| {
            let place = Place::File(path.clone());
            Mistakes(vec![Mistake { place, key: String::new(), expected }])
        };
        let text = match self.text {
            Some(text) => text,
            None => std::fs::read_to_string(path)
                .map_err(|error| only(format!("the file cannot be read: {error}")))?,
        };
        let rehearsal = Rehearsal::new().map_err(|error| only(error.to_string()))?;
        let mut mistakes = Vec::new();
        let mut root = tree::parse(&text, path, &mut mistakes);
        let process = || {
            std::env::vars_os().filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            })
        };
        let vars = self.vars.unwrap_or_else(|| process().collect());
        environment::apply(vars, &mut root, &mut mistakes);
        for (key, value) in &self.set {
            let path: Vec<String> = key.split('.').map(ToOwned::to_owned).collect();
            root.put(&path, environment::given(value, Place::Program));
        }
        let mut sections = Sections { root, rehearsal, mistakes };
        let settings = sections.read(self.path);
        let mut mistakes = sections.mistakes;
        if mistakes.is_empty() {
            return Ok(settings);
        }
        mistakes.sort_by_key(|mistake| match mistake.place {
            Place::Line(_, line) => (0, line),
            Place::File(_) => (1, 0),
            _ => (2, 0),
        });
        Err(Mistakes(mistakes))
    }
}
