//! One server: its life, its addresses, and what can be done to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;

use super::config::{ClusterConfig, OWN_PASSWORD, OWN_USER, Options};
use super::{RedisConnection, Reply};
use crate::FaultProxy;
use crate::dirs::ServerDir;
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::process::{Launch, Slot};
use crate::tls::Authority;
use crate::url;
use crate::wait::{LIMIT, Wait};

/// One Redis server, alone or of a cluster. A cheap handle: clones are the same server, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct RedisNode {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: usize,
    name: String,
    options: Options,
    program: PathBuf,
    authority: Option<Authority>,
    process: Slot,
    dir: ServerDir,
    port: Port,
    bus_port: Option<Port>,
}

impl RedisNode {
    /// A server that is not started yet.
    pub(super) fn prepare(index: usize, options: &Options, cluster: Option<u128>) -> Result<Self> {
        let (program, dir, port) =
            (options.program()?, ServerDir::create("redis")?, Port::claim()?);
        let bus_port = if cluster.is_some() { Some(Port::claim()?) } else { None };
        let authority = if options.tls { Some(Authority::shared()?) } else { None };
        if let Some(authority) = &authority {
            authority.install(&dir, "server")?;
            dir.write("ca.crt", authority.certificate_text())?;
        }
        let cluster = cluster.zip(bus_port.as_ref()).map(|(node_timeout_ms, bus)| ClusterConfig {
            bus_port: bus.number(),
            node_timeout_ms,
        });
        dir.write("redis.conf", &options.render(dir.path(), port.number(), cluster.as_ref())?)?;
        let (options, name) = (options.clone(), format!("redis{index}"));
        let process = Slot::new(&name);
        Ok(Self {
            inner: Arc::new(Inner {
                index,
                name,
                options,
                program,
                authority,
                process,
                dir,
                port,
                bus_port,
            }),
        })
    }

    /// Its number in its cluster, which never changes.
    pub fn index(&self) -> usize {
        self.inner.index
    }

    /// Its name in messages: `redis0`, `redis1`, …
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://` with TLS.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.address())
    }

    /// The URL of a login that was made on the builder, password included.
    ///
    /// # Errors
    /// `Config` when there is no such login.
    pub fn url_as(&self, login: &str) -> Result<String> {
        let found = self.inner.options.logins.iter().find(|known| known.name == login);
        let login = found.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("no login {login:?} was made on the builder"))
        })?;
        let (name, password) = (url::encode(&login.name), url::encode(&login.password));
        Ok(format!("{}://{name}:{password}@{}", self.scheme(), self.address()))
    }

    /// The URL through a proxy that stands in front of this server.
    pub fn url_through(&self, proxy: &FaultProxy) -> String {
        format!("{}://{}", self.scheme(), proxy.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Its port, kept while it is down.
    pub fn port(&self) -> u16 {
        self.inner.port.number()
    }

    pub(super) fn bus_port(&self) -> u16 {
        self.inner.bus_port.as_ref().map_or(0, Port::number)
    }

    /// The file its log goes to.
    pub fn log_file(&self) -> PathBuf {
        self.inner.dir.join("log")
    }

    /// The certificate of the private authority, when it serves TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.inner.authority.as_ref().map(Authority::ca_file)
    }

    /// Opens a connection over the Unix socket, which no [`FaultProxy`] touches, as a user who may do everything.
    ///
    /// # Errors
    /// `Lost` when it is not up, `TimedOut` when it is frozen.
    pub async fn connection(&self) -> Result<RedisConnection> {
        let mut connection =
            RedisConnection::connect_unix(&self.inner.dir.join("s"), self.name()).await?;
        connection.command(["AUTH", OWN_USER, OWN_PASSWORD]).await?;
        Ok(connection)
    }

    /// Sends one command on a connection of its own.
    ///
    /// # Errors
    /// Those of [`connection`](Self::connection) and [`RedisConnection::command`].
    pub async fn command<S: AsRef<str>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Result<Reply> {
        self.connection().await?.command(words).await
    }

    /// Whether its process runs. A frozen one does.
    pub fn is_running(&self) -> bool {
        self.inner.process.is_running()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.inner.process.pid()
    }

    /// Whether it runs and is not frozen.
    pub(super) fn is_responsive(&self) -> bool {
        self.inner.process.is_responsive()
    }

    /// Starts the server after a stop or a kill, and waits until it answers. Does nothing while it runs.
    ///
    /// # Errors
    /// `Exited` with the log when it ends at once, `TimedOut` when it does not answer.
    pub async fn start(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let config = self.inner.dir.join("redis.conf");
        let launch =
            Launch::new(self.name(), &self.inner.program, self.inner.dir.path()).arg(config);
        let process = self.inner.process.start(launch)?;
        let mut wait = Wait::new(format!("{} answering", self.name()), LIMIT);
        loop {
            process.check()?;
            match self.command(["PING"]).await {
                Ok(_) => return Ok(()),
                Err(error)
                    if error.kind() == ErrorKind::Lost || error.code() == Some("LOADING") =>
                {
                    wait.pause(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops the server in order.
    ///
    /// # Errors
    /// `TimedOut` when it does not end. A frozen server must be thawed first.
    pub async fn stop(&self) -> Result<()> {
        self.inner.process.end(Signal::TERM).await
    }

    /// [`stop`](Self::stop) and [`start`](Self::start).
    ///
    /// # Errors
    /// Those of both.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Kills the server at once (`SIGKILL`).
    ///
    /// # Errors
    /// `TimedOut` when it is still there after 20 seconds.
    pub async fn kill(&self) -> Result<()> {
        self.inner.process.kill().await
    }

    /// Freezes it (`SIGSTOP`): connecting still succeeds, nothing answers.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.inner.process.freeze()
    }

    /// Lets a frozen server go on where it was.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.inner.process.thaw()
    }

    /// Closes all client connections but the one that asks, and returns how many there were. Replication goes on.
    ///
    /// # Errors
    /// Those of [`command`](Self::command).
    pub async fn close_clients(&self) -> Result<u64> {
        let closed =
            self.command(["CLIENT", "KILL", "TYPE", "normal"]).await?.integer().unwrap_or(0);
        Ok(u64::try_from(closed).unwrap_or(0))
    }

    /// One value of `INFO`.
    ///
    /// # Errors
    /// Those of [`command`](Self::command), and `Rejected` when there is no such field.
    pub async fn info(&self, section: &str, field: &str) -> Result<String> {
        let text = self.command(["INFO", section]).await?.text().unwrap_or_default();
        find_field(&text, field).ok_or_else(|| {
            Error::new(
                ErrorKind::Rejected,
                format!("{}: INFO {section} has no {field}", self.name()),
            )
        })
    }

    fn scheme(&self) -> &'static str {
        if self.inner.options.tls { "rediss" } else { "redis" }
    }
}

/// The value of `field:value` in a text of such lines.
pub(super) fn find_field(text: &str, field: &str) -> Option<String> {
    text.lines()
        .find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}
