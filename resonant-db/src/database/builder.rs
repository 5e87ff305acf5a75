//! Building a database.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::target::{name_of, scheme_of};
use crate::backend::{Access, Backend, Target};
use crate::pool::PoolConfig;
use crate::{Error, ErrorKind, Result};

use super::config::DatabaseConfig;
use super::node::{Node, Role};
use super::strategy::ReadStrategy;
use super::{Database, Inner};

/// Builds a [`Database`]; made by [`Database::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is told to connect"]
pub struct DatabaseBuilder {
    config: DatabaseConfig,
    backend: Option<Arc<dyn Backend>>,
}

impl DatabaseBuilder {
    pub(super) fn new(config: DatabaseConfig) -> Self {
        Self { config, backend: None }
    }

    /// The name in logs and metrics. Default `"db"`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// The URL of the node that takes writes. Its scheme picks the engine.
    pub fn primary(mut self, url: impl Into<String>) -> Self {
        self.config.primary = url.into();
        self
    }

    /// The URLs of the nodes that answer reads. Default none.
    pub fn replicas<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.config.replicas = urls.into_iter().map(Into::into).collect();
        self
    }

    /// How reads are spread over the replicas. Default round robin.
    pub fn read_strategy(mut self, strategy: ReadStrategy) -> Self {
        self.config.read_strategy = strategy;
        self
    }

    /// The pool of each node. Default: what the engine does best with.
    pub fn pool(mut self, config: PoolConfig) -> Self {
        self.config.pool = Some(config);
        self
    }

    /// How long one statement may run before it is stopped; `None` is for ever. Default 30 s.
    pub fn statement_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.config.statement_timeout = limit.into();
        self
    }

    /// A backend of your own, instead of the one the scheme would pick.
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// The settings as they are.
    pub fn config(&self) -> &DatabaseConfig {
        &self.config
    }

    /// Connects: answers once the primary has its first connections. Replicas are connected to in the background, and one
    /// that is down does not stop the start.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] and [`ErrorKind::Unsupported`] for settings; the cause why the primary cannot be reached
    /// within the pool's `acquire_timeout`.
    pub async fn connect(self) -> Result<Database> {
        let database = self.connect_lazy()?;
        database.inner.primary.pool.warm_up().await?;
        Ok(database)
    }

    /// Builds the database without waiting for anything: starts also while everything is down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] and [`ErrorKind::Unsupported`] for settings.
    pub fn connect_lazy(self) -> Result<Database> {
        let Self { config, backend } = self;
        if config.primary.is_empty() {
            let message = "a primary is needed: primary(\"sqlite:/path/file.db\")";
            return Err(Error::new(ErrorKind::Config, "connect", message));
        }
        let backend = match backend {
            Some(backend) => backend,
            None => backend_of(&config.primary)?,
        };
        let node = |url: &str, role: Role, access: Access, label: String| {
            let target = Target::new(url, access, config.statement_timeout);
            backend.check(&target)?;
            let pool = backend.fit_pool(config.pool.as_ref(), access);
            Node::new(Arc::clone(&backend), target, role, format!("{}/{label}", config.name), pool)
        };
        let replica = |(index, url): (usize, &String)| {
            node(url, Role::Replica, Access::ReadOnly, format!("replica-{}", index + 1))
        };
        let primary = node(&config.primary, Role::Primary, Access::ReadWrite, "primary".into())?;
        let mut replicas: Vec<Node> =
            config.replicas.iter().enumerate().map(replica).collect::<Result<_>>()?;
        if replicas.is_empty() && backend.capabilities().local_readers {
            replicas.push(node(
                &config.primary,
                Role::Replica,
                Access::ReadOnly,
                "readers".into(),
            )?);
        }
        Ok(Database { inner: Arc::new(Inner::new(config, backend, primary, replicas)) })
    }
}

impl fmt::Debug for DatabaseBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseBuilder")
            .field("config", &self.config)
            .field("backend", &self.backend)
            .finish()
    }
}

/// The backend a URL's scheme asks for.
fn backend_of(url: &str) -> Result<Arc<dyn Backend>> {
    let unsupported = |message: String| Error::new(ErrorKind::Unsupported, "connect", message);
    match scheme_of(url) {
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(crate::backend::sqlite::Sqlite::from_url(url)?)),
        #[cfg(not(feature = "sqlite"))]
        "sqlite" => Err(unsupported(
            "sqlite: URLs need the feature `sqlite` of resonant-db; add it to Cargo.toml".into(),
        )),
        #[cfg(feature = "postgres")]
        "postgresql" | "postgres" => {
            Ok(Arc::new(crate::backend::postgres::Postgres::from_url(url)?))
        }
        #[cfg(not(feature = "postgres"))]
        "postgresql" | "postgres" => Err(unsupported(
            "postgresql: URLs need the feature `postgres` of resonant-db; add it to Cargo.toml"
                .into(),
        )),
        "" => {
            let message = format!(
                "{:?} has no scheme; write sqlite:/path/file.db or postgresql://host/database",
                name_of(url)
            );
            Err(Error::new(ErrorKind::Config, "connect", message))
        }
        scheme => Err(unsupported(format!(
            "no backend for {scheme}: URLs; there are sqlite: and postgresql:, or give a backend(…)"
        ))),
    }
}
