//! An engine that answers what a test says, without a file or a clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::Position;
use resonant_db::backend::{
    Access, Backend, BeginOptions, Capabilities, Column, Connection, ParamRows, RowsBuilder, Target,
};
use resonant_db::pool::Verdict;
use resonant_db::{
    Database, DatabaseBuilder, Error, ErrorKind, Param, PoolConfig, Result, Role, Rows, ValueRef,
};

/// The cluster behind the double: one history, and per node how far it is and what it does.
#[derive(Debug, Clone, Default)]
pub(super) struct Cluster(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Commits so far.
    commits: u64,
    nodes: HashMap<String, NodeState>,
    /// What the next calls of `begin` and `commit` answer.
    begins: Vec<ErrorKind>,
    commit_errors: Vec<(ErrorKind, bool)>,
    log: Vec<String>,
    /// Nodes say what they are.
    roles: bool,
}

#[derive(Debug, Default, Clone)]
struct NodeState {
    /// What it is, and in which history; what it is called, and in the first, unless a test says otherwise.
    role: Option<(Role, u32)>,
    /// How many commits it lags behind.
    lag: u64,
    fails: Option<(Fails, ErrorKind)>,
    /// The call that never answers.
    hangs: Option<&'static str>,
    /// It cannot say how far it is.
    lost: bool,
}

/// Where a node fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fails {
    Connecting,
    Running,
}

impl Cluster {
    /// One whose nodes say what they are.
    pub(super) fn with_roles() -> Self {
        let cluster = Self::default();
        cluster.lock().roles = true;
        cluster
    }

    /// A node is something else now, in a history of this number.
    pub(super) fn turn(&self, node: &str, role: Role, timeline: u32) {
        self.lock().nodes.entry(node.into()).or_default().role = Some((role, timeline));
    }

    pub(super) fn builder(&self, replicas: &[&str]) -> DatabaseBuilder {
        let pool = PoolConfig::default().min_size(0).max_size(4).max_lifetime(Duration::MAX);
        Database::builder()
            .primary("double://primary")
            .replicas(replicas.iter().map(|name| format!("double://{name}")))
            .pool(pool)
            .backend(Arc::new(self.clone()))
    }

    pub(super) fn database(&self, replicas: &[&str]) -> Database {
        self.builder(replicas).connect_lazy().expect("good settings")
    }

    pub(super) fn lag(&self, node: &str, commits: u64) {
        self.lock().nodes.entry(node.into()).or_default().lag = commits;
    }

    pub(super) fn fail(&self, node: &str, fails: impl Into<Option<(Fails, ErrorKind)>>) {
        self.lock().nodes.entry(node.into()).or_default().fails = fails.into();
    }

    /// A node answers everything but this call.
    pub(super) fn hang(&self, node: &str, call: impl Into<Option<&'static str>>) {
        self.lock().nodes.entry(node.into()).or_default().hangs = call.into();
    }

    /// A node no longer says how far it is.
    pub(super) fn lose_position(&self, node: &str, lost: bool) {
        self.lock().nodes.entry(node.into()).or_default().lost = lost;
    }

    /// How many commits the primary has seen.
    pub(super) fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// The next transactions fail to begin, the last kind first.
    pub(super) fn fail_begins(&self, kinds: &[ErrorKind]) {
        self.lock().begins = kinds.to_vec();
    }

    /// The next commits fail, the last first; `true` when their outcome is unknown.
    pub(super) fn fail_commits(&self, errors: &[(ErrorKind, bool)]) {
        self.lock().commit_errors = errors.to_vec();
    }

    /// What happened since the last call, as `node:what`.
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// Waits until a call has reached a node, as `node:call`; forgets what happened up to then.
    pub(super) async fn reached(&self, line: &str) {
        while !self.log().iter().any(|seen| seen == line) {
            tokio::task::yield_now().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while holding it")
    }
}

#[async_trait]
impl Backend for Cluster {
    fn system(&self) -> &'static str {
        "double"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::none();
        capabilities.roles_change = self.lock().roles;
        capabilities
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>> {
        let node = target.name.to_string();
        let state = self.lock().nodes.entry(node.clone()).or_default().clone();
        if matches!(state.hangs, Some("connect" | "anything")) {
            std::future::pending::<()>().await;
        }
        if let Some((Fails::Connecting, kind)) = state.fails {
            return Err(Error::new(kind, "connect", format!("{node} is scripted to fail")));
        }
        if (state.role(&node), target.access) == (Role::Replica, Access::ReadWrite)
            && self.lock().roles
        {
            let message = format!("{node} is a replica and takes no writes");
            return Err(Error::new(ErrorKind::Unavailable, "connect", message));
        }
        Ok(Box::new(Double {
            cluster: self.clone(),
            node,
            access: target.access,
            open: false,
            dirty: false,
        }))
    }
}

impl NodeState {
    fn role(&self, node: &str) -> Role {
        let named = if node == "primary" { Role::Primary } else { Role::Replica };
        self.role.map_or(named, |(role, _)| role)
    }
}

struct Double {
    cluster: Cluster,
    node: String,
    access: Access,
    open: bool,
    dirty: bool,
}

impl Double {
    async fn run(&mut self, what: &str) -> Result<()> {
        let state = {
            let mut state = self.cluster.lock();
            state.log.push(format!("{}:{what}", self.node));
            state.nodes.entry(self.node.clone()).or_default().clone()
        };
        if [Some(what), Some("anything")].contains(&state.hangs) {
            self.dirty = true;
            std::future::pending::<()>().await;
        }
        match state.fails {
            Some((Fails::Running, kind)) => {
                Err(Error::new(kind, "query", format!("{} is scripted to fail", self.node)))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Connection for Double {
    async fn query(&mut self, sql: &str, _params: &[Param<'_>]) -> Result<Rows> {
        self.run(sql).await?;
        let mut builder = RowsBuilder::new(vec![Column::new("node")]);
        builder.push(ValueRef::Text(&self.node));
        Ok(builder.finish())
    }

    async fn execute(&mut self, sql: &str, _params: &[Param<'_>]) -> Result<u64> {
        assert_eq!(self.access, Access::ReadWrite, "a write went to a reading connection");
        self.run(sql).await?;
        let state = self.cluster.lock().nodes.entry(self.node.clone()).or_default().clone();
        if self.cluster.lock().roles && state.role(&self.node) == Role::Replica {
            let message = format!("{} takes no writes any more", self.node);
            return Err(Error::new(ErrorKind::Unavailable, "execute", message));
        }
        if !self.open {
            self.cluster.lock().commits += 1;
        }
        Ok(1)
    }

    async fn execute_many(&mut self, sql: &str, rows: ParamRows) -> Result<u64> {
        self.execute(&format!("{sql} x{}", rows.len()), &[]).await?;
        Ok(rows.len() as u64)
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.execute(sql, &[]).await.map(drop)
    }

    async fn begin(&mut self, _options: BeginOptions) -> Result<()> {
        self.run("begin").await?;
        if let Some(kind) = self.cluster.lock().begins.pop() {
            return Err(Error::new(kind, "begin", "scripted"));
        }
        self.open = true;
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        self.run("commit").await?;
        if let Some((kind, unknown)) = self.cluster.lock().commit_errors.pop() {
            let error = Error::new(kind, "commit", "scripted");
            return Err(if unknown { error.with_may_have_applied() } else { error });
        }
        self.open = false;
        self.cluster.lock().commits += 1;
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        self.run("rollback").await?;
        self.open = false;
        Ok(())
    }

    async fn ping(&mut self) -> Result<()> {
        self.run("ping").await
    }

    async fn position(&mut self) -> Result<Option<Position>> {
        let mut state = self.cluster.lock();
        let (node, commits) = (self.node.clone(), state.commits);
        let known = state.nodes.entry(node).or_default();
        let timeline = known.role.map_or(1, |(_, timeline)| timeline);
        let NodeState { lag, lost, .. } = *known;
        if lost {
            return Err(Error::new(ErrorKind::Unavailable, "position", "scripted"));
        }
        Ok(Some(Position { system: 1, timeline, offset: commits.saturating_sub(lag) }))
    }

    async fn role(&mut self) -> Result<Option<Role>> {
        let state = self.cluster.lock().nodes.entry(self.node.clone()).or_default().clone();
        if matches!(state.hangs, Some("role" | "anything")) {
            std::future::pending::<()>().await;
        }
        match state.fails {
            Some((_, kind)) => Err(Error::new(kind, "role", "scripted")),
            None => Ok(Some(state.role(&self.node))),
        }
    }

    fn verdict(&self) -> Verdict {
        if self.open || self.dirty { Verdict::Clean } else { Verdict::Reuse }
    }

    async fn clean(&mut self) -> Result<()> {
        self.cluster.lock().log.push(format!("{}:clean", self.node));
        (self.open, self.dirty) = (false, false);
        Ok(())
    }

    async fn close(self: Box<Self>) {}
}

impl fmt::Debug for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Double").field("node", &self.node).finish_non_exhaustive()
    }
}
