//! One node: its life, its addresses, and questions to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;
use tokio::net::TcpStream;

use super::config::{self, Options, Ports};
use super::control;
use crate::FaultProxy;
use crate::dirs::ServerDir;
use crate::error::{ErrorKind, Result};
use crate::ports::Port;
use crate::process::{Launch, Process, Slot};
use crate::tls::Authority;
use crate::wait::{LIMIT, Wait};

/// What the nodes of one cluster share: the program, the home with the secret, and the name server.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) program: PathBuf,
    pub(super) path: Option<std::ffi::OsString>,
    pub(super) authority: Option<Authority>,
    pub(super) _epmd: Process,
    pub(super) epmd_port: Port,
    pub(super) home: PathBuf,
    pub(super) dir: ServerDir,
}

/// One RabbitMQ node. A cheap handle: clones are the same node, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct RabbitNode {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: usize,
    name: String,
    erlang_name: String,
    process: Slot,
    folder: PathBuf,
    ports: Ports,
    common: Arc<Common>,
}

impl RabbitNode {
    /// A node that is not started yet.
    pub(super) fn prepare(index: usize, options: &Options, common: &Arc<Common>) -> Result<Self> {
        let ports = Ports::claim(options)?;
        let folder = common.dir.make(&format!("n{index}"))?;
        let relative = |name: &str| format!("n{index}/{name}");
        common.dir.write(&relative("rabbitmq.conf"), &config::render(options, &ports, &folder))?;
        common.dir.write(&relative("plugins"), &config::plugins(options))?;
        common.dir.write(&relative("control.erl"), &control::program(&folder.join("s")))?;
        if let Some(authority) = &common.authority {
            authority.install(&common.dir, &relative("server"))?;
            common.dir.write(&relative("ca.crt"), authority.certificate_text())?;
        }
        let inner = Inner {
            index,
            name: format!("rabbit{index}"),
            erlang_name: config::node_name(index),
            process: Slot::new(format!("rabbit{index}")),
            folder,
            ports,
            common: Arc::clone(common),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its number in its cluster, which never changes.
    pub fn index(&self) -> usize {
        self.inner.index
    }

    /// Its name in messages: `rabbit0`, `rabbit1`, …
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its name among its peers.
    pub(super) fn erlang_name(&self) -> &str {
        &self.inner.erlang_name
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`, the default virtual host.
    pub fn url(&self) -> String {
        self.url_in("%2f")
    }

    /// The same for another virtual host.
    pub fn url_in(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@{}/{vhost}", self.address())
    }

    /// The URL of a virtual host through a proxy that stands in front of this node.
    pub fn url_through(&self, proxy: &FaultProxy, vhost: &str) -> String {
        format!("amqp://guest:guest@{}/{vhost}", proxy.address())
    }

    /// `amqps://…` of the default virtual host, when built with TLS.
    pub fn tls_url(&self) -> Option<String> {
        let port = self.inner.ports.amqps.as_ref()?.number();
        Some(format!("amqps://guest:guest@127.0.0.1:{port}/%2f"))
    }

    /// `http://127.0.0.1:PORT`, when built with management.
    pub fn management_url(&self) -> Option<String> {
        let port = self.inner.ports.management.as_ref()?.number();
        Some(format!("http://127.0.0.1:{port}"))
    }

    /// The certificate of the private authority, when built with TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.inner.common.authority.as_ref().map(Authority::ca_file)
    }

    /// Where it listens for AMQP.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Its AMQP port, kept while it is down.
    pub fn port(&self) -> u16 {
        self.inner.ports.amqp.number()
    }

    /// The file its log goes to.
    pub fn log_file(&self) -> PathBuf {
        self.inner.folder.join("log")
    }

    /// Evaluates Erlang in the node: expressions separated by commas, ended by a dot. The answer is the last value; a binary as
    /// it is, anything else as Erlang writes it. It reaches a node that is cut off from the network.
    ///
    /// # Errors
    /// `Rejected` when the evaluation fails, `Lost` when the node is not up, `TimedOut` when it is frozen.
    pub async fn eval(&self, expressions: &str) -> Result<String> {
        control::eval(&self.control_socket(), self.name(), expressions).await
    }

    /// The door for questions to the node.
    pub(super) fn control_socket(&self) -> PathBuf {
        self.inner.folder.join("s")
    }

    /// Whether its process runs. A frozen one does, and one that is paused because it is in the minority.
    pub fn is_running(&self) -> bool {
        self.inner.process.is_running()
    }

    /// Whether it runs and is not frozen.
    pub(super) fn is_responsive(&self) -> bool {
        self.inner.process.is_responsive()
    }

    /// The process id of its Erlang machine, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.inner.process.pid()
    }

    /// Starts the node after a stop or a kill, and waits until it takes clients. In a cluster that needs a majority: where that
    /// is down too, use [`RabbitMq::start_all`](super::RabbitMq::start_all).
    ///
    /// # Errors
    /// `Exited` with the log when it ends at once, `TimedOut` when it does not come up.
    pub async fn start(&self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    pub(super) fn launch(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let (inner, common) = (&self.inner, &self.inner.common);
        // Else the socket of a machine that was killed is taken for the new one's.
        let _ = std::fs::remove_file(inner.folder.join("s"));
        let launch = Launch::new(&inner.name, &common.program, &inner.folder);
        let mut launch = config::launch(
            launch,
            &inner.erlang_name,
            &inner.folder,
            &common.home,
            common.epmd_port.number(),
            &inner.ports,
        );
        if let Some(path) = &common.path {
            launch = launch.env("PATH", path);
        }
        inner.process.start(launch).map(drop)
    }

    /// Waits until the node takes clients.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn ready(&self) -> Result<()> {
        let mut wait = Wait::new(format!("{} taking clients", self.name()), LIMIT);
        loop {
            self.inner.process.running()?.check()?;
            let seen = match self.eval("rabbit:is_running().").await {
                Ok(answer) if answer == "true" => match TcpStream::connect(self.address()).await {
                    Ok(_) => return Ok(()),
                    Err(error) => error.to_string(),
                },
                Ok(answer) => answer,
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(error),
                Err(error) => error.to_string(),
            };
            wait.pause(seen).await?;
        }
    }

    /// Stops the node in order, which takes about six seconds.
    ///
    /// # Errors
    /// `TimedOut` when it does not end.
    pub async fn stop(&self) -> Result<()> {
        self.inner.process.end(Signal::TERM).await
    }

    /// Kills the node at once (`SIGKILL`). Confirmed messages of durable queues survive.
    ///
    /// # Errors
    /// `TimedOut` when processes are still there after 20 seconds.
    pub async fn kill(&self) -> Result<()> {
        self.inner.process.kill().await
    }

    /// Freezes it (`SIGSTOP`): connecting still succeeds, nothing answers. Its peers miss it after about five seconds.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.inner.process.freeze()
    }

    /// Lets a frozen node go on. A node of a cluster that was missed by its peers (after about five seconds) does **not** find
    /// back by itself: kill and start it then.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.inner.process.thaw()
    }
}
