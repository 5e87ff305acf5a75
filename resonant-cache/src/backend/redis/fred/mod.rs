//! The driver fred: for each connection a client of one server, without a reconnection policy.
//!
//! Used so, it transports commands and does nothing else, as the [seam](super::driver) wants it; slots, redirections, deadlines,
//! reconnection and scripts are the store's own. What it would do by itself is held in `tests/it/servers/traps.rs`, one test
//! each. What is left of it here:
//!
//! - A client outlives its handle, and one that ended takes commands that nobody will ever answer. So a task of ours owns it,
//!   and everybody who waits waits for the client's end as well.
//! - What it was given it sends, however late. So a connection that is given up is aborted, and is over only when the socket is
//!   gone: reset, with nothing of it left in the kernel.
//! - It ends a connection at a `CLUSTERDOWN`, and says so to everybody who waits on it, whoever was refused. So that is no
//!   refusal but a [broken](Fault::Broken) connection, and the next one is made after a moment.
//! - It keeps no order between pipelines and single commands of others, except within a pipeline. So what asks goes in one.
//! - Its answers are slices of what it read. So they are copied, or a small value would hold a large buffer.

mod answer;
mod owed;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::fred::clients::Client;
use ::fred::interfaces::{ClientLike as _, EventInterface as _};
use ::fred::types::config::{Config, ConnectionConfig, ServerConfig, TcpConfig};
use ::fred::types::{Builder, ClusterHash, CustomCommand, Value};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::owed::{Owed, Waiting};
use super::driver::{Answer, Fault, Settings, Signs, all};
use super::resp::Command;
use super::target::{Address, Login};

/// Before a connection is made in the place of one that ended at a `CLUSTERDOWN`; otherwise each command would cost one.
const REST: Duration = Duration::from_millis(100);

/// A connection.
pub(super) struct Link {
    client: Client,
    owed: Arc<Owed>,
    end: Arc<End>,
    _stop: DropGuard,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// How a client ends.
#[derive(Debug, Default)]
struct End {
    /// It is to end.
    stop: CancellationToken,
    /// It has ended, and its socket is gone.
    over: CancellationToken,
    /// Another may be made.
    rested: CancellationToken,
    why: OnceLock<Fault>,
}

impl End {
    /// Runs a client until it ends or is to end.
    async fn drive(self: Arc<Self>, client: Client) {
        let mut task = client.connect();
        let error = tokio::select! {
            end = &mut task => end.ok().and_then(Result::err),
            () = self.stop.cancelled() => {
                task.abort();
                let _ = task.await;
                None
            }
        };
        if let Some(error) = &error {
            let _ = self.why.set(answer::fault(error));
        }
        self.over.cancel();
        if error.is_some_and(|error| error.is_cluster()) {
            let _ = tokio::time::timeout(REST, self.stop.cancelled()).await;
        }
        self.rested.cancel();
    }

    /// Why it could not connect.
    fn fault(&self) -> Fault {
        self.why.get().cloned().unwrap_or_else(|| Fault::Broken("it was ended".to_owned()))
    }
}

impl Link {
    /// Connects and logs in.
    pub(super) async fn open(
        address: &Address,
        login: &Login,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let client = client(address, login, settings).map_err(|error| answer::fault(&error))?;
        let mut connected = client.reconnect_rx();
        let end = Arc::new(End::default());
        let stop = end.stop.clone().drop_guard();
        tokio::spawn(Arc::clone(&end).drive(client.clone()));
        tokio::select! {
            biased;
            () = end.over.cancelled() => return Err(end.fault()),
            _ = connected.recv() => {}
        }
        Ok(Self { client, owed: Owed::new(end.over.clone()), end, _stop: stop })
    }

    /// Sends commands, and answers for each.
    pub(super) async fn send(&self, commands: &[&Command]) -> Vec<Answer> {
        let count = commands.len();
        if self.is_ended() {
            return all(count, Fault::Down("the connection has ended".into()));
        }
        let answering = async {
            match commands {
                [one] => vec![self.one(one).await],
                many if many.iter().any(|command| command.name == "ASKING") => self.run(many).await,
                // Each for itself: what was answered before a connection broke is an answer, and a sign of life.
                many => {
                    futures::future::join_all(many.iter().map(|command| self.one(command))).await
                }
            }
        };
        tokio::select! {
            biased;
            answers = answering => answers,
            () = self.end.over.cancelled() => all(count, Fault::Broken("the connection has ended".into())),
        }
    }

    async fn one(&self, command: &Command) -> Answer {
        let (name, args) = words(command);
        let waiting = Waiting::begin(&self.owed, &self.client, 1);
        let answer = self.client.custom_raw(name, args).await;
        waiting.answered();
        match answer {
            Ok(frame) => {
                self.owed.signs.heard();
                answer::of_frame(frame)
            }
            // What the server refuses is a frame, so this is the driver's own.
            Err(error) => Err(Fault::Broken(error.details().to_owned())),
        }
    }

    /// With nothing of others in between.
    async fn run(&self, commands: &[&Command]) -> Vec<Answer> {
        let pipeline = self.client.pipeline();
        for command in commands {
            let (name, args) = words(command);
            // Gathered only; it answers at once.
            let _: Result<Value, _> = pipeline.custom(name, args).await;
        }
        let waiting = Waiting::begin(&self.owed, &self.client, commands.len());
        let mut answers = pipeline.try_all::<Value>().await;
        waiting.answered();
        if answers.len() == commands.len() {
            self.owed.signs.heard();
            return answers.into_iter().map(answer::of_value).collect();
        }
        let why = answers.pop().and_then(Result::err);
        let why = why.map_or_else(String::new, |error| error.details().to_owned());
        all(commands.len(), Fault::Broken(why))
    }

    pub(super) fn signs(&self) -> &Signs {
        &self.owed.signs
    }

    pub(super) fn end(&self) {
        self.end.stop.cancel();
    }

    pub(super) async fn ended(&self) {
        self.end.rested.cancelled().await;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.end.stop.is_cancelled() || self.end.over.is_cancelled()
    }
}

fn words(command: &Command) -> (CustomCommand, Vec<Value>) {
    let name = CustomCommand::new_static(command.name, ClusterHash::Random, false);
    (name, command.args.iter().map(|arg| Value::Bytes(arg.clone())).collect())
}

/// A client that is not connected yet. It never connects twice: it has no policy of reconnection.
fn client(
    address: &Address,
    login: &Login,
    settings: &Settings,
) -> Result<Client, ::fred::error::Error> {
    let config = Config {
        server: ServerConfig::new_centralized(address.host.as_str(), address.port),
        username: login.user.clone().filter(|_| login.password.is_some()),
        password: login.password.clone(),
        #[cfg(feature = "tls")]
        tls: settings.tls.as_ref().map(|tls| tls.connector().into()),
        ..Config::default()
    };
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection: &mut ConnectionConfig| {
        connection.connection_timeout = settings.connect_timeout;
        connection.internal_command_timeout = settings.connect_timeout;
        connection.max_command_attempts = 1;
        // Refusals are the store's to judge.
        connection.reconnect_errors = Vec::new();
        connection.tcp =
            TcpConfig { nodelay: Some(true), linger: Some(Duration::ZERO), ..TcpConfig::default() };
    });
    builder.build()
}
