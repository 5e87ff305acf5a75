//! A connection that is made when it is needed, and made anew when it is gone. Every wait has a deadline.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use lapin::options::{BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};
use resonant_common::error::BoxError;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::error::Fault;
use super::names::Kind;

/// An answer that took longer may be one the broker made up.
const SLOW: Duration = Duration::from_millis(200);

/// How often a slow zero is asked for again.
const SLOW_ZEROES: usize = 4;

/// Asks for user and password.
pub(super) type Ask =
    dyn Fn() -> BoxFuture<'static, Result<(String, String), BoxError>> + Send + Sync;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Reading,
    Publishing,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Reading => "reading",
            Purpose::Publishing => "publishing",
        }
    }

    /// The heartbeat that is agreed on with the broker. It gives up a silent peer after two to three of them: half of what
    /// was asked for where somebody waits for that, so that a frozen owner is given up within two.
    fn heartbeat(self, seconds: u16) -> u16 {
        match self {
            Purpose::Reading => seconds.div_ceil(2),
            Purpose::Publishing => seconds,
        }
    }
}

/// Where the broker is and how long to wait for it.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) addresses: Vec<AMQPUri>,
    pub(super) ca: Option<String>,
    /// Asked for each new connection.
    pub(super) credentials: Option<Arc<Ask>>,
    /// In seconds.
    pub(super) heartbeat: u16,
    pub(super) connect_timeout: Duration,
    pub(super) answer_timeout: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) create_queues: bool,
    pub(super) creation_wait: Duration,
}

impl fmt::Debug for Settings {
    /// Hosts and ports; never a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.addresses.iter().map(place).collect();
        f.debug_struct("Settings").field("addresses", &places).finish_non_exhaustive()
    }
}

/// An address without user and password.
pub(super) fn place(uri: &AMQPUri) -> String {
    format!("{}:{}/{}", uri.authority.host, uri.authority.port, uri.vhost)
}

/// One connection to the broker, for one purpose: one that publishes is blocked by the broker when memory runs out, and
/// then not even acknowledgements go out on it.
pub(super) struct Link {
    settings: Arc<Settings>,
    purpose: Purpose,
    /// No wait holds it.
    current: std::sync::Mutex<Option<Arc<Connection>>>,
    /// One makes it, the others wait for that.
    making: Mutex<()>,
    /// Which address is tried first.
    next: AtomicUsize,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(settings: Arc<Settings>, purpose: Purpose) -> Self {
        let next = AtomicUsize::new(0);
        Self {
            settings,
            purpose,
            current: std::sync::Mutex::default(),
            making: Mutex::new(()),
            next,
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> Option<Arc<Connection>> {
        self.current().clone().filter(|connection| connection.status().connected())
    }

    /// The connection, made now if there is none.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, Fault> {
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        let _alone = self.making.lock().await;
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        self.reset();
        let connection = Arc::new(self.connect().await?);
        *self.current() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let addresses = &self.settings.addresses;
        let first = self.next.load(Ordering::Relaxed);
        let mut why = String::from("no address was given");
        for step in 0..addresses.len() {
            let index = (first + step) % addresses.len();
            let mut connected = self.connect_to(&addresses[index]).await;
            // What was refused may just have been changed.
            if self.settings.credentials.is_some()
                && connected.as_ref().is_err_and(Fault::is_access_refused)
            {
                connected = self.connect_to(&addresses[index]).await;
            }
            match connected {
                Ok(connection) => {
                    self.next.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(fault) if addresses.len() == 1 => return Err(fault),
                Err(fault) => why = format!("{}: {fault}", place(&addresses[index])),
            }
        }
        self.next.store(first.wrapping_add(1), Ordering::Relaxed);
        Err(Fault::Unreachable(why))
    }

    async fn connect_to(&self, address: &AMQPUri) -> Result<Connection, Fault> {
        let mut address = address.clone();
        address.query.heartbeat = Some(self.purpose.heartbeat(self.settings.heartbeat));
        let name = format!("resonant-queue {} {}", self.purpose.name(), std::process::id());
        let properties = ConnectionProperties::default().with_connection_name(name.as_str().into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.settings.ca.clone() };
        let runtime = lapin::runtime::default_runtime().map_err(|error| {
            Fault::Unreachable(format!("there is no tokio runtime here: {error}"))
        })?;
        let connecting = async {
            if let Some(ask) = &self.settings.credentials {
                let (username, password) = ask().await.map_err(|error| {
                    Fault::Unreachable(format!("there are no credentials: {error}"))
                })?;
                address.authority.userinfo = AMQPUserInfo { username, password };
            }
            let connecting = Connection::connect_uri_with_config(address, properties, tls, runtime);
            Ok(connecting.await?)
        };
        let late = || Fault::Late("connecting");
        timeout(self.settings.connect_timeout, connecting).await.map_err(|_| late())?
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel, Fault> {
        self.channel_of().await.map(|(channel, _)| channel)
    }

    /// A new channel and the connection it is on.
    async fn channel_of(&self) -> Result<(Channel, Arc<Connection>), Fault> {
        let connection = self.connection().await?;
        match timeout(self.settings.answer_timeout, connection.create_channel()).await {
            Ok(Ok(channel)) => Ok((channel, connection)),
            Ok(Err(error)) => {
                self.forget(&connection);
                Err(error.into())
            }
            Err(_) => {
                self.forget(&connection);
                Err(Fault::Late("opening a channel"))
            }
        }
    }

    /// A new channel with publisher confirms, and the connection it is on.
    pub(super) async fn confirming(&self) -> Result<(Channel, Arc<Connection>), Fault> {
        let (channel, connection) = self.channel_of().await?;
        self.answer("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default()))
            .await?;
        Ok((channel, connection))
    }

    /// A new channel for consumers of so many messages each.
    pub(super) async fn consuming(&self, prefetch: u16) -> Result<Channel, Fault> {
        let channel = self.channel().await?;
        self.answer(
            "setting the prefetch",
            channel.basic_qos(prefetch, BasicQosOptions::default()),
        )
        .await?;
        Ok(channel)
    }

    /// Drops a connection that hangs, so that the next caller makes a new one.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let forgotten = self.current().take_if(|current| Arc::ptr_eq(current, connection));
        drop(forgotten);
    }

    /// Whether this is the connection in use.
    pub(super) fn is_current(&self, connection: &Arc<Connection>) -> bool {
        self.current().as_ref().is_some_and(|current| Arc::ptr_eq(current, connection))
    }

    /// Drops the connection, whichever it is.
    fn reset(&self) {
        let forgotten = self.current().take();
        drop(forgotten);
    }

    /// Closes the connection in order.
    pub(super) async fn close(&self) {
        let connection = self.current().take();
        let Some(connection) = connection else { return };
        let _ = timeout(Duration::from_secs(2), connection.close(200, "closed".into())).await;
    }

    /// Whether the broker has told this connection to publish nothing.
    pub(super) fn blocked(&self) -> bool {
        self.current().as_ref().is_some_and(|connection| connection.status().blocked())
    }

    /// Waits for the broker's answer, but not for ever.
    pub(super) async fn answer<T>(
        &self,
        what: &'static str,
        asked: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Fault> {
        match timeout(self.settings.answer_timeout, asked).await {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => {
                self.reset();
                Err(Fault::Late(what))
            }
        }
    }

    /// Makes a queue, or finds it made the same way; returns how many messages are ready in it. Not for queues that are
    /// known to exist: a node that is starting may not have found them yet.
    pub(super) async fn declare(
        &self,
        channel: &Channel,
        queue: ShortString,
        kind: &Kind,
    ) -> Result<u64, Fault> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.ask(channel, queue, options, kind.arguments()).await
    }

    /// How many messages are ready in a queue. One that is missing closes the channel.
    pub(super) async fn count(&self, channel: &Channel, queue: ShortString) -> Result<u64, Fault> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.ask(channel, queue, options, FieldTable::default()).await
    }

    /// A quorum queue that does not answer the broker's own question within a quarter of a second is reported as empty: a
    /// slow zero is not believed.
    async fn ask(
        &self,
        channel: &Channel,
        queue: ShortString,
        options: QueueDeclareOptions,
        arguments: FieldTable,
    ) -> Result<u64, Fault> {
        let mut count = 0;
        for _ in 0..SLOW_ZEROES {
            let asked = Instant::now();
            let declared = channel.queue_declare(queue.clone(), options, arguments.clone());
            let declared = self.answer("asking for a queue", declared).await?;
            count = u64::from(declared.message_count());
            if count > 0 || asked.elapsed() < SLOW {
                break;
            }
        }
        Ok(count)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}
