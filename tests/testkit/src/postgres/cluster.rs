//! A primary with its replicas, and how it is built.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::PgNode;
use super::config::{Login, NodeConfig};
use super::node::{NodeSpec, Roles};
use crate::FaultProxy;
use crate::binaries::{Engine, Servers};
use crate::dirs::ServerDir;
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::tls::Authority;
use crate::wait::{LIMIT, Wait};

/// For which replicas a commit on the primary waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// For none.
    #[default]
    Off,
    /// For any so many of them.
    Any(usize),
    /// For the first so many of them in order of their numbers.
    First(usize),
}

impl Synchronous {
    fn check(self, replicas: usize) -> Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::Any(0) | Self::First(0) => Err(Error::new(
                ErrorKind::Config,
                "commits wait for 0 replicas: that is Synchronous::Off",
            )),
            Self::Any(count) | Self::First(count) if count > replicas => Err(Error::new(
                ErrorKind::Config,
                format!("commits wait for {count} replicas, but there are {replicas}"),
            )),
            Self::Any(_) | Self::First(_) => Ok(()),
        }
    }

    fn names(self, nodes: &[String]) -> String {
        match self {
            Self::Off => String::new(),
            Self::Any(count) => format!("ANY {count} ({})", nodes.join(",")),
            Self::First(count) => format!("FIRST {count} ({})", nodes.join(",")),
        }
    }
}

/// How a [`PostgresCluster`] is built. The default is one primary alone, `fsync` off.
#[derive(Clone, Debug, Default)]
pub struct PostgresBuilder {
    servers: Option<Servers>,
    replicas: usize,
    synchronous: Synchronous,
    durable: bool,
    settings: BTreeMap<String, String>,
    logins: Vec<Login>,
    tls: bool,
    tls_only: bool,
    replication_proxies: bool,
}

impl PostgresBuilder {
    /// How many streaming replicas, each with its slot. Default 0.
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// For which replicas a commit waits. Default [`Synchronous::Off`].
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Turns `fsync` on, for tests of durability and of latency. Default off, which `kill -9` cannot tell from on.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A parameter of `postgresql.conf`, on every node.
    pub fn setting(mut self, parameter: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(parameter.into(), value.into());
        self
    }

    /// A role that may log in over TCP with this password only, by SCRAM-SHA-256, and create things in `public`.
    pub fn login(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.logins.push(Login { name: name.into(), password: password.into() });
        self
    }

    /// Serves TLS with a certificate for `localhost` and `127.0.0.1` of a private authority, see [`PgNode::ca_file`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// TLS, and logins without it are refused.
    pub fn tls_only(mut self) -> Self {
        self.tls = true;
        self.tls_only = true;
        self
    }

    /// Puts a [`FaultProxy`] between each node and the primary it follows, see [`PgNode::replication_link`]: replication can be
    /// cut while clients reach both.
    pub fn replication_proxies(mut self) -> Self {
        self.replication_proxies = true;
        self
    }

    /// Where the programs come from. Default [`Servers::from_env`].
    pub fn servers(mut self, servers: Servers) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Starts everything and waits until every replica receives.
    ///
    /// # Errors
    /// `MissingBinary`, `Config` for impossible numbers, `Exited` and `TimedOut` when a server does not come up.
    ///
    /// # Cancel safety
    /// What had started is ended when the future is dropped.
    pub async fn start(self) -> Result<PostgresCluster> {
        self.synchronous.check(self.replicas)?;
        let roles = Arc::new(Roles::default());
        let nodes = self.nodes(&roles).await?;
        let cluster = PostgresCluster { shared: Arc::new(Shared { nodes, roles }) };
        self.bring_up(&cluster).await?;
        Ok(cluster)
    }

    /// Starts so many of them side by side, each with its own replicas, none knowing of the others.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_shards(self, count: usize) -> Result<Vec<PostgresCluster>> {
        let mut starting = JoinSet::new();
        for index in 0..count {
            let builder = self.clone();
            starting.spawn(async move { builder.start().await.map(|cluster| (index, cluster)) });
        }
        let mut shards = BTreeMap::new();
        while let Some(joined) = starting.join_next().await {
            let (index, cluster) = joined
                .map_err(|e| Error::new(ErrorKind::Exited, "starting a shard").caused_by(e))??;
            shards.insert(index, cluster);
        }
        Ok(shards.into_values().collect())
    }

    async fn nodes(&self, roles: &Arc<Roles>) -> Result<Vec<PgNode>> {
        let binaries =
            self.servers.clone().unwrap_or_else(Servers::from_env).find(Engine::PostgreSql)?;
        let authority = if self.tls { Some(Authority::shared()?) } else { None };
        let mut nodes = Vec::new();
        for index in 0..=self.replicas {
            let port = Port::claim()?;
            // Where it leads is decided when the node follows somebody.
            let nowhere = (Ipv4Addr::LOCALHOST, port.number()).into();
            let link = if self.replication_proxies {
                Some(FaultProxy::start(nowhere).await?)
            } else {
                None
            };
            let config = NodeConfig {
                name: format!("p{index}"),
                port: port.number(),
                durable: self.durable,
                tls: self.tls,
                settings: self.settings.clone(),
                synchronous: String::new(),
                upstream: None,
                apply_delay: Duration::ZERO,
            };
            nodes.push(PgNode::new(NodeSpec {
                index,
                binaries: binaries.clone(),
                roles: Arc::clone(roles),
                logins: self.logins.clone(),
                tls_only: self.tls_only,
                authority: authority.clone(),
                link,
                config,
                dir: ServerDir::create("pg")?,
                port,
            })?);
        }
        Ok(nodes)
    }

    async fn bring_up(&self, cluster: &PostgresCluster) -> Result<()> {
        let primary = cluster.primary();
        primary.lay_down().await?;
        primary.start().await?;
        for Login { name, password } in &self.logins {
            let (name, password) = (name.replace('"', "\"\""), password.replace('\'', "''"));
            let sql = format!(
                "CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'; GRANT CREATE ON SCHEMA public TO \"{name}\""
            );
            primary.sql(&sql).await?;
        }
        let mut starting = JoinSet::new();
        for replica in &cluster.nodes()[1..] {
            let (replica, primary) = (replica.clone(), primary.clone());
            starting.spawn(async move {
                replica.follow(&primary).await?;
                if replica.config().starts_from_template() {
                    replica.lay_down().await?;
                    replica.mark_standby()?;
                } else {
                    replica.base_backup(&primary).await?;
                }
                replica.start().await?;
                let wait =
                    Wait::new(format!("{} following {}", replica.name(), primary.name()), LIMIT);
                replica.streaming_from(&primary, wait).await?;
                replica.caught_up_with(&primary).await
            });
        }
        while let Some(joined) = starting.join_next().await {
            joined
                .map_err(|e| Error::new(ErrorKind::Exited, "starting a replica").caused_by(e))??;
        }
        cluster.set_synchronous(self.synchronous).await
    }
}

/// A primary with streaming replicas. Dropping it, and the last [`PgNode`] of it, ends the servers and removes their files.
#[derive(Clone, Debug)]
pub struct PostgresCluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    nodes: Vec<PgNode>,
    roles: Arc<Roles>,
}

impl PostgresCluster {
    /// A builder.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// The node that takes writes: the first one, until another is promoted. It may be dead.
    pub fn primary(&self) -> PgNode {
        self.node(self.shared.roles.primary())
    }

    /// A replica: of the nodes that are not the primary, the one at this place in order of their numbers. So after a promotion
    /// the same number may be another node; hold the handle, or use [`node`](Self::node), which never moves.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn replica(&self, place: usize) -> PgNode {
        self.node(if place < self.shared.roles.primary() { place } else { place + 1 })
    }

    /// A node by its number, whatever its role; 0 is the first primary.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn node(&self, index: usize) -> PgNode {
        self.shared.nodes[index].clone()
    }

    /// All nodes by number.
    pub fn nodes(&self) -> &[PgNode] {
        &self.shared.nodes
    }

    /// Changes for which replicas a commit waits, on every running node, so that it holds after a promotion too; a frozen one
    /// learns of it when it is thawed.
    ///
    /// # Errors
    /// `Config` for impossible numbers, and those of [`PgNode::sql`].
    pub async fn set_synchronous(&self, synchronous: Synchronous) -> Result<()> {
        synchronous.check(self.nodes().len() - 1)?;
        let names: Vec<String> = self.nodes().iter().map(|node| node.name().to_owned()).collect();
        // First the replicas in their order; a node never waits for itself.
        for node in self.nodes() {
            let others: Vec<String> =
                names.iter().filter(|name| *name != node.name()).cloned().collect();
            node.reconfigure(|config| config.synchronous = synchronous.names(&others)).await?;
        }
        let primary = self.primary();
        let expected = primary.config().synchronous;
        let mut wait = Wait::new(format!("{} reading its configuration", primary.name()), LIMIT);
        while primary.value("SHOW synchronous_standby_names").await? != expected {
            wait.pause("the old value").await?;
        }
        Ok(())
    }

    /// Waits until every replica that runs and is not frozen has applied what the primary has written so far.
    ///
    /// # Errors
    /// `TimedOut` when one does not get there.
    pub async fn caught_up(&self) -> Result<()> {
        let primary = self.primary();
        for node in self
            .nodes()
            .iter()
            .filter(|node| node.index() != primary.index() && node.is_responsive())
        {
            node.caught_up_with(&primary).await?;
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // All at once, so that ending takes as long as the slowest, not as the sum. Nodes somebody still holds live on.
        for node in self.nodes.iter().filter(|node| Arc::strong_count(&node.inner) == 1) {
            node.inner.begin_end();
        }
    }
}
