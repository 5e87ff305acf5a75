//! Settings of a database.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::target::name_of;
use crate::backend::{Lanes, STATEMENT_TIMEOUT};
use crate::pool::PoolConfig;
use crate::replica_set::{ReadStrategy, RoutingConfig};

/// Settings of a [`Database`](crate::Database), as the builder makes them or a file holds them.
///
/// ```
/// use resonant_db::{DatabaseConfig, ReadStrategy};
/// let config: DatabaseConfig = serde_json::from_str(r#"{
///     "primary": "postgresql://primary:5432/resonant",
///     "replicas": ["postgresql://replica1:5432/resonant", "postgresql://replica2:5432/resonant"],
///     "read_strategy": "round_robin",
///     "pool": { "min_size": 10, "max_size": 100 }
/// }"#)?;
/// assert_eq!(config.read_strategy, ReadStrategy::RoundRobin);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// The [environment](DatabaseConfig::from_env) gives the same value as a file and as the builder.
///
/// `Debug` does not show the URLs, which may hold passwords, only the nodes' names.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// The name in logs and metrics. Default `"db"`.
    pub name: String,
    /// The URL of the node that takes writes, as far as is known: where an engine's nodes change roles, they are asked. There is
    /// no default.
    pub primary: String,
    /// The URLs of the nodes that answer reads. Default none: reads go to the primary.
    pub replicas: Vec<String>,
    /// How reads are spread over the replicas. Default round robin.
    pub read_strategy: ReadStrategy,
    /// How nodes are watched, chosen and failed over. Default: see there.
    pub routing: RoutingConfig,
    /// The pool of each node. Default: what the engine does best with. SQLite's writing node always has one connection.
    pub pool: Option<PoolConfig>,
    /// Whether plain reads may share connections when there are more of them than connections. Default: where the engine can
    /// do that safely.
    pub lanes: Lanes,
    /// How long one statement may run before it is stopped; null is for ever. Default 30 s.
    #[serde(with = "resonant_common::duration::option")]
    pub statement_timeout: Option<Duration>,
    /// How many processes like this one there are, with pools of their own: what they may open together is compared with
    /// what each node allows. Default 1.
    pub instances: u32,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            name: "db".into(),
            primary: String::new(),
            replicas: Vec::new(),
            read_strategy: ReadStrategy::default(),
            routing: RoutingConfig::default(),
            pool: None,
            lanes: Lanes::Auto,
            statement_timeout: Some(STATEMENT_TIMEOUT),
            instances: 1,
        }
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replicas: Vec<_> = self.replicas.iter().map(|url| name_of(url)).collect();
        f.debug_struct("DatabaseConfig")
            .field("name", &self.name)
            .field("primary", &name_of(&self.primary))
            .field("replicas", &replicas)
            .field("read_strategy", &self.read_strategy)
            .field("probe_interval", &self.routing.probe_interval)
            .field("pool", &self.pool)
            .field("lanes", &self.lanes)
            .field("statement_timeout", &self.statement_timeout)
            .field("instances", &self.instances)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password_and_unknown_names_are_refused() {
        let config = DatabaseConfig {
            primary: "postgresql://app:s3cr3t@primary/app".into(),
            replicas: vec!["postgresql://app:s3cr3t@replica/app".into()],
            ..DatabaseConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(shown.contains("replica/app") && !shown.contains("s3cr3t"), "{shown}");
        let error = serde_json::from_str::<DatabaseConfig>(r#"{"primry": "x"}"#).expect_err("typo");
        assert!(error.to_string().contains("primary"), "{error}");
    }

    #[test]
    fn files_and_code_give_the_same_value() -> Result<(), serde_json::Error> {
        let config = DatabaseConfig { statement_timeout: None, ..DatabaseConfig::default() };
        assert_eq!(
            serde_json::from_str::<DatabaseConfig>(&serde_json::to_string(&config)?)?,
            config
        );
        assert_eq!(serde_json::from_str::<DatabaseConfig>("{}")?, DatabaseConfig::default());
        Ok(())
    }
}
