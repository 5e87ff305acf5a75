//! Each section of a file, read and checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use resonant_health::HealthConfig;
use serde::de::DeserializeOwned;

#[cfg(feature = "queue")]
use super::broker::BrokerConfig;
use super::collect;
use super::config::{HttpConfig, ScalingConfig, ServiceConfig};
use super::error::Mistake;
use super::rehearsal::Rehearsal;
use super::settings::Settings;
use super::tree::{Node, Value};

/// The sections, the feature each needs, and whether it is compiled in.
const SECTIONS: [(&str, &str, bool); 12] = [
    ("batches", "batch", cfg!(feature = "batch")),
    ("broker", "queue", cfg!(feature = "queue")),
    ("cache", "cache", cfg!(feature = "cache")),
    ("database", "db", cfg!(feature = "db")),
    ("failover", "ha", cfg!(feature = "ha")),
    ("health", "app", true),
    ("http", "app", true),
    ("queues", "queue", cfg!(feature = "queue")),
    ("regions", "ha", cfg!(feature = "ha")),
    ("scaling", "queue", cfg!(feature = "queue")),
    ("service", "app", true),
    ("sharded_database", "sharding", cfg!(feature = "sharding")),
];

/// A file's tree on its way to [`Settings`].
pub(super) struct Sections {
    pub(super) root: Node,
    pub(super) rehearsal: Rehearsal,
    pub(super) mistakes: Vec<Mistake>,
}

impl Sections {
    pub(super) fn read(&mut self, file: PathBuf) -> Settings {
        let given = self.known(&SECTIONS);
        let settings = Settings {
            service: self.one("service", |it: ServiceConfig| it.validate()).unwrap_or_default(),
            http: self.one("http", |it: HttpConfig| it.validate()),
            health: self
                .one("health", |it: HealthConfig| {
                    it.validate().map_err(|error| error.message().to_owned())
                })
                .unwrap_or_default(),
            #[cfg(feature = "db")]
            database: self.rehearse("database", "primary", |it: resonant_db::DatabaseConfig| {
                resonant_db::Database::from_config(it).connect_lazy()
            }),
            #[cfg(feature = "sharding")]
            shard_pool: self.shard_pool(),
            #[cfg(feature = "sharding")]
            sharded_database: self.rehearse("sharded_database", "shards", |it| sharded(&it)),
            #[cfg(feature = "cache")]
            cache: self.cache(),
            #[cfg(feature = "queue")]
            broker: self.broker(),
            #[cfg(feature = "queue")]
            queues: self.queues(),
            #[cfg(feature = "batch")]
            batches: self.batches(),
            #[cfg(feature = "ha")]
            failover: self.failover(),
            scaling: self.scaling(),
            file,
            given,
        };
        #[cfg(all(feature = "db", feature = "ha"))]
        if let (Some(database), Some(failover)) = (&settings.database, &settings.failover) {
            self.regional(database, failover);
        }
        settings
    }

    /// Which sections there are; those that cannot be served are mistakes.
    fn known(&mut self, sections: &[(&str, &str, bool)]) -> Vec<String> {
        let Some(entries) = self.root.entries() else { return Vec::new() };
        let mut given = Vec::new();
        for (name, node) in entries {
            let Some((_, feature, compiled)) = sections.iter().find(|known| known.0 == name) else {
                let names: Vec<_> = sections.iter().map(|known| known.0).collect();
                self.mistakes.push(Mistake {
                    place: node.place.clone(),
                    key: name.clone(),
                    expected: collect::unknown(name, &names).replace("setting", "section"),
                });
                continue;
            };
            let expected = if !matches!(node.value, Value::Table(_)) {
                format!("expected a table, found {}", node.value.kind())
            } else if !compiled {
                format!(
                    "this section needs the feature `{feature}` of resonant-sdk, which this build lacks"
                )
            } else {
                given.push(name.clone());
                continue;
            };
            self.mistakes.push(Mistake { place: node.place.clone(), key: name.clone(), expected });
        }
        given
    }

    fn table(&self, name: &str) -> Option<Node> {
        self.root.entries()?.get(name).filter(|node| node.entries().is_some()).cloned()
    }

    /// A section with a rule.
    fn one<T: DeserializeOwned>(
        &mut self,
        name: &str,
        rule: impl Fn(T) -> Result<(), String>,
    ) -> Option<T> {
        collect::section(&self.table(name)?, name, &mut self.mistakes, rule)
    }

    /// A section whose rule is that the part can be built. What is wrong with a URL is wrong with the setting `urls`.
    #[cfg(any(feature = "db", feature = "cache"))]
    fn rehearse<T: DeserializeOwned, P, K: resonant_common::error::Kind>(
        &mut self,
        name: &str,
        urls: &str,
        build: impl Fn(T) -> Result<P, resonant_common::error::Error<K>>,
    ) -> Option<T> {
        let node = self.table(name)?;
        let Self { rehearsal, mistakes, .. } = self;
        collect::section(&node, name, mistakes, |it| {
            rehearsal.of(|| build(it)).map_err(|message| match message {
                message if message.contains("URL") => format!("{urls}: {message}"),
                message => message,
            })
        })
    }

    #[cfg(feature = "cache")]
    fn cache(&mut self) -> Option<resonant_cache::CacheConfig> {
        self.rehearse("cache", "nodes", |it: resonant_cache::CacheConfig| {
            // Its rules first, which name their settings.
            it.validate()?;
            resonant_cache::DistributedCache::builder().config(it).build()
        })
    }

    /// A section of named sections.
    fn several<T: DeserializeOwned>(
        &mut self,
        section: &str,
        rule: impl Fn(T) -> Result<(), String>,
    ) -> BTreeMap<String, T> {
        let Some(node) = self.table(section) else { return BTreeMap::new() };
        let mut read = BTreeMap::new();
        for (name, node) in node.entries().into_iter().flatten() {
            let key = format!("{section}.{name}");
            if let Some(value) = collect::section(node, &key, &mut self.mistakes, &rule) {
                read.insert(name.clone(), value);
            }
        }
        read
    }

    /// Taken out of the section: the crate has it as a setting of its builder.
    #[cfg(feature = "sharding")]
    fn shard_pool(&mut self) -> Option<resonant_db::PoolConfig> {
        let path = ["sharded_database".to_owned(), "pool".to_owned()];
        let node = self.root.get(&path)?.clone();
        self.root.remove(&path);
        let rule =
            |it: resonant_db::PoolConfig| it.validate().map_err(|error| error.message().to_owned());
        collect::section(&node, "sharded_database.pool", &mut self.mistakes, rule)
    }

    #[cfg(feature = "queue")]
    fn broker(&mut self) -> BrokerConfig {
        let primary = self.root.get(&["database".to_owned(), "primary".to_owned()]);
        let postgres = primary.is_some_and(|node| match &node.value {
            Value::Text(url) | Value::Loose(url) => url.starts_with("postgres"),
            _ => false,
        });
        let Some(node) = self.table("broker") else { return BrokerConfig::default() };
        let Self { rehearsal, mistakes, .. } = self;
        let rule = |it: BrokerConfig| it.validate(postgres).and_then(|()| it.readable(rehearsal));
        collect::section(&node, "broker", mistakes, rule).unwrap_or_default()
    }

    #[cfg(feature = "queue")]
    fn queues(&mut self) -> BTreeMap<String, resonant_queue::QueueConfig> {
        // A queue is called what its section is called, unless it says otherwise.
        if let Some(Value::Table(queues)) = self.section_value("queues") {
            for (name, node) in queues {
                let place = node.place.clone();
                if let Value::Table(entries) = &mut node.value {
                    entries
                        .entry("name".to_owned())
                        .or_insert(Node { value: Value::Text(name.clone()), place });
                }
            }
        }
        let queues = self.several("queues", |it: resonant_queue::QueueConfig| {
            it.validate().map_err(|error| error.message().to_owned())
        });
        self.checkable("queues", super::queues::check_name, queues.keys());
        queues
    }

    #[cfg(feature = "batch")]
    fn batches(&mut self) -> BTreeMap<String, resonant_batch::BatchConfig> {
        let batches = self.several("batches", |it: resonant_batch::BatchConfig| {
            it.validate().map_err(|error| error.message().to_owned())
        });
        self.checkable("batches", super::batches::check_name, batches.keys());
        batches
    }

    #[cfg(feature = "queue")]
    fn section_value(&mut self, name: &str) -> Option<&mut Value> {
        match &mut self.root.value {
            Value::Table(entries) => entries.get_mut(name).map(|node| &mut node.value),
            _ => None,
        }
    }

    /// The guide has the regions and the failover side by side; the crate has them in one.
    #[cfg(feature = "ha")]
    fn failover(&mut self) -> Option<resonant_ha::MultiRegion> {
        let (regions, failover) = (self.table("regions"), self.table("failover"));
        let place = regions.as_ref().or(failover.as_ref())?.place.clone();
        let mut both = Node::table(place);
        for (name, node) in [("regions", regions), ("failover", failover)] {
            if let Some(node) = node {
                both.put(&[name.to_owned()], node);
            }
        }
        let Self { rehearsal, mistakes, .. } = self;
        collect::section(&both, "", mistakes, |it: resonant_ha::MultiRegion| {
            rehearsal.of(|| it.builder()?.build())
        })
    }

    fn scaling(&mut self) -> BTreeMap<String, ScalingConfig> {
        let (scalers, queues) = (self.table("scaling"), self.table("queues"));
        for (name, node) in scalers.iter().filter_map(Node::entries).flatten() {
            let queue = node.get(&["queue".to_owned()]);
            let named = queue.is_some_and(|queue| match &queue.value {
                Value::Text(name) | Value::Loose(name) => {
                    queues.as_ref().and_then(Node::entries).is_some_and(|it| it.contains_key(name))
                }
                // Said where it is read.
                _ => true,
            });
            if !named {
                self.mistakes.push(Mistake {
                    place: queue.unwrap_or(node).place.clone(),
                    key: format!("scaling.{name}.queue"),
                    expected: "this must name one of [queues]".into(),
                });
            }
        }
        let scaling = self.several("scaling", |it: ScalingConfig| it.validate());
        self.one_scaler_each(&scaling);
        scaling
    }
}

/// Whether the shards can be built: the routes, and each shard's nodes.
#[cfg(feature = "sharding")]
fn sharded(config: &resonant_db::sharding::ShardedConfig) -> resonant_db::Result<()> {
    use resonant_db::sharding::{ShardConfig, ShardedDatabase};
    if config.shard_key.is_empty() {
        let rule = "shard_key must name the column that decides the shard";
        return Err(resonant_db::Error::new(resonant_db::ErrorKind::Config, "connect", rule));
    }
    ShardedDatabase::from_config(config.clone()).router()?;
    for shard in config.shards.values() {
        let builder = match shard {
            ShardConfig::Url(primary) => resonant_db::Database::builder().primary(primary),
            ShardConfig::Nodes { primary, replicas } => {
                resonant_db::Database::builder().primary(primary).replicas(replicas)
            }
        };
        builder.connect_lazy()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tree;
    use super::*;

    #[test]
    fn a_section_that_is_not_compiled_in_names_its_feature() -> std::io::Result<()> {
        let mut mistakes = Vec::new();
        let text = "cachet = 1\n[cache]\n[http]\n[[health]]";
        let root = tree::parse(text, Path::new("resonant.toml"), &mut mistakes);
        let mut sections = Sections { root, rehearsal: Rehearsal::new()?, mistakes };
        let known = [("cache", "cache", false), ("health", "app", true), ("http", "app", true)];
        assert_eq!(sections.known(&known), ["http"]);
        let said: Vec<_> = sections.mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "resonant.toml:2: cache: this section needs the feature `cache` of resonant-sdk, which this build lacks",
                "resonant.toml:1: cachet: there is no such section; did you mean cache?",
                "resonant.toml:4: health: expected a table, found a list",
            ]
        );
        Ok(())
    }
}
