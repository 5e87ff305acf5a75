//! The seam: one connection to one server. Only this file, `gather` and `tls` know the driver.
//!
//! The driver, fred, connects to one server, writes and reads frames, and pipelines what many tasks send. It does nothing
//! else here: no topology, no redirection, no retry, no reconnection. Each of these was tried on its clustered client and
//! found wanting in a cache (`tests/it/servers/traps.rs` holds the findings as tests): while it reconnects to one dead server
//! all others wait; a server that hangs under traffic is never noticed; what timed out may still be sent later. So a link
//! that breaks is over, its unanswered commands fail at once, and a new one is made.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ConnectionConfig, Server, ServerConfig, TcpConfig};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::gather::Gather;
use super::target::{Address, Login};
use super::tls::Tls;

/// A command: its name and its arguments.
#[derive(Clone)]
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) args: Vec<Bytes>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.args.len())
    }
}

impl Command {
    pub(super) fn new(name: &'static str, args: impl IntoIterator<Item = Bytes>) -> Self {
        Self { name, args: args.into_iter().collect() }
    }

    /// Of words known beforehand.
    pub(super) fn of(name: &'static str, words: &[&'static str]) -> Self {
        Self::new(name, words.iter().map(|word| Bytes::from_static(word.as_bytes())))
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    Bytes(Bytes),
    Array(Vec<Reply>),
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// The server refused; its text. Nothing was done.
    Refused(String),
    /// The connection ended before the answer came.
    Broken(String),
    /// The answer did not come in time.
    TimedOut(Duration),
    /// The server cannot be reached; nothing was sent.
    Down(String),
}

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) connect_timeout: Duration,
    pub(super) database: u8,
    pub(super) tls: Option<Tls>,
    /// Commands that may wait to be written.
    pub(super) max_queued: usize,
}

/// A connection.
pub(super) struct Link {
    client: Client,
    gather: Gather,
    task: Mutex<ConnectHandle>,
    abort: tokio::task::AbortHandle,
    born: Instant,
    /// Milliseconds after `born` at which something was last answered.
    answered: AtomicU64,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Link {
    /// Connects and logs in. `readonly` asks a replica to answer reads. The old protocol says all that is asked here, to
    /// any server.
    pub(super) async fn connect(
        address: &Address,
        login: &Login,
        readonly: bool,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let limit = settings.connect_timeout;
        let connecting = Self::open(address, login, readonly, settings);
        match tokio::time::timeout(limit, connecting).await {
            Ok(link) => link,
            Err(_) => Err(Fault::TimedOut(limit)),
        }
    }

    async fn open(
        address: &Address,
        login: &Login,
        readonly: bool,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let server =
            ServerConfig::Centralized { server: Server::new(address.host.clone(), address.port) };
        let config = Config {
            server,
            username: login.user.clone(),
            password: login.password.clone(),
            database: Some(settings.database).filter(|number| *number != 0),
            #[cfg(feature = "tls")]
            tls: settings.tls.as_ref().map(Tls::for_driver),
            ..Config::default()
        };
        let mut builder = Builder::from_config(config);
        let limit = settings.connect_timeout;
        let connection = ConnectionConfig {
            connection_timeout: limit,
            internal_command_timeout: limit,
            max_command_attempts: 1,
            max_redirections: 1,
            max_command_buffer_len: settings.max_queued,
            reconnect_errors: Vec::new(),
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        };
        builder.set_connection_config(connection);
        // No reconnection policy: the driver's task ends with the connection.
        let client = builder.build().map_err(|error| fault(&error))?;
        let task = client.init().await.map_err(|error| fault(&error))?;
        let abort = task.abort_handle();
        let (born, answered) = (Instant::now(), AtomicU64::new(0));
        let gather = Gather::new(client.clone(), settings.max_queued);
        let link = Self { client, gather, task: Mutex::new(task), abort, born, answered };
        if readonly {
            for answer in link.send(vec![Command::new("READONLY", [])]).await {
                answer?;
            }
        }
        Ok(link)
    }

    /// Sends commands one after another, without waiting in between, and answers for each. On a timeout with no answer
    /// to anybody in all that time the connection is taken for dead, and ended.
    pub(super) async fn exchange(
        &self,
        commands: Vec<Command>,
        limit: Duration,
    ) -> Vec<Result<Reply, Fault>> {
        let (count, sent) = (commands.len(), Instant::now());
        match tokio::time::timeout(limit, self.send(commands)).await {
            Ok(answers) => answers,
            Err(_) => {
                let answered =
                    self.born + Duration::from_millis(self.answered.load(Ordering::Relaxed));
                if answered < sent {
                    self.end();
                }
                vec![Err(Fault::TimedOut(limit)); count]
            }
        }
    }

    async fn send(&self, commands: Vec<Command>) -> Vec<Result<Reply, Fault>> {
        // A permission to ask counts for the very next command of the connection.
        let answers = if commands.iter().any(|command| command.name == "ASKING") {
            self.send_together(commands).await
        } else {
            self.gather.send(commands).await
        };
        if answers.iter().any(|answer| matches!(answer, Ok(_) | Err(Fault::Refused(_)))) {
            let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.answered.fetch_max(now, Ordering::Relaxed);
        }
        answers
    }

    /// With nothing of others in between.
    async fn send_together(&self, commands: Vec<Command>) -> Vec<Result<Reply, Fault>> {
        let count = commands.len();
        let pipeline = self.client.pipeline();
        for Command { name, args } in commands {
            let name = CustomCommand::new_static(name, ClusterHash::Random, false);
            if let Err(error) = pipeline.custom::<(), Bytes>(name, args).await {
                return vec![Err(fault(&error)); count];
            }
        }
        let answers = pipeline.try_all::<Value>().await.into_iter();
        let mut answers: Vec<_> =
            answers.map(|answer| answer.map(reply).map_err(|error| fault(&error))).collect();
        if answers.len() != count {
            // It failed as a whole.
            let error = match answers.pop() {
                Some(Err(fault)) => fault,
                _ => Fault::Broken("the pipeline was answered in part".into()),
            };
            return vec![Err(error); count];
        }
        answers
    }

    /// Ends the connection; what is unanswered fails.
    pub(super) fn end(&self) {
        self.abort.abort();
    }

    /// Returns when the connection has ended. For one caller.
    pub(super) async fn ended(&self) {
        let _ = (&mut *self.task.lock().await).await;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.abort.is_finished()
    }
}

pub(super) fn reply(value: Value) -> Reply {
    match value {
        Value::Integer(number) => Reply::Int(number),
        Value::Boolean(truth) => Reply::Int(i64::from(truth)),
        Value::Bytes(bytes) => Reply::Bytes(bytes),
        Value::String(text) => Reply::Bytes(text.into_inner()),
        Value::Array(values) => Reply::Array(values.into_iter().map(reply).collect()),
        _ => Reply::Nil,
    }
}

/// A server's own words begin with a code in capitals; whatever else fails is the connection.
pub(super) fn fault(error: &fred::error::Error) -> Fault {
    let text = error.details();
    let code = text.split(' ').next().unwrap_or_default();
    let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code { Fault::Refused(text.to_owned()) } else { Fault::Broken(text.to_owned()) }
}

/// The name a server gives a script.
pub(super) fn digest(script: &str) -> Bytes {
    Bytes::from(fred::util::sha1_hash(script))
}

/// Shared by everything that connects.
pub(super) type SharedSettings = Arc<Settings>;
