//! The seam: one connection to one server. Behind it are `conn`, `resp` and `wire`; nothing else of the store reads or writes.
//!
//! It connects, logs in, pipelines what many tasks send, and says when it is over. It does nothing else: no topology, no
//! redirection, no retry, no reconnection. A link that breaks is over, its unanswered commands fail at once, and a new one is
//! made. The seam is as narrow as that so that another driver could serve. One did: fred, as a client of one connection. Its
//! commands went through two more tasks each, and reads came to some six tenths of what fred's own clustered client reaches;
//! they are above it now. That client is no alternative in a cache (`tests/it/servers/traps.rs` holds the findings as tests):
//! while it reconnects to one dead server all others wait; a server that hangs under traffic is never noticed; what timed out
//! may still be sent later.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::conn::{Conn, Request};
use super::resp::{Batch, Command};
use super::target::{Address, Login, Targets};
use super::tls::Tls;
use super::wire;

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

/// One command's end.
pub(super) type Answer = Result<Reply, Fault>;

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) connect_timeout: Duration,
    /// How long a server may owe an answer and say nothing at all before its connection is taken for dead.
    pub(super) silence: Duration,
    pub(super) database: u8,
    pub(super) tls: Option<Tls>,
    /// Commands that may be on their way.
    pub(super) max_queued: usize,
}

/// Shared by everything that connects.
pub(super) type SharedSettings = Arc<Settings>;

/// What is known of a connection while it lives, and why it ended.
#[derive(Debug)]
pub(super) struct Signs {
    born: Instant,
    /// Microseconds after `born` since which the server owes an answer and has said nothing.
    silent: AtomicU64,
    end: Mutex<Option<String>>,
}

impl Signs {
    /// The server said something, or begins to owe an answer.
    pub(super) fn heard(&self) {
        let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.silent.store(now, Ordering::Relaxed);
    }

    pub(super) fn broke(&self, error: &io::Error) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }

    /// For how long the server has said nothing, while somebody waits.
    fn silence(&self) -> Duration {
        let since = Duration::from_micros(self.silent.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(since)
    }

    fn fault(&self) -> Fault {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        Fault::Broken(end.clone().unwrap_or_else(|| "it was ended".to_owned()))
    }
}

/// A connection.
pub(super) struct Link {
    queue: mpsc::Sender<Request>,
    on_their_way: AtomicUsize,
    most: usize,
    silence: Duration,
    signs: Arc<Signs>,
    task: tokio::sync::Mutex<JoinHandle<()>>,
    abort: tokio::task::AbortHandle,
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
    /// Connects and logs in. `readonly` asks a replica to answer reads.
    pub(super) async fn connect(
        address: &Address,
        targets: &Targets,
        readonly: bool,
        settings: &Settings,
    ) -> Result<Self, Fault> {
        let limit = settings.connect_timeout;
        let connecting = async {
            let login = async || {
                let login = targets.login(address).await;
                login.map_err(|error| Fault::Down(format!("there are no credentials: {error}")))
            };
            let first = login().await?;
            let refused = match Self::open(address, &first, readonly, settings).await {
                Err(fault) if fault.code() == "WRONGPASS" && targets.provider.is_some() => fault,
                end => return end,
            };
            // They may have been changed in between.
            let second = login().await?;
            if second == first {
                return Err(refused);
            }
            Self::open(address, &second, readonly, settings).await
        };
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
        let stream = wire::open(address, settings).await;
        let stream = stream.map_err(|error| Fault::Broken(error.to_string()))?;
        let (queue, queued) = mpsc::channel(settings.max_queued);
        let (silent, end) = (AtomicU64::new(0), Mutex::default());
        let signs = Arc::new(Signs { born: Instant::now(), silent, end });
        let task = tokio::spawn(Conn::new(stream, queued, Arc::clone(&signs)).run());
        let link = Self {
            queue,
            on_their_way: AtomicUsize::new(0),
            most: settings.max_queued,
            // A replica is given up sooner: there are others to ask.
            silence: if readonly { settings.silence / 5 } else { settings.silence },
            signs,
            abort: task.abort_handle(),
            task: tokio::sync::Mutex::new(task),
        };
        let mut greeting = Batch::default();
        if let Some(password) = &login.password {
            let words = login.user.iter().chain([password]);
            greeting.push(&Command::new("AUTH", words.cloned().map(Bytes::from)));
        }
        let chosen = (settings.database != 0).then_some(greeting.count);
        if settings.database != 0 {
            let number = Bytes::from(settings.database.to_string());
            greeting.push(&Command::new("SELECT", [number]));
        }
        if readonly {
            greeting.push(&Command::new("READONLY", []));
        }
        // Nobody logs in unseen: who is refused fails here, and not at the first command.
        greeting.push(&Command::new("PING", []));
        for (place, answer) in link.send(greeting).await.into_iter().enumerate() {
            match answer {
                // Who may not say PING may still do what he is here for, but not in another database than he was told.
                Ok(_) => {}
                Err(fault) if fault.code() == "NOPERM" && chosen != Some(place) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(link)
    }

    /// Sends commands one after another, without waiting in between, and answers for each. A timeout ends the connection if
    /// the server has owed an answer for long and said nothing to anybody; a caller with little time left proves nothing.
    pub(super) async fn exchange(&self, batch: Batch, limit: Duration) -> Vec<Answer> {
        let count = batch.count;
        match tokio::time::timeout(limit, self.send(batch)).await {
            Ok(answers) => answers,
            Err(_) => {
                if self.signs.silence() >= self.silence {
                    self.end();
                }
                vec![Err(Fault::TimedOut(limit)); count]
            }
        }
    }

    async fn send(&self, batch: Batch) -> Vec<Answer> {
        let count = batch.count;
        if count == 0 {
            return Vec::new();
        }
        let before = self.on_their_way.fetch_add(count, Ordering::Relaxed);
        let _leave = Leave { counter: &self.on_their_way, count };
        let (answers, answered) = oneshot::channel();
        let full = before > 0 && before + count > self.most;
        let sent = if full {
            Err("too many commands wait for the server")
        } else {
            self.queue.try_send(Request { batch, answers }).map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => "too many commands wait for the server",
                mpsc::error::TrySendError::Closed(_) => "the connection has ended",
            })
        };
        match sent {
            Err(why) => vec![Err(Fault::Down(why.into())); count],
            Ok(()) => answered.await.unwrap_or_else(|_| vec![Err(self.signs.fault()); count]),
        }
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

struct Leave<'a> {
    counter: &'a AtomicUsize,
    count: usize,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn connect(address: &Address, silence: Duration) -> Link {
        let Ok(targets) = Targets::parse(&[format!("redis://{address}")], false) else {
            panic!("it is a node's URL")
        };
        let connect_timeout = Duration::from_secs(10);
        let settings =
            Settings { connect_timeout, silence, database: 0, tls: None, max_queued: 4096 };
        match Link::connect(address, &targets, false, &settings).await {
            Ok(link) => link,
            Err(fault) => panic!("the server greets: {fault:?}"),
        }
    }

    /// A server that greets, and then answers each read when it is told to.
    async fn slow_server() -> io::Result<(Address, mpsc::Sender<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (go, mut may) = mpsc::channel::<()>(1);
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await?;
            let mut room = [0u8; 1024];
            let _ = socket.read(&mut room).await?;
            socket.write_all(b"+PONG\r\n").await?;
            while may.recv().await.is_some() {
                socket.write_all(b"+OK\r\n").await?;
            }
            Ok::<_, io::Error>(())
        });
        Ok((Address { host: "127.0.0.1".into(), port }, go))
    }

    fn ping() -> Batch {
        Batch::of([&Command::new("PING", [])])
    }

    #[tokio::test]
    async fn a_caller_with_little_time_left_ends_nobodys_connection() -> io::Result<()> {
        let (address, go) = slow_server().await?;
        let link = connect(&address, Duration::from_secs(60)).await;
        let patient = async {
            let answers = link.exchange(ping(), Duration::from_secs(30)).await;
            assert!(matches!(answers[..], [Ok(_)]), "{answers:?}");
        };
        let hurried = async {
            for _ in 0..10 {
                let answers = link.exchange(ping(), Duration::from_millis(1)).await;
                assert!(matches!(answers[..], [Err(Fault::TimedOut(_))]), "{answers:?}");
                assert!(!link.is_ended());
            }
            let _ = go.send(()).await;
        };
        tokio::join!(patient, hurried);
        Ok(())
    }

    #[tokio::test]
    async fn a_server_that_owes_answers_for_long_is_given_up_even_by_short_callers()
    -> io::Result<()> {
        let (address, _go) = slow_server().await?;
        let link = connect(&address, Duration::from_millis(50)).await;
        let begun = Instant::now();
        while !link.is_ended() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is never given up");
            let _ = link.exchange(ping(), Duration::from_millis(2)).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
        Ok(())
    }
}
