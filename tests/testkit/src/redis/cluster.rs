//! A Redis Cluster: formed by hand, which is faster than the tool, and watched until it agrees with itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::RedisNode;
use super::config::{Options, shared_options};
use super::node::find_field;
use super::slots::{Part, SLOTS, parse_slots};
use crate::error::{Error, ErrorKind, Result};
use crate::wait::{LIMIT, Wait};

/// How long a planned take-over may take before it is asked for again; it takes milliseconds once it is heard.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// How a [`RedisCluster`] is built.
#[derive(Clone, Debug)]
pub struct RedisClusterBuilder {
    options: Options,
    primaries: usize,
    replicas: usize,
    node_timeout: Duration,
}

impl Default for RedisClusterBuilder {
    fn default() -> Self {
        Self {
            options: Options::default(),
            primaries: 3,
            replicas: 1,
            node_timeout: Duration::from_secs(1),
        }
    }
}

impl RedisClusterBuilder {
    shared_options!();

    /// How many primaries share the slots. Default 3; an election needs a majority of them.
    pub fn primaries(mut self, count: usize) -> Self {
        self.primaries = count;
        self
    }

    /// How many replicas each primary has. Default 1.
    pub fn replicas_per_primary(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// After how long a silent node is suspected. Default 1 second, with which a dead primary is replaced within about two and
    /// a half.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// Starts all nodes, forms the cluster, and waits until every node agrees and every replica is in step.
    ///
    /// # Errors
    /// `MissingBinary`, `Config` without primaries, `Exited` and `TimedOut` when it does not come up.
    pub async fn start(self) -> Result<RedisCluster> {
        if self.primaries == 0 {
            return Err(Error::new(
                ErrorKind::Config,
                "a Redis Cluster needs at least one primary",
            ));
        }
        let count = self.primaries * (1 + self.replicas);
        let timeout = self.node_timeout.as_millis();
        let nodes = (0..count)
            .map(|index| RedisNode::prepare(index, &self.options, Some(timeout)))
            .collect::<Result<Vec<RedisNode>>>()?;
        let cluster = RedisCluster { nodes };
        cluster.each(|node| async move { node.start().await }).await?;
        self.form(&cluster).await?;
        cluster.settled().await?;
        Ok(cluster)
    }

    async fn form(&self, cluster: &RedisCluster) -> Result<()> {
        let nodes = &cluster.nodes;
        for (index, node) in nodes.iter().enumerate() {
            let mut connection = node.connection().await?;
            connection.command(["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?;
            if index < self.primaries {
                let edge = |index: usize| usize::from(SLOTS) * index / self.primaries;
                let slots = (edge(index)..edge(index + 1)).map(|slot| slot.to_string());
                let words = ["CLUSTER", "ADDSLOTS"].into_iter().map(str::to_owned).chain(slots);
                connection.command(words).await?;
            }
        }
        // Everybody is introduced to everybody, which is faster than waiting for gossip; only now, because a node that knows
        // another refuses to be given its epoch.
        for node in nodes {
            let mut connection = node.connection().await?;
            for other in nodes.iter().filter(|other| other.index() != node.index()) {
                let (port, bus) = (other.port().to_string(), other.bus_port().to_string());
                connection.command(["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
            }
        }
        let expected = nodes.len();
        cluster.each(|node| async move { node.knows(expected).await }).await?;
        for (index, replica) in nodes.iter().enumerate().skip(self.primaries) {
            let primary = nodes[index % self.primaries].id().await?;
            replica.command(["CLUSTER", "REPLICATE", &primary]).await?;
        }
        Ok(())
    }
}

/// A Redis Cluster. Dropping it, and the last [`RedisNode`] of it, ends the servers and removes their files.
#[derive(Clone, Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisNode>,
}

impl RedisCluster {
    /// A builder.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder::default()
    }

    /// Starts three primaries with a replica each.
    ///
    /// # Errors
    /// Those of [`RedisClusterBuilder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// All nodes by number; at first the primaries come first.
    pub fn nodes(&self) -> &[RedisNode] {
        &self.nodes
    }

    /// A node by its number, whatever its role.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn node(&self, index: usize) -> RedisNode {
        self.nodes[index].clone()
    }

    /// The URLs of all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisNode::url).collect()
    }

    /// The slot of a key, braces considered.
    ///
    /// # Errors
    /// `Lost` when no node runs.
    pub async fn slot_of(&self, key: &str) -> Result<u16> {
        let slot = self.any()?.command(["CLUSTER", "KEYSLOT", key]).await?.integer();
        slot.and_then(|slot| u16::try_from(slot).ok())
            .ok_or_else(|| Error::new(ErrorKind::Rejected, format!("no slot for the key {key:?}")))
    }

    /// The primary that has a key's slot, as the running nodes see it.
    ///
    /// # Errors
    /// `Lost` when no node runs or all that do are frozen, `Rejected` when nobody has the slot.
    pub async fn owner_of(&self, key: &str) -> Result<RedisNode> {
        self.owner_of_slot(self.slot_of(key).await?).await
    }

    /// The primary that has a slot.
    ///
    /// # Errors
    /// Those of [`owner_of`](Self::owner_of).
    pub async fn owner_of_slot(&self, slot: u16) -> Result<RedisNode> {
        self.part_of(&self.any()?, slot)
            .await?
            .map(|part| part.primary)
            .ok_or_else(|| Error::new(ErrorKind::Rejected, format!("slot {slot} has no owner")))
    }

    /// The replicas of the primary that has a key's slot.
    ///
    /// # Errors
    /// Those of [`owner_of`](Self::owner_of).
    pub async fn replicas_of(&self, key: &str) -> Result<Vec<RedisNode>> {
        let id = self.owner_of(key).await?.id().await?;
        // `CLUSTER SLOTS` leaves a replica out until it has received something.
        let nodes = self.any()?.command(["CLUSTER", "NODES"]).await?.text().unwrap_or_default();
        let replica = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, address, _, primary, ..] = &words[..] else { return None };
            let address: SocketAddr = address.split('@').next()?.parse().ok()?;
            self.nodes.iter().find(|node| *primary == id && node.address() == address).cloned()
        };
        Ok(nodes.lines().filter_map(replica).collect())
    }

    /// Waits for the end of the election that gives a key to another node than `old`: it has the slot in everybody's eyes.
    ///
    /// # Errors
    /// `TimedOut` when nobody takes it.
    pub async fn new_owner_of(&self, key: &str, old: &RedisNode) -> Result<RedisNode> {
        let mut wait = Wait::new(format!("another node than {} taking {key:?}", old.name()), LIMIT);
        let mut responsive =
            self.nodes.iter().filter(|node| node.is_responsive() && node.index() != old.index());
        let witness = responsive
            .next()
            .ok_or_else(|| Error::new(ErrorKind::Lost, "no other node runs unfrozen"))?;
        let slot = witness.command(["CLUSTER", "KEYSLOT", key]).await?.integer().unwrap_or(-1);
        let slot = u16::try_from(slot)
            .map_err(|_| Error::new(ErrorKind::Rejected, "no slot for the key"))?;
        loop {
            if let Some(part) = self.part_of(witness, slot).await?
                && part.primary.index() != old.index()
                && part.primary.info("replication", "role").await? == "master"
                && self.agree_on(slot, &part.primary, old).await?
            {
                return Ok(part.primary);
            }
            wait.pause("the old owner").await?;
        }
    }

    async fn agree_on(&self, slot: u16, owner: &RedisNode, except: &RedisNode) -> Result<bool> {
        for node in
            self.nodes.iter().filter(|node| node.is_responsive() && node.index() != except.index())
        {
            let part = self.part_of(node, slot).await?;
            if part.is_none_or(|part| part.primary.index() != owner.index())
                || !node.says_ok().await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until every running node says that the cluster is well, all of them agree who has which slots and who follows
    /// whom, and every running replica is in step with its primary. Frozen nodes are not asked.
    ///
    /// # Errors
    /// `TimedOut` when that does not happen.
    pub async fn settled(&self) -> Result<()> {
        self.each(|node| async move {
            if node.is_responsive() { node.in_step().await } else { Ok(()) }
        })
        .await?;
        let mut wait = Wait::new("all nodes agreeing about the cluster", LIMIT);
        loop {
            let mut views = BTreeSet::new();
            for node in self.nodes.iter().filter(|node| node.is_responsive()) {
                views.insert(node.view().await?);
            }
            if views.len() <= 1 {
                return Ok(());
            }
            wait.pause(format!("{} opinions", views.len())).await?;
        }
    }

    /// Has a replica take over from its primary in order, without loss.
    ///
    /// # Errors
    /// `Rejected` when it is no replica, `TimedOut` when it does not take over.
    pub async fn fail_over_to(&self, replica: &RedisNode) -> Result<()> {
        if replica.info("replication", "role").await? == "master" {
            return Err(Error::new(
                ErrorKind::Rejected,
                format!("{} is a primary already", replica.name()),
            ));
        }
        let mut wait = Wait::new(format!("{} taking over", replica.name()), LIMIT);
        let mut asked: Option<Instant> = None;
        while replica.info("replication", "role").await? != "master" {
            // A primary that does not know yet that this is its replica ignores the request: ask again.
            if asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
                replica.command(["CLUSTER", "FAILOVER"]).await?;
                asked = Some(Instant::now());
            }
            wait.pause("still a replica").await?;
        }
        self.settled().await
    }

    pub(super) async fn part_of(&self, witness: &RedisNode, slot: u16) -> Result<Option<Part>> {
        let slots = witness.command(["CLUSTER", "SLOTS"]).await?;
        Ok(parse_slots(&slots, &self.nodes).into_iter().find(|part| part.slots.contains(&slot)))
    }

    fn any(&self) -> Result<RedisNode> {
        let running = self.nodes.iter().find(|node| node.is_responsive());
        running
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Lost, "no node of the cluster runs unfrozen"))
    }

    async fn each<F, Fut>(&self, work: F) -> Result<()>
    where
        F: Fn(RedisNode) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        for node in &self.nodes {
            tasks.spawn(work(node.clone()));
        }
        while let Some(joined) = tasks.join_next().await {
            joined
                .map_err(|e| Error::new(ErrorKind::Exited, "waiting for a node").caused_by(e))??;
        }
        Ok(())
    }
}

impl RedisNode {
    pub(super) async fn id(&self) -> Result<String> {
        Ok(self.command(["CLUSTER", "MYID"]).await?.text().unwrap_or_default())
    }

    /// Who is what in this node's eyes: per node its role, whom it follows, its epoch and its slots.
    async fn view(&self) -> Result<BTreeSet<String>> {
        let nodes = self.command(["CLUSTER", "NODES"]).await?.text().unwrap_or_default();
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, _, flags, primary, _, _, epoch, _, slots @ ..] = &words[..] else {
                return None;
            };
            let role = if flags.contains("master") { "primary" } else { "replica" };
            let slots: Vec<&str> =
                slots.iter().copied().filter(|slot| !slot.starts_with('[')).collect();
            Some(format!("{id} {role} {primary} {epoch} {}", slots.join(" ")))
        };
        Ok(nodes.lines().filter_map(line).collect())
    }

    async fn says_ok(&self) -> Result<bool> {
        let info = self.command(["CLUSTER", "INFO"]).await?.text().unwrap_or_default();
        Ok(find_field(&info, "cluster_state").is_some_and(|state| state == "ok"))
    }

    /// Waits until this node has shaken hands with so many, itself included.
    async fn knows(&self, expected: usize) -> Result<()> {
        let mut wait = Wait::new(format!("{} knowing {expected} nodes", self.name()), LIMIT);
        loop {
            let nodes = self.command(["CLUSTER", "NODES"]).await?.text().unwrap_or_default();
            let known = nodes.lines().filter(|line| !line.contains("handshake")).count();
            if known == expected {
                return Ok(());
            }
            wait.pause(format!("{known} nodes")).await?;
        }
    }

    async fn in_step(&self) -> Result<()> {
        let mut wait = Wait::new(format!("{} being in step with its cluster", self.name()), LIMIT);
        loop {
            let info = self.command(["CLUSTER", "INFO"]).await?.text().unwrap_or_default();
            let well = find_field(&info, "cluster_state").is_some_and(|state| state == "ok")
                && find_field(&info, "cluster_slots_assigned")
                    .is_some_and(|count| count == SLOTS.to_string());
            let replication =
                self.command(["INFO", "replication"]).await?.text().unwrap_or_default();
            let linked =
                find_field(&replication, "master_link_status").is_none_or(|link| link == "up");
            if well && linked {
                return Ok(());
            }
            wait.pause(format!("well: {well}, linked: {linked}")).await?;
        }
    }
}
