//! A server that does what a test tells it, for tests of pools and of what is built on them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::manager::{Manager, Verdict};
use super::shared::lock;
use crate::{Error, ErrorKind, Result};

/// A [`Manager`] whose server exists only as a script. Clones control the same server, so keep one and give the pool
/// the other.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> resonant_db::Result<()> {
/// use resonant_db::pool::testing::{Answer, Scripted};
/// use resonant_db::pool::{ConnectionPool, PoolConfig};
///
/// let server = Scripted::new();
/// server.on_connect(Answer::Refuse(resonant_db::ErrorKind::Rejected));
/// let pool = ConnectionPool::new("main", server.clone(), PoolConfig::default())?;
/// assert_eq!(pool.get().await.err().map(|error| error.kind()), Some(resonant_db::ErrorKind::Rejected));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Scripted {
    server: Arc<Server>,
}

/// How the scripted server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// It does what it is asked.
    #[default]
    Work,
    /// It does what it is asked, after a while.
    WorkAfter(Duration),
    /// It fails with an error of the kind.
    Refuse(ErrorKind),
    /// It never answers: every byte is swallowed.
    Hang,
    /// The driver panics.
    Panic,
}

impl Answer {
    async fn give(self, operation: &'static str) -> Result<()> {
        match self {
            Answer::Work => Ok(()),
            Answer::WorkAfter(wait) => {
                sleep(wait).await;
                Ok(())
            }
            Answer::Refuse(kind) => Err(Error::new(kind, operation, "the scripted server refuses")),
            Answer::Hang => std::future::pending().await,
            Answer::Panic => {
                #[expect(clippy::panic, reason = "the script asks for it")]
                {
                    panic!("the scripted driver panics")
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Server {
    script: Mutex<Script>,
    connects: AtomicU64,
    opened: AtomicU64,
    connecting: AtomicU64,
    most_connecting: AtomicU64,
    checks: AtomicU64,
    cleans: AtomicU64,
    closes: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
    /// Connections up to this number have been cut off.
    cut: AtomicU64,
}

#[derive(Debug, Default)]
struct Script {
    connect: Answer,
    check: Answer,
    clean: Answer,
    close: Answer,
    cut_is_seen: bool,
}

/// What the scripted server has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connects begun.
    pub connects: u64,
    /// Connects that succeeded.
    pub opened: u64,
    /// The most connects under way at once.
    pub most_connecting: u64,
    /// Checks begun.
    pub checks: u64,
    /// Cleanings begun.
    pub cleans: u64,
    /// Goodbyes begun.
    pub closes: u64,
    /// Connections that exist on the client.
    pub open: u64,
    /// The most connections that existed at once.
    pub most_open: u64,
}

impl Scripted {
    /// A server that works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how connects are answered from now on.
    pub fn on_connect(&self, answer: Answer) {
        lock(&self.server.script).connect = answer;
    }

    /// Sets how checks are answered from now on.
    pub fn on_check(&self, answer: Answer) {
        lock(&self.server.script).check = answer;
    }

    /// Sets how cleaning is answered from now on; a refusal means that the connection cannot be cleaned.
    pub fn on_clean(&self, answer: Answer) {
        lock(&self.server.script).clean = answer;
    }

    /// Sets how goodbyes are answered from now on.
    pub fn on_close(&self, answer: Answer) {
        lock(&self.server.script).close = answer;
    }

    /// Cuts off all connections opened so far. If `seen`, a free look shows it, as when the other side said goodbye;
    /// otherwise only a check does, as when a cable was pulled.
    pub fn cut(&self, seen: bool) {
        self.server.cut.store(self.server.opened.load(Relaxed), Relaxed);
        lock(&self.server.script).cut_is_seen = seen;
    }

    /// What the server has seen so far.
    pub fn counts(&self) -> Counts {
        let server = &self.server;
        Counts {
            connects: server.connects.load(Relaxed),
            opened: server.opened.load(Relaxed),
            most_connecting: server.most_connecting.load(Relaxed),
            checks: server.checks.load(Relaxed),
            cleans: server.cleans.load(Relaxed),
            closes: server.closes.load(Relaxed),
            open: server.open.load(Relaxed),
            most_open: server.most_open.load(Relaxed),
        }
    }

    fn script<T>(&self, read: impl FnOnce(&Script) -> T) -> T {
        read(&lock(&self.server.script))
    }
}

/// A connection to the scripted server.
#[derive(Debug)]
pub struct ScriptedConnection {
    /// The how-manieth connection of its server it is, from 1.
    pub number: u64,
    /// Set it to have the connection cleaned when it comes back.
    pub dirty: bool,
    /// Set it to have the connection closed when it comes back.
    pub broken: bool,
    server: Arc<Server>,
}

impl ScriptedConnection {
    /// Whether the server has cut it off.
    pub fn is_cut(&self) -> bool {
        self.number <= self.server.cut.load(Relaxed)
    }
}

impl Drop for ScriptedConnection {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Relaxed);
    }
}

/// Counts a connect as under way until it ends or is dropped.
struct UnderWay<'a>(&'a AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Manager for Scripted {
    type Connection = ScriptedConnection;

    async fn connect(&self) -> Result<ScriptedConnection> {
        let server = &self.server;
        server.connects.fetch_add(1, Relaxed);
        let connecting = server.connecting.fetch_add(1, Relaxed) + 1;
        server.most_connecting.fetch_max(connecting, Relaxed);
        let _under_way = UnderWay(&server.connecting);
        self.script(|script| script.connect).give("connect").await?;
        let open = server.open.fetch_add(1, Relaxed) + 1;
        server.most_open.fetch_max(open, Relaxed);
        let number = server.opened.fetch_add(1, Relaxed) + 1;
        Ok(ScriptedConnection { number, dirty: false, broken: false, server: Arc::clone(server) })
    }

    async fn check(&self, connection: &mut ScriptedConnection) -> Result<()> {
        self.server.checks.fetch_add(1, Relaxed);
        self.script(|script| script.check).give("check").await?;
        if connection.is_cut() {
            return Err(Error::new(ErrorKind::Unavailable, "check", "the connection was cut"));
        }
        Ok(())
    }

    fn verdict(&self, connection: &mut ScriptedConnection) -> Verdict {
        let cut = connection.is_cut() && self.script(|script| script.cut_is_seen);
        match connection {
            ScriptedConnection { broken: true, .. } => Verdict::Discard,
            _ if cut => Verdict::Discard,
            ScriptedConnection { dirty: true, .. } => Verdict::Clean,
            _ => Verdict::Reuse,
        }
    }

    async fn clean(&self, mut connection: ScriptedConnection) -> Option<ScriptedConnection> {
        self.server.cleans.fetch_add(1, Relaxed);
        self.script(|script| script.clean).give("clean").await.ok()?;
        connection.dirty = false;
        Some(connection)
    }

    async fn close(&self, connection: ScriptedConnection) {
        self.server.closes.fetch_add(1, Relaxed);
        let _ = self.script(|script| script.close).give("close").await;
        drop(connection);
    }
}
