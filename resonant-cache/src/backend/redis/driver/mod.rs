//! The seam: one connection to one server, whoever drives it. What is above it knows of no driver; what is below it knows of
//! no cache.
//!
//! A driver brings four things: it opens a connection, sends commands on it, ends it, and says when it has ended. All that is
//! a matter of judgement (who logs in, how many may wait, for how long, and when a server is taken for dead) is decided here,
//! once.

mod signs;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

pub(super) use self::signs::Signs;
use super::link;
use super::resp::Command;
use super::target::{Address, Login, Targets};
use super::tls::Tls;
use crate::config::RedisDriver;

/// For how long an answer that lies unread is looked for, before a server is taken for dead.
const LAST_LOOK: Duration = Duration::from_millis(25);

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
    pub(super) driver: RedisDriver,
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

/// A connection to one server, logged in.
///
/// # Contract
///
/// 1. **One connection.** No topology, no redirection, no retry, no reconnection: a connection that breaks is over, and
///    another is made with [`connect`](Link::connect). Redirections and refusals come back as the server's own words
///    ([`Fault::Refused`]).
/// 2. **In order.** The commands of one [`exchange`](Link::exchange) are carried out in their order, and what follows an
///    `ASKING` follows it with nothing of others in between. There is an answer for each, in the same order.
/// 3. **Pipelined.** Any number of callers exchange at a time; none waits for another's answer before its commands are sent.
/// 4. **Honest ends.** [`Fault::Refused`] and [`Fault::Down`] only for what was certainly not carried out; where that is not
///    known, [`Fault::Broken`] or [`Fault::TimedOut`].
/// 5. **Deadlines.** Every exchange ends within its limit. A server that owed an answer for `silence` and said nothing to
///    anybody is taken for dead then: the connection is [ended](Link::end), so that nobody waits for it again. What a driver
///    notes in its [`Signs`] decides that.
/// 6. **No afterlife.** Once [`ended`](Link::ended) has returned, nothing that was given to the connection reaches the server
///    any more: what the next one sends comes after it. Dropping a link ends it.
/// 7. **Bounded.** At most `max_queued` commands are on their way, unless one exchange alone has more; further ones fail at
///    once, as [`Fault::Down`]. One that its caller has left is on its way until it is answered.
/// 8. **Nothing borrowed.** The bytes of an answer are as long as they say and hold no larger buffer.
///
/// Announcements are no part of it: each primary has an [ear](super::ear), on a connection that is always our own, because
/// none may be lost, merged or reordered there.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    most: usize,
    silence: Duration,
    given_up: AtomicBool,
}

/// A connection by one of the drivers.
#[derive(Debug)]
enum Wire {
    Native(link::Link),
    #[cfg(feature = "fred")]
    Fred(super::fred::Link),
}

/// The same of whichever driver it is.
macro_rules! either {
    ($wire:expr, $link:ident => $what:expr) => {
        match $wire {
            Wire::Native($link) => $what,
            #[cfg(feature = "fred")]
            Wire::Fred($link) => $what,
        }
    };
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
        let wire = match settings.driver {
            RedisDriver::Native => Wire::Native(link::Link::open(address, settings).await?),
            #[cfg(feature = "fred")]
            RedisDriver::Fred => {
                Wire::Fred(super::fred::Link::open(address, login, settings).await?)
            }
            #[cfg(not(feature = "fred"))]
            RedisDriver::Fred => return Err(Fault::Down("fred is not compiled in".into())),
        };
        let link = Self {
            wire,
            most: settings.max_queued,
            // A replica is given up sooner: there are others to ask.
            silence: if readonly { settings.silence / 5 } else { settings.silence },
            given_up: AtomicBool::new(false),
        };
        link.greet(login, readonly, settings).await?;
        Ok(link)
    }

    /// Logs in, unless the driver did, and chooses what is spoken to.
    async fn greet(&self, login: &Login, readonly: bool, settings: &Settings) -> Result<(), Fault> {
        let mut greeting = Vec::new();
        if let (Some(password), Wire::Native(_)) = (&login.password, &self.wire) {
            let words = login.user.iter().chain([password]);
            greeting.push(Command::new("AUTH", words.cloned().map(Bytes::from)));
        }
        let chosen = (settings.database != 0).then_some(greeting.len());
        if settings.database != 0 {
            let number = Bytes::from(settings.database.to_string());
            greeting.push(Command::new("SELECT", [number]));
        }
        if readonly {
            greeting.push(Command::new("READONLY", []));
        }
        // Nobody logs in unseen: who is refused fails here, and not at the first command.
        greeting.push(Command::new("PING", []));
        let greeting: Vec<_> = greeting.iter().collect();
        let answers = self.send(&greeting).await;
        for (place, answer) in answers.into_iter().enumerate() {
            match answer {
                // Who may not say PING may still do what he is here for, but not in another database than he was told.
                Ok(_) => {}
                Err(fault) if fault.code() == "NOPERM" && chosen != Some(place) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Sends commands one after another, without waiting in between, and answers for each. A timeout ends the connection if
    /// the server has owed an answer for long and said nothing to anybody; a caller with little time left proves nothing.
    pub(super) async fn exchange(&self, commands: &[&Command], limit: Duration) -> Vec<Answer> {
        let mut answers = pin!(self.send(commands));
        if let Ok(answers) = tokio::time::timeout(limit, &mut answers).await {
            return answers;
        }
        if self.is_silent() {
            // Where the whole process stood still the answer lies there unread: it has its turn before the server is judged.
            if let Ok(answers) = tokio::time::timeout(LAST_LOOK, answers).await {
                return answers;
            }
            if self.is_silent() {
                self.give_up();
            }
        }
        all(commands.len(), Fault::TimedOut(limit))
    }

    fn signs(&self) -> &Signs {
        either!(&self.wire, link => link.signs())
    }

    /// Whether the server has owed an answer for long and said nothing.
    fn is_silent(&self) -> bool {
        self.signs().silence() >= self.silence
    }

    async fn send(&self, commands: &[&Command]) -> Vec<Answer> {
        let count = commands.len();
        if count == 0 {
            return Vec::new();
        }
        let before = self.signs().owed();
        if before > 0 && before + count > self.most {
            // Who is refused never comes to wait in vain, and would never notice.
            if self.is_silent() {
                self.give_up();
            }
            return all(count, Fault::Down("too many commands wait for the server".into()));
        }
        either!(&self.wire, link => link.send(commands).await)
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.end();
    }

    /// Whether it was ended because the server was taken for dead.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Ends the connection; what is unanswered fails.
    pub(super) fn end(&self) {
        either!(&self.wire, link => link.end());
    }

    /// Returns when the connection has ended, and another may be made. For one caller.
    pub(super) async fn ended(&self) {
        either!(&self.wire, link => link.ended().await);
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_ended(&self) -> bool {
        either!(&self.wire, link => link.is_ended())
    }
}

/// The same for each of so many commands.
pub(super) fn all(count: usize, fault: Fault) -> Vec<Answer> {
    vec![Err(fault); count]
}
