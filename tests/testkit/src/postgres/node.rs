//! One server: its life, its addresses, and questions to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;

use super::config::{self, Login, NodeConfig};
use super::session::{self, PgRow, PgSession};
use super::template;
use crate::FaultProxy;
use crate::dirs::{self, ServerDir};
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::process::{self, Launch, Slot};
use crate::tls::Authority;
use crate::url;
use crate::wait::{LIMIT, Wait};

/// Which node of a cluster takes writes, shared by all its nodes.
#[derive(Debug, Default)]
pub(super) struct Roles(AtomicUsize);

impl Roles {
    pub(super) fn primary(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn set_primary(&self, index: usize) {
        self.0.store(index, Ordering::SeqCst);
    }
}

/// One PostgreSQL server of a [`PostgresCluster`](super::PostgresCluster).
///
/// A cheap handle: clones are the same server, and the server ends with the last of them. A method on a handle says what
/// happens to that server; what concerns several is on the cluster.
#[derive(Clone, Debug)]
pub struct PgNode {
    pub(super) inner: Arc<NodeInner>,
}

#[derive(Debug)]
pub(super) struct NodeInner {
    pub(super) index: usize,
    pub(super) binaries: PathBuf,
    pub(super) roles: Arc<Roles>,
    pub(super) logins: Vec<Login>,
    pub(super) authority: Option<Authority>,
    pub(super) link: Option<FaultProxy>,
    name: String,
    config: Mutex<NodeConfig>,
    pub(super) process: Slot,
    /// What a postmaster that was killed alone left behind.
    pub(super) orphans: Mutex<Vec<u32>>,
    dir: ServerDir,
    port: Port,
}

/// What a node is made from.
#[derive(Debug)]
pub(super) struct NodeSpec {
    pub(super) index: usize,
    pub(super) binaries: PathBuf,
    pub(super) roles: Arc<Roles>,
    pub(super) logins: Vec<Login>,
    pub(super) tls_only: bool,
    pub(super) authority: Option<Authority>,
    pub(super) link: Option<FaultProxy>,
    pub(super) config: NodeConfig,
    pub(super) dir: ServerDir,
    pub(super) port: Port,
}

impl PgNode {
    pub(super) fn new(spec: NodeSpec) -> Result<Self> {
        spec.dir.write("pg_hba.conf", &config::hba(&spec.logins, spec.tls_only))?;
        if let Some(authority) = &spec.authority {
            authority.install(&spec.dir, "server")?;
        }
        Ok(Self {
            inner: Arc::new(NodeInner {
                index: spec.index,
                name: spec.config.name.clone(),
                binaries: spec.binaries,
                roles: spec.roles,
                logins: spec.logins,
                authority: spec.authority,
                link: spec.link,
                process: Slot::new(&spec.config.name),
                orphans: Mutex::default(),
                config: Mutex::new(spec.config),
                dir: spec.dir,
                port: spec.port,
            }),
        })
    }

    /// The node's number in its cluster, which never changes; 0 is the first primary.
    pub fn index(&self) -> usize {
        self.inner.index
    }

    /// The node's name, `p0`, `p1`, …, which is also its `cluster_name` and `application_name`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether the cluster's record has it as the one that takes writes. The record changes with
    /// [`promote`](Self::promote), not when the server dies.
    pub fn is_primary(&self) -> bool {
        self.inner.roles.primary() == self.inner.index
    }

    /// `postgresql://postgres@127.0.0.1:PORT/postgres`: a superuser, no password.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The same for another database.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgresql://postgres@{}/{database}", self.address())
    }

    /// The URL of a login made with [`PostgresBuilder::login`](super::PostgresBuilder::login), password included.
    ///
    /// # Errors
    /// `Config` when there is no such login.
    pub fn url_as(&self, login: &str) -> Result<String> {
        let found = self.inner.logins.iter().find(|known| known.name == login);
        let Login { name, password } = found.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("no login {login:?} was made on the builder"))
        })?;
        let (name, password) = (url::encode(name), url::encode(password));
        let mode = if self.inner.authority.is_some() { "?sslmode=require" } else { "" };
        Ok(format!("postgresql://{name}:{password}@{}/postgres{mode}", self.address()))
    }

    /// The URL through a proxy that stands in front of this node.
    pub fn url_through(&self, proxy: &FaultProxy) -> String {
        format!("postgresql://postgres@{}/postgres", proxy.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Its port, kept while it is down.
    pub fn port(&self) -> u16 {
        self.inner.port.number()
    }

    /// The folder of its Unix socket, for `host=` in a connection string.
    pub fn socket_dir(&self) -> &Path {
        self.inner.dir.path()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.inner.dir.join("data")
    }

    /// The file its log goes to.
    pub fn log_file(&self) -> PathBuf {
        self.inner.dir.join("log")
    }

    /// The folder of its programs, `psql` and `pg_dump` among them.
    pub fn binaries(&self) -> &Path {
        &self.inner.binaries
    }

    /// The certificate of the private authority, when the cluster was built with TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.inner.authority.as_ref().map(Authority::ca_file)
    }

    /// The proxy through which this node receives from the primary, when the cluster was built with
    /// [`replication_proxies`](super::PostgresBuilder::replication_proxies): cut it, delay it, block it.
    pub fn replication_link(&self) -> Option<&FaultProxy> {
        self.inner.link.as_ref()
    }

    /// Opens a session over the Unix socket, which no [`FaultProxy`] touches.
    ///
    /// # Errors
    /// `Lost` when the server is not up, `TimedOut` when it is frozen.
    pub async fn session(&self) -> Result<PgSession> {
        self.session_in("postgres").await
    }

    /// The same in another database.
    ///
    /// # Errors
    /// Those of [`session`](Self::session).
    pub async fn session_in(&self, database: &str) -> Result<PgSession> {
        let socket = self.inner.dir.join(&format!(".s.PGSQL.{}", self.port()));
        PgSession::connect_unix(&socket, self.name(), "postgres", database).await
    }

    /// Runs statements in a session of their own and returns the rows of all of them.
    ///
    /// # Errors
    /// Those of [`session`](Self::session) and [`PgSession::sql`].
    pub async fn sql(&self, sql: &str) -> Result<Vec<PgRow>> {
        self.session().await?.sql(sql).await
    }

    /// The first value of the first row, as text.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql), and `Rejected` when there is no value.
    pub async fn value(&self, sql: &str) -> Result<String> {
        session::first_value(&self.sql(sql).await?, self.name(), sql)
    }

    /// Whether its process runs. A frozen one does.
    pub fn is_running(&self) -> bool {
        self.inner.process.is_running()
    }

    /// Whether it runs and is not frozen.
    pub(super) fn is_responsive(&self) -> bool {
        self.inner.process.is_responsive()
    }

    /// The process id of the postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.inner.process.pid()
    }

    /// Starts the server after a stop or a kill, and waits until it answers. Does nothing while it runs.
    ///
    /// # Errors
    /// `Exited` with the log when it ends at once, `TimedOut` when it does not answer.
    pub async fn start(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        // A new server refuses data that a process of the old one still has open.
        let orphans =
            std::mem::take(&mut *self.inner.orphans.lock().unwrap_or_else(PoisonError::into_inner));
        process::all_ended(&format!("what {} left behind", self.name()), &orphans).await?;
        let config_file = self.write_config()?;
        let launch =
            Launch::new(self.name(), self.inner.binaries.join("postgres"), self.inner.dir.path())
                .arg("-D")
                .arg(self.data_dir())
                .arg("-c")
                .arg(format!("config_file={}", config_file.display()));
        let process = self.inner.process.start(launch)?;
        let mut wait = Wait::new(format!("{} accepting sessions", self.name()), LIMIT);
        loop {
            process.check()?;
            match self.sql("SELECT 1").await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Lost => wait.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops the server in order: sessions are closed, everything is written.
    ///
    /// # Errors
    /// `TimedOut` when it does not end. A frozen server must be thawed first.
    pub async fn stop(&self) -> Result<()> {
        self.inner.process.end(Signal::INT).await
    }

    /// [`stop`](Self::stop) and [`start`](Self::start).
    ///
    /// # Errors
    /// Those of both.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Sets a parameter with `ALTER SYSTEM` and reloads.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql).
    pub async fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let value = value.replace('\'', "''");
        let mut session = self.session().await?;
        session.sql(&format!("ALTER SYSTEM SET {parameter} = '{value}'")).await?;
        session.sql("SELECT pg_reload_conf()").await?;
        Ok(())
    }

    /// Changes the part of the configuration that is ours, writes it, and has a running server read it.
    pub(super) async fn reconfigure(&self, change: impl FnOnce(&mut NodeConfig)) -> Result<()> {
        change(&mut self.inner.config.lock().unwrap_or_else(PoisonError::into_inner));
        self.write_config()?;
        if self.is_responsive() {
            self.sql("SELECT pg_reload_conf()").await?;
        } else if self.is_running() {
            // A frozen server finds the signal when it is thawed.
            self.inner.process.running()?.signal(Signal::HUP)?;
        }
        Ok(())
    }

    pub(super) fn config(&self) -> NodeConfig {
        self.inner.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lays a copy of a fresh data folder down.
    pub(super) async fn lay_down(&self) -> Result<()> {
        template::clone_into(&self.inner.binaries, &self.data_dir()).await
    }

    /// Makes the server a replica at its next start.
    pub(super) fn mark_standby(&self) -> Result<()> {
        dirs::write_private(&self.data_dir().join("standby.signal"), "")
    }

    pub(super) fn tool(&self, name: &str) -> Launch {
        Launch::new(
            format!("{name} for {}", self.name()),
            self.inner.binaries.join(name),
            self.inner.dir.path(),
        )
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.inner.dir.join("postgresql.conf")
    }

    fn write_config(&self) -> Result<PathBuf> {
        self.inner.dir.write("postgresql.conf", &self.config().render(self.inner.dir.path()))
    }
}

impl NodeInner {
    /// Tells the server to end without ceremony, which lets it free its shared memory.
    pub(super) fn begin_end(&self) {
        if let Some(process) = self.process.get() {
            let _ = process.thaw();
            let _ = process.signal(Signal::QUIT);
        }
    }
}

impl Drop for NodeInner {
    fn drop(&mut self) {
        self.begin_end();
        if let Some(process) = self.process.take() {
            process.ended_soon();
        }
        super::faults::free_shared_memory(&self.dir.join("data"));
    }
}
