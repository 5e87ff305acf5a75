//! Building a database.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use resonant_common::error::BoxError;

use crate::backend::target::{name_of, scheme_of};
use crate::backend::{Access, Backend, Credentials, CredentialsProvider, Lanes, Target};
use crate::pool::PoolConfig;
use crate::replica_set::{Candidate, Node, ReadStrategy, ReplicaSet, Role, RoutingConfig};
use crate::{Error, ErrorKind, Result};

use super::config::DatabaseConfig;
use super::node::{Handle, Pools};
use super::shared::Switch;
use super::{Database, Inner};

/// Builds a [`Database`]; made by [`Database::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is told to connect"]
pub struct DatabaseBuilder {
    config: DatabaseConfig,
    backend: Option<Arc<dyn Backend>>,
    choose: Option<Choose>,
    credentials: Option<CredentialsProvider>,
}

type Choose = Arc<dyn Fn(&[Candidate<'_>]) -> Option<usize> + Send + Sync>;

impl DatabaseBuilder {
    pub(super) fn new(config: DatabaseConfig) -> Self {
        Self { config, backend: None, choose: None, credentials: None }
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

    /// A strategy of your own: the place of the node to ask among those that are fit. For `None` the
    /// [`read_strategy`](DatabaseBuilder::read_strategy) chooses.
    pub fn choose_with<F>(mut self, choose: F) -> Self
    where
        F: Fn(&[Candidate<'_>]) -> Option<usize> + Send + Sync + 'static,
    {
        self.choose = Some(Arc::new(choose));
        self
    }

    /// How nodes are watched, chosen and failed over.
    pub fn routing(mut self, config: RoutingConfig) -> Self {
        self.config.routing = config;
        self
    }

    /// The pool of each node. Default: what the engine does best with.
    pub fn pool(mut self, config: PoolConfig) -> Self {
        self.config.pool = Some(config);
        self
    }

    /// How many processes like this one there are, with pools of their own. When a node is first connected to, all they may open
    /// is compared with what it allows, and more than that is said in the log. Default 1.
    pub fn instances(mut self, count: u32) -> Self {
        self.config.instances = count;
        self
    }

    /// Whether plain reads may share connections when there are more of them than connections. Default: where the engine can
    /// do that safely, [`Lanes::Auto`].
    pub fn lanes(mut self, lanes: Lanes) -> Self {
        self.config.lanes = lanes;
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

    /// Where passwords come from, instead of the URLs: asked for each new connection, and once more if what it gave was
    /// refused. So a password is changed without a restart: connections that are open stay, new ones use the new one.
    ///
    /// ```
    /// # #[cfg(feature = "postgres")]
    /// # fn example() -> resonant_db::Result<()> {
    /// use resonant_db::Database;
    /// use resonant_db::backend::Credentials;
    ///
    /// let builder = Database::builder().primary("postgresql://app@db/resonant").credentials(|| async {
    ///     let password = std::fs::read_to_string("/run/secrets/db")?;
    ///     Ok::<_, std::io::Error>(Credentials::password(password.trim()))
    /// });
    /// # drop(builder); Ok(()) }
    /// ```
    pub fn credentials<F, Fut, E>(mut self, provide: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.credentials = Some(CredentialsProvider::new(provide));
        self
    }

    /// The settings as they are.
    pub fn config(&self) -> &DatabaseConfig {
        &self.config
    }

    /// Connects: answers once the primary has its first connections. Replicas are connected to in the background, and one
    /// that is down does not stop the start. Where nodes can change roles they are asked first, so that settings from before a
    /// failover do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] and [`ErrorKind::Unsupported`] for settings; the cause why the primary cannot be reached
    /// within the pool's `acquire_timeout`.
    pub async fn connect(self) -> Result<Database> {
        let database = self.connect_lazy()?;
        let set = &database.inner.set;
        set.ready().await;
        if set.write().is_err() {
            // A failover may be under way.
            set.moves_on_from(None).await;
        }
        set.write()?.pool(Role::Primary)?.warm_up().await?;
        Ok(database)
    }

    /// Builds the database without waiting for anything: starts also while everything is down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] and [`ErrorKind::Unsupported`] for settings.
    pub fn connect_lazy(self) -> Result<Database> {
        let Self { config, backend, choose, credentials } = self;
        if config.primary.is_empty() {
            let message = "a primary is needed: primary(\"sqlite:/path/file.db\")";
            return Err(Error::new(ErrorKind::Config, "connect", message));
        }
        let backend = match backend {
            Some(backend) => backend,
            None => backend_of(&config.primary)?,
        };
        let capabilities = backend.capabilities();
        let lanes = Switch::new(config.lanes);
        let maker = Maker {
            backend: Arc::clone(&backend),
            name: config.name.clone(),
            pool: config.pool.clone(),
            lanes: lanes.clone(),
            statement_timeout: config.statement_timeout,
            credentials,
            instances: config.instances.max(1),
        };
        let mut set = ReplicaSet::builder()
            .name(config.name.clone())
            .read_strategy(config.read_strategy)
            .routing(config.routing.clone())
            // The name of a host may not be shown to everybody.
            .label(|node: &Node<Handle>| node.handle.label.clone());
        if let Some(choose) = choose {
            set = set.choose_with(move |field| choose(field));
        }
        let primary = &config.primary;
        let mut nodes = vec![(primary, Role::Primary, "primary".to_owned())];
        let label = |(index, url)| (url, Role::Replica, format!("replica-{}", index + 1));
        nodes.extend(config.replicas.iter().enumerate().map(label));
        if config.replicas.is_empty() && capabilities.local_readers {
            nodes.push((primary, Role::Replica, "readers".to_owned()));
        }
        for (url, role, label) in nodes {
            let pools = maker.node(url, role, &label)?;
            pools.pool(role)?;
            set = set.node(name_of(url).to_owned(), url.clone(), role, pools);
        }
        if capabilities.roles_change {
            set = set
                .probe(|node: Handle| async move { node.observe().await })
                .on_role(|node: &Handle, role| node.turned(role))
                .open(move |node| maker.node(&node.url, Role::Replica, &node.name));
        }
        let set = set.build_as_given()?;
        Ok(Database { inner: Arc::new(Inner::new(config, backend, set, lanes)) })
    }
}

/// Makes the nodes of a database.
struct Maker {
    backend: Arc<dyn Backend>,
    name: String,
    pool: Option<PoolConfig>,
    lanes: Switch,
    statement_timeout: Option<Duration>,
    credentials: Option<CredentialsProvider>,
    instances: u32,
}

impl Maker {
    fn node(&self, url: &str, role: Role, label: &str) -> Result<Handle> {
        let access = match role {
            Role::Primary => Access::ReadWrite,
            Role::Replica => Access::ReadOnly,
        };
        let target = Target::new(url, access, self.statement_timeout)
            .with_credentials(self.credentials.clone());
        let label = format!("{}/{label}", self.name);
        let backend = Arc::clone(&self.backend);
        let (pool, lanes) = (self.pool.as_ref(), self.lanes.clone());
        Pools::new(backend, target, role, label, pool, lanes, self.instances).map(Arc::new)
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
