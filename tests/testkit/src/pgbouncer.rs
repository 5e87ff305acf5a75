//! PgBouncer in front of a PostgreSQL server.
//!
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::{PgBouncer, PostgresCluster};
//!
//! let pg = PostgresCluster::builder().replicas(1).start().await?;
//! let pooler = PgBouncer::builder().in_front_of(pg.primary().address()).start().await?;
//! let url = pooler.url();                              // postgresql://postgres@127.0.0.1:PORT/postgres
//!
//! pooler.pause().await?;                               // a planned switch: clients wait instead of failing
//! pg.replica(0).promote().await?;
//! pooler.retarget(pg.primary().address()).await?;
//! pooler.resume().await?;
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;

use crate::binaries::{Engine, Servers};
use crate::dirs::ServerDir;
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::postgres::{PgRow, PgSession};
use crate::process::{Launch, Slot};
use crate::wait::{LIMIT, Wait};

/// Defaults that notice a dead server soon and never wait for ever.
const DEFAULTS: &[(&str, &str)] = &[
    ("pool_mode", "transaction"),
    ("auth_type", "any"),
    ("max_client_conn", "500"),
    ("default_pool_size", "10"),
    ("server_login_retry", "1"),
    ("query_wait_timeout", "5"),
    ("server_check_delay", "1"),
    ("ignore_startup_parameters", "extra_float_digits,statement_timeout,lock_timeout,options"),
];

/// The console's user and database.
const CONSOLE: &str = "pgbouncer";

/// How a [`PgBouncer`] is built.
#[derive(Clone, Debug, Default)]
pub struct PgBouncerBuilder {
    servers: Option<Servers>,
    upstream: Option<SocketAddr>,
    settings: BTreeMap<String, String>,
    config: Option<String>,
    files: BTreeMap<String, String>,
}

impl PgBouncerBuilder {
    /// A whole configuration file, for instance the one that goes to production. In it, `{{port}}` stands for the port to
    /// listen on and `{{dir}}` for a folder of its own. It counts as up when it listens; the other settings of this builder
    /// are not used, and [`console`](PgBouncer::console), [`pause`](PgBouncer::pause), [`resume`](PgBouncer::resume) and
    /// [`retarget`](PgBouncer::retarget) only work where the file lets them.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// A file in `{{dir}}`, such as the users of [`config`](Self::config).
    pub fn file(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.insert(name.into(), text.into());
        self
    }

    /// The PostgreSQL server behind it; every database name leads to the database of that name there.
    pub fn in_front_of(mut self, upstream: SocketAddr) -> Self {
        self.upstream = Some(upstream);
        self
    }

    /// A line of the `[pgbouncer]` section. The defaults pool per transaction, 10 server connections per database.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// Where the program comes from. Default [`Servers::from_env`].
    pub fn servers(mut self, servers: Servers) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Starts it and waits until its console answers.
    ///
    /// # Errors
    /// `Config` without a server behind it, `MissingBinary`, `Exited` and `TimedOut` when it does not come up.
    pub async fn start(self) -> Result<PgBouncer> {
        if self.upstream.is_none() && self.config.is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                "pgbouncer needs a server behind it: call in_front_of(…)",
            ));
        }
        let program = self
            .servers
            .unwrap_or_else(Servers::from_env)
            .find(Engine::PgBouncer)?
            .join("pgbouncer");
        let inner = Inner {
            program,
            settings: self.settings,
            config: self.config,
            files: self.files,
            upstream: Mutex::new(self.upstream),
            process: Slot::new("pgbouncer"),
            dir: ServerDir::create("bouncer")?,
            port: Port::claim()?,
        };
        let pooler = PgBouncer { inner: Arc::new(inner) };
        pooler.start().await?;
        Ok(pooler)
    }
}

/// A running PgBouncer. A cheap handle: clones are the same pooler, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct PgBouncer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    settings: BTreeMap<String, String>,
    config: Option<String>,
    files: BTreeMap<String, String>,
    upstream: Mutex<Option<SocketAddr>>,
    process: Slot,
    dir: ServerDir,
    port: Port,
}

impl PgBouncer {
    /// A builder.
    pub fn builder() -> PgBouncerBuilder {
        PgBouncerBuilder::default()
    }

    /// `postgresql://postgres@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The same for another database.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgresql://postgres@{}/{database}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.inner.port.number()).into()
    }

    /// The file its log goes to.
    pub fn log_file(&self) -> PathBuf {
        self.inner.dir.join("log")
    }

    /// Whether its process runs. A frozen one does.
    pub fn is_running(&self) -> bool {
        self.inner.process.is_running()
    }

    /// Starts it after a kill, and waits until its console answers. Does nothing while it runs.
    ///
    /// # Errors
    /// `Exited` with the log when it ends at once, `TimedOut` when it does not answer.
    pub async fn start(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let config = self.write()?;
        let process = self.inner.process.start(
            Launch::new("pgbouncer", &self.inner.program, self.inner.dir.path()).arg(config),
        )?;
        let mut wait = Wait::new("pgbouncer answering", LIMIT);
        while let Err(error) = self.answers().await {
            process.check()?;
            if error.kind() != ErrorKind::Lost {
                return Err(error);
            }
            wait.pause(error).await?;
        }
        Ok(())
    }

    async fn answers(&self) -> Result<()> {
        if self.inner.config.is_none() {
            return self.console("SHOW VERSION").await.map(drop);
        }
        let connected = TcpStream::connect(self.address()).await;
        connected.map(drop).map_err(|error| Error::lost("connecting to pgbouncer", error))
    }

    /// Sends a command to the console, such as `SHOW POOLS`.
    ///
    /// # Errors
    /// `Rejected` when it refuses, `Lost` when it is not up, `TimedOut` when it does not answer.
    pub async fn console(&self, command: &str) -> Result<Vec<PgRow>> {
        let socket = self.inner.dir.join(&format!(".s.PGSQL.{}", self.inner.port.number()));
        PgSession::connect_unix(&socket, "pgbouncer", CONSOLE, CONSOLE).await?.sql(command).await
    }

    /// Waits until running transactions have ended and lets new ones wait.
    ///
    /// # Errors
    /// Those of [`console`](Self::console).
    pub async fn pause(&self) -> Result<()> {
        self.console("PAUSE").await.map(drop)
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// Those of [`console`](Self::console).
    pub async fn resume(&self) -> Result<()> {
        self.console("RESUME").await.map(drop)
    }

    /// Leads all databases to another server; connections to the old one are closed as they come free.
    ///
    /// # Errors
    /// Those of [`console`](Self::console).
    pub async fn retarget(&self, upstream: SocketAddr) -> Result<()> {
        *self.inner.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
        self.write()?;
        self.console("RELOAD").await.map(drop)
    }

    /// Kills it at once; its clients' connections break.
    ///
    /// # Errors
    /// `TimedOut` when it is still there after 20 seconds.
    pub async fn kill(&self) -> Result<()> {
        self.inner.process.kill().await
    }

    /// Freezes it.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.inner.process.freeze()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.inner.process.thaw()
    }

    fn write(&self) -> Result<PathBuf> {
        for (name, text) in &self.inner.files {
            self.inner.dir.write(name, text)?;
        }
        let upstream = *self.inner.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        let (None, Some(upstream)) = (&self.inner.config, upstream) else {
            let text = self.inner.config.as_deref().unwrap_or_default();
            let text = text.replace("{{port}}", &self.inner.port.number().to_string());
            let text = text.replace("{{dir}}", &self.inner.dir.path().display().to_string());
            return self.inner.dir.write("pgbouncer.ini", &text);
        };
        let mut text = format!(
            "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir = {}\nadmin_users = {CONSOLE}\n",
            upstream.ip(),
            upstream.port(),
            self.inner.port.number(),
            self.inner.dir.path().display()
        );
        let mut settings: BTreeMap<&str, &str> = DEFAULTS.iter().copied().collect();
        settings.extend(
            self.inner.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        );
        for (name, value) in settings {
            let _ = writeln!(text, "{name} = {value}");
        }
        self.inner.dir.write("pgbouncer.ini", &text)
    }
}
