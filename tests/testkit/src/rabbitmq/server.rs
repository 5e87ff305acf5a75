//! A broker of one or more nodes, and how it is built.

use std::env;
use std::path::Path;
use std::sync::Arc;

use super::RabbitNode;
use super::config::Options;
use super::node::Common;
use crate::binaries::{Engine, Servers};
use crate::dirs::{self, ServerDir};
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::process::{Launch, Process};
use crate::tls::Authority;
use crate::wait::{LIMIT, Wait};

/// How a [`RabbitMq`] is built. The default is one node with the consistent-hash exchange.
#[derive(Clone, Debug)]
pub struct RabbitBuilder {
    options: Options,
}

impl Default for RabbitBuilder {
    fn default() -> Self {
        Self {
            options: Options {
                servers: None,
                nodes: 1,
                plugins: vec!["rabbitmq_consistent_hash_exchange".to_owned()],
                settings: Vec::new(),
                management: false,
                tls: false,
            },
        }
    }
}

impl RabbitBuilder {
    /// How many nodes form a cluster. Default 1; 3 survive the loss of one. A minority pauses.
    pub fn nodes(mut self, count: usize) -> Self {
        self.options.nodes = count;
        self
    }

    /// Switches a plugin on.
    pub fn plugin(mut self, name: impl Into<String>) -> Self {
        self.options.plugins.push(name.into());
        self
    }

    /// Switches the management plugin on, see [`RabbitNode::management_url`].
    pub fn management(mut self) -> Self {
        self.options.management = true;
        self
    }

    /// Listens for TLS too, with a certificate for `localhost` and `127.0.0.1` of a private authority, see
    /// [`RabbitNode::tls_url`] and [`RabbitNode::ca_file`].
    pub fn tls(mut self) -> Self {
        self.options.tls = true;
        self
    }

    /// A line of `rabbitmq.conf`.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.settings.push((name.into(), value.into()));
        self
    }

    /// Where the programs come from. Default [`Servers::from_env`].
    pub fn servers(mut self, servers: Servers) -> Self {
        self.options.servers = Some(servers);
        self
    }

    /// Starts all nodes at the same time and waits until each takes clients and sees the others.
    ///
    /// # Errors
    /// `MissingBinary`, `Config` without nodes, `Exited` and `TimedOut` when a node does not come up.
    pub async fn start(self) -> Result<RabbitMq> {
        if self.options.nodes == 0 {
            return Err(Error::new(ErrorKind::Config, "a broker needs at least one node"));
        }
        let common = Arc::new(self.common().await?);
        let nodes: Result<Vec<RabbitNode>> = (0..self.options.nodes)
            .map(|index| RabbitNode::prepare(index, &self.options, &common))
            .collect();
        let rabbit = RabbitMq { nodes: nodes?.into() };
        rabbit.start_all().await?;
        Ok(rabbit)
    }

    async fn common(&self) -> Result<Common> {
        let servers = self.options.servers.clone().unwrap_or_else(Servers::from_env);
        let program = servers.find(Engine::RabbitMq)?.join("rabbitmq-server");
        let epmd_program = servers.program("epmd", "erlang-base", "erlang")?;
        let authority = if self.options.tls { Some(Authority::shared()?) } else { None };
        let dir = ServerDir::create("rmq")?;
        let home = dir.make("home")?;
        dir.write("home/.erlang.cookie", &format!("testkit{}", std::process::id()))?;
        dirs::set_mode(&home.join(".erlang.cookie"), 0o400)?;
        let epmd_port = Port::claim()?;
        let number = epmd_port.number().to_string();
        let launch = Launch::new("epmd", &epmd_program, &home).args([
            "-port",
            &number,
            "-address",
            "127.0.0.1",
        ]);
        let epmd = Process::start(launch)?;
        let mut wait = Wait::new("epmd listening", LIMIT);
        while tokio::net::TcpStream::connect(("127.0.0.1", epmd_port.number())).await.is_err() {
            epmd.check()?;
            wait.pause("not yet").await?;
        }
        let path = path_with(epmd_program.parent());
        Ok(Common { program, path, authority, _epmd: epmd, epmd_port, home, dir })
    }
}

/// The search path with the folder of this Erlang first, so that the machine is of the same version as its tools.
fn path_with(folder: Option<&Path>) -> Option<std::ffi::OsString> {
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = folder.map(Path::to_owned).into_iter().chain(env::split_paths(&old));
    env::join_paths(folders).ok()
}

/// A RabbitMQ broker of one or more nodes. Dropping it, and the last [`RabbitNode`] and [`Vhost`](super::Vhost) of it, ends the
/// nodes and removes their files.
#[derive(Clone, Debug)]
pub struct RabbitMq {
    nodes: Arc<[RabbitNode]>,
}

impl RabbitMq {
    /// A builder.
    pub fn builder() -> RabbitBuilder {
        RabbitBuilder::default()
    }

    /// Starts one node with the defaults.
    ///
    /// # Errors
    /// Those of [`RabbitBuilder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// All nodes by number.
    pub fn nodes(&self) -> &[RabbitNode] {
        &self.nodes
    }

    /// A node by its number.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn node(&self, index: usize) -> RabbitNode {
        self.nodes[index].clone()
    }

    /// The URLs of the default virtual host at all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RabbitNode::url).collect()
    }

    /// Starts every node that is down, all at the same time, and waits until all take clients and see each other.
    ///
    /// # Errors
    /// `Exited` with the log when a node ends at once, `TimedOut` when one does not come up.
    pub async fn start_all(&self) -> Result<()> {
        for node in self.nodes.iter() {
            node.launch()?;
        }
        for node in self.nodes.iter() {
            node.ready().await?;
        }
        self.settled().await
    }

    /// Waits until every running node sees every other.
    ///
    /// # Errors
    /// `TimedOut` when that does not happen.
    pub async fn settled(&self) -> Result<()> {
        let running: Vec<&RabbitNode> =
            self.nodes.iter().filter(|node| node.is_running()).collect();
        for node in &running {
            let mut wait =
                Wait::new(format!("{} seeing {} nodes", node.name(), running.len()), LIMIT);
            loop {
                let seen = node
                    .eval(
                        "length(try rabbit_nodes:list_running() \
                         catch error:undef -> rabbit_mnesia:cluster_nodes(running) end).",
                    )
                    .await?;
                if seen == running.len().to_string() {
                    break;
                }
                wait.pause(seen).await?;
            }
        }
        Ok(())
    }

    /// A node that runs and is not frozen.
    pub(super) fn any(&self) -> Result<RabbitNode> {
        let responsive = self.nodes.iter().find(|node| node.is_responsive());
        responsive
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Lost, "no node of the broker runs unfrozen"))
    }
}
