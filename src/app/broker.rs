//! `[broker]`: the engine the queues live in.

use std::fmt;
#[cfg(feature = "rabbitmq")]
use std::future::IntoFuture as _;
use std::sync::Arc;

#[cfg(feature = "rabbitmq")]
use resonant_common::join::{LeaseStore, MemoryLeaseStore};
use resonant_queue::backend::Backend;
use resonant_queue::{Error, ErrorKind, Memory};
use serde::{Deserialize, Serialize};

use super::rehearsal::Rehearsal;

type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(feature = "db")]
pub(super) type Database = resonant_db::Database;
/// There is none to be over.
#[cfg(not(feature = "db"))]
pub(super) type Database = ();

/// `[broker]`: the engine the queues live in.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// `memory:` (the default), `sqlite:path`, a `postgresql://` URL, `database` for the primary of `[database]`, or the nodes of one RabbitMQ
    /// broker as `amqp://` URLs.
    pub urls: Vec<String>,
    /// Where RabbitMQ's partitions are leased: `database`, a `postgresql://` URL, `sqlite:path` for processes of one machine, or
    /// `memory:` for one process. Required with RabbitMQ, and refused without.
    pub leases: Option<String>,
    /// Whether PostgreSQL's tables are made where they are missing, those of the queues or of the leases. Default no: then a
    /// migration must have made them. Refused where neither is in PostgreSQL.
    pub create_tables: bool,
}

/// Without URLs, which hold passwords.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("urls", &self.urls.len())
            .field("create_tables", &self.create_tables)
            .finish_non_exhaustive()
    }
}

/// What a URL of the broker means.
#[derive(Clone, Copy)]
enum Engine {
    Memory,
    Sqlite,
    Postgres,
    Database,
    RabbitMq,
}

impl Engine {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        Some(match scheme {
            "memory" => Engine::Memory,
            "sqlite" if !rest.is_empty() => Engine::Sqlite,
            "postgresql" | "postgres" => Engine::Postgres,
            "database" if rest.is_empty() => Engine::Database,
            "amqp" | "amqps" => Engine::RabbitMq,
            _ => return None,
        })
    }

    /// What this build would need for it.
    fn lacks(self) -> Option<&'static str> {
        let (compiled, feature) = match self {
            Engine::Memory => (true, ""),
            Engine::Sqlite => (cfg!(feature = "sqlite"), "sqlite"),
            Engine::Postgres | Engine::Database => (cfg!(feature = "postgres"), "postgres"),
            Engine::RabbitMq => (cfg!(feature = "rabbitmq"), "rabbitmq"),
        };
        (!compiled).then_some(feature)
    }
}

const LEASES: &str = "leases must say where RabbitMQ's partitions are leased: database, a postgresql:// URL, \
                      sqlite:path for the processes of one machine, or memory: for one process";

impl BrokerConfig {
    fn engine(&self) -> Result<Engine, String> {
        let Some(first) = self.urls.first() else { return Ok(Engine::Memory) };
        let wrong =
            "urls must be memory:, sqlite:path, a postgresql:// URL, database, or amqp:// URLs";
        let engine = Engine::of(first).ok_or(wrong)?;
        let amqp = |url: &String| matches!(Engine::of(url), Some(Engine::RabbitMq));
        if self.urls.len() > 1 && !self.urls.iter().all(amqp) {
            return Err("urls may name several nodes only of one RabbitMQ broker".into());
        }
        Ok(engine)
    }

    /// `postgres` is whether the file has a `[database]` of PostgreSQL.
    pub(super) fn validate(&self, postgres: bool) -> Result<(), String> {
        let engine = self.engine()?;
        let no_database = "which needs a [database] whose primary is a postgresql:// URL";
        if let Some(feature) = engine.lacks() {
            return Err(lacking("urls", feature));
        }
        if matches!(engine, Engine::Database) && !postgres {
            return Err(format!("urls says database, {no_database}"));
        }
        if !matches!(engine, Engine::RabbitMq) {
            // Whoever says where leases are has a broker in mind, whose URLs did not get here.
            if self.leases.is_some() {
                return Err("leases is for RabbitMQ, and urls names no amqp:// URL".into());
            }
            return self.has_tables(engine);
        }
        let leases = self.leases.as_deref().and_then(Engine::of).ok_or(LEASES)?;
        if let Some(feature) = leases.lacks() {
            return Err(lacking("leases", feature));
        }
        match leases {
            Engine::RabbitMq => Err(LEASES.into()),
            Engine::Database if !postgres => Err(format!("leases says database, {no_database}")),
            _ => self.has_tables(leases),
        }
    }

    /// Whether there are tables to create, where that is asked for.
    fn has_tables(&self, engine: Engine) -> Result<(), String> {
        match engine {
            Engine::Memory | Engine::Sqlite if self.create_tables => {
                Err("create_tables is for PostgreSQL, and nothing is in tables of it here".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the URLs can be read, as far as that is known without connecting. For those that [hold together](Self::validate).
    #[allow(unused_variables, reason = "an engine that is compiled in uses them")]
    pub(super) fn readable(&self, rehearsal: &Rehearsal) -> Result<(), String> {
        #[cfg(feature = "postgres")]
        for (setting, url) in [("urls", self.urls.first()), ("leases", self.leases.as_ref())] {
            let Some(url) = url.filter(|url| matches!(Engine::of(url), Some(Engine::Postgres)))
            else {
                continue;
            };
            rehearsal
                .of(|| resonant_db::Database::builder().primary(url).connect_lazy())
                .map_err(|message| format!("{setting}: {message}"))?;
        }
        #[cfg(feature = "rabbitmq")]
        if matches!(self.engine()?, Engine::RabbitMq) {
            let leases = Arc::new(MemoryLeaseStore::new());
            let broker = resonant_queue::RabbitMq::connect(&self.urls).leases(leases);
            let built = broker.into_future().into_inner();
            built.map_err(|error| format!("urls: {}", error.message()))?;
        }
        Ok(())
    }

    /// Opens it. A server that is down does not stop it.
    #[allow(
        unused_variables,
        clippy::unused_async,
        reason = "an engine that is compiled in uses them"
    )]
    pub(super) async fn open(&self, database: Option<&Database>) -> Result<Arc<dyn Backend>> {
        let Ok(engine) = self.engine() else { return Err(uncompiled()) };
        let url = self.urls.first().map_or("", String::as_str);
        #[allow(unreachable_patterns, reason = "the last one is of engines not compiled in")]
        match engine {
            Engine::Memory => Ok(Arc::new(Memory::new())),
            #[cfg(feature = "sqlite")]
            Engine::Sqlite => Ok(Arc::new(sqlite(url).await?)),
            #[cfg(feature = "postgres")]
            Engine::Postgres | Engine::Database => {
                Ok(Arc::new(self.postgres(url, database).await?))
            }
            #[cfg(feature = "rabbitmq")]
            Engine::RabbitMq => {
                let leases = self.leases(database).await?;
                Ok(Arc::new(resonant_queue::RabbitMq::connect(&self.urls).leases(leases).await?))
            }
            _ => Err(uncompiled()),
        }
    }

    #[cfg(feature = "rabbitmq")]
    #[allow(
        unused_variables,
        clippy::unused_async,
        reason = "an engine that is compiled in uses them"
    )]
    async fn leases(&self, database: Option<&Database>) -> Result<Arc<dyn LeaseStore>> {
        let url = self.leases.as_deref().unwrap_or_default();
        match Engine::of(url) {
            #[cfg(feature = "sqlite")]
            Some(Engine::Sqlite) => Ok(sqlite(url).await?.leases()),
            #[cfg(feature = "postgres")]
            Some(Engine::Postgres | Engine::Database) => {
                Ok(self.postgres(url, database).await?.leases())
            }
            Some(Engine::Memory) => Ok(Arc::new(MemoryLeaseStore::new())),
            _ => Err(uncompiled()),
        }
    }

    #[cfg(feature = "postgres")]
    async fn postgres(
        &self,
        url: &str,
        database: Option<&Database>,
    ) -> Result<resonant_queue::Postgres> {
        let builder = match database {
            Some(database) if url == "database" => resonant_queue::Postgres::over(database.clone()),
            _ => resonant_queue::Postgres::connect(url),
        };
        builder.create_tables(self.create_tables).await
    }
}

#[cfg(feature = "sqlite")]
async fn sqlite(url: &str) -> Result<resonant_queue::Sqlite> {
    resonant_queue::Sqlite::open(url.strip_prefix("sqlite:").unwrap_or(url)).await
}

fn lacking(setting: &str, feature: &str) -> String {
    format!("{setting} needs the feature `{feature}` of resonant-sdk, which this build lacks")
}

fn uncompiled() -> Error {
    Error::new(ErrorKind::Config, "build", "this build lacks the engine that [broker] names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused_without_the_url() {
        let broker = |urls: &[&str], leases: Option<&str>| BrokerConfig {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            leases: leases.map(ToOwned::to_owned),
            create_tables: false,
        };
        let refused = |urls: &[&str], leases| {
            let message = broker(urls, leases).validate(false).err().unwrap_or_default();
            assert!(!message.contains("s3cr3t"), "{message}");
            message
        };
        assert_eq!(refused(&[], None), "");
        assert_eq!(refused(&["memory:"], None), "");
        assert!(refused(&["kafka://u:s3cr3t@h"], None).starts_with("urls must be"));
        assert!(refused(&["memory:", "sqlite:x"], None).contains("several nodes"));
        assert!(refused(&[], Some("database")).starts_with("leases is for RabbitMQ"));
        let mut tables = broker(&[], None);
        tables.create_tables = true;
        assert!(tables.validate(false).is_err_and(|it| it.starts_with("create_tables")));
        let amqp = "amqp://u:s3cr3t@h";
        if cfg!(feature = "rabbitmq") {
            assert_eq!(refused(&[amqp], None), LEASES);
            assert_eq!(refused(&[amqp, amqp], Some("memory:")), "");
            assert_eq!(refused(&[amqp], Some("amqp://h")), LEASES);
            let mut tables = broker(&[amqp], Some("memory:"));
            tables.create_tables = true;
            assert!(tables.validate(false).is_err_and(|it| it.starts_with("create_tables")));
        } else {
            assert!(refused(&[amqp], None).contains("feature `rabbitmq`"));
        }
        if cfg!(feature = "postgres") {
            assert!(refused(&["database"], None).contains("[database]"));
            assert_eq!(broker(&["database"], None).validate(true), Ok(()));
        }
    }
}
