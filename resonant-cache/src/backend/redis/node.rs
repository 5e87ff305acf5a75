//! A server: a link that is made anew when it breaks, and what to tell callers while there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resonant_common::backoff::Backoff;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::driver::{Answer, Fault, Link, SharedSettings};
use super::resp::Command;
use super::target::{Address, Targets};

const RECONNECT: Backoff =
    Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1), factor: 2.0 };

/// Dropping it ends its connection.
#[derive(Debug)]
pub(super) struct Node {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    targets: Arc<Targets>,
    readonly: bool,
    settings: SharedSettings,
    state: watch::Sender<State>,
    kick: Notify,
    hurry: Notify,
    /// Whether it seemed to hang, and nobody has connected to it since.
    suspect: AtomicBool,
    /// Told when the link breaks or cannot be made.
    trouble: Arc<Notify>,
}

#[derive(Debug, Clone)]
enum State {
    /// The first attempt, or the first since it broke: callers wait for its end.
    Connecting,
    Up(Arc<Link>),
    /// An attempt failed, more are made: callers fail at once.
    Down(Arc<str>),
}

impl Node {
    pub(super) fn start(
        address: Address,
        targets: Arc<Targets>,
        readonly: bool,
        settings: SharedSettings,
        trouble: Arc<Notify>,
    ) -> Self {
        let state = watch::Sender::new(State::Connecting);
        let (kick, hurry) = (Notify::new(), Notify::new());
        let suspect = AtomicBool::new(false);
        let shared =
            Shared { address, targets, readonly, settings, state, kick, hurry, suspect, trouble };
        let shared = Arc::new(shared);
        let stop = CancellationToken::new();
        let (run, token) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move { token.run_until_cancelled(run.keep_connected()).await });
        Self { shared, _stop: stop.drop_guard() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.shared.address
    }

    /// Whether it is read from as a replica.
    pub(super) fn is_replica(&self) -> bool {
        self.shared.readonly
    }

    /// Whether an attempt to connect has failed and none has succeeded since.
    pub(super) fn is_down(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Down(_))
    }

    /// Whether it is down, or hangs as far as anybody knows: who can ask somebody else need not wait for it.
    pub(super) fn is_away(&self) -> bool {
        self.is_down() || self.shared.suspect.load(Ordering::Acquire)
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Up(_))
    }

    /// Sends commands and answers for each.
    pub(super) async fn exchange(&self, commands: &[&Command], limit: Duration) -> Vec<Answer> {
        let count = commands.len();
        let up = match &*self.shared.state.borrow() {
            State::Up(link) if !link.is_ended() => Some(Arc::clone(link)),
            _ => None,
        };
        if let Some(link) = up {
            return self.exchange_on(&link, commands, limit).await;
        }
        match tokio::time::timeout(limit, self.link()).await {
            Ok(Ok(link)) => self.exchange_on(&link, commands, limit).await,
            Ok(Err(fault)) => vec![Err(fault); count],
            Err(_) => {
                vec![Err(Fault::Down(format!("{} does not answer", self.shared.address))); count]
            }
        }
    }

    async fn exchange_on(
        &self,
        link: &Link,
        commands: &[&Command],
        limit: Duration,
    ) -> Vec<Answer> {
        let answers = link.exchange(commands, limit).await;
        if link.is_given_up() {
            self.shared.suspect.store(true, Ordering::Release);
        }
        answers
    }

    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(link) if !link.is_ended() => return Ok(Arc::clone(link)),
                State::Up(_) | State::Connecting => {}
                State::Down(cause) => return Err(Fault::Down(cause.to_string())),
            }
            if state.changed().await.is_err() {
                return Err(Fault::Down(format!("{} is not used any more", self.shared.address)));
            }
        }
    }

    /// The server seems to answer: tries to connect at once if it is waiting to.
    pub(super) fn hurry(&self) {
        self.shared.hurry.notify_waiters();
    }

    /// The server seems to hang: ends its connection, so that nobody waits for it.
    pub(super) fn kick(&self) {
        self.shared.suspect.store(true, Ordering::Release);
        self.shared.kick.notify_waiters();
    }
}

impl Shared {
    async fn keep_connected(self: Arc<Self>) {
        let mut failures = 0u32;
        loop {
            match Link::connect(&self.address, &self.targets, self.readonly, &self.settings).await {
                Ok(link) => {
                    failures = 0;
                    self.hold(Arc::new(link)).await;
                }
                Err(fault) => {
                    self.note_failure(&fault);
                    let wait = RECONNECT.wait(failures, &mut rand::rng());
                    failures = failures.saturating_add(1);
                    let wait = wait.max(Duration::from_millis(20));
                    let _ = tokio::time::timeout(wait, self.hurry.notified()).await;
                }
            }
        }
    }

    /// Returns when the link has ended.
    async fn hold(&self, link: Arc<Link>) {
        self.suspect.store(false, Ordering::Release);
        let before = self.state.send_replace(State::Up(Arc::clone(&link)));
        if matches!(before, State::Down(_)) {
            tracing::info!(node = %self.address, "the Redis server answers again");
        }
        tokio::select! {
            () = link.ended() => {}
            () = self.kick.notified() => {
                link.end();
                link.ended().await;
            }
        }
        self.state.send_replace(State::Connecting);
        self.trouble.notify_one();
    }

    fn note_failure(&self, fault: &Fault) {
        let cause = format!("{}: {fault}", self.address);
        let before = self.state.send_replace(State::Down(cause.as_str().into()));
        if !matches!(before, State::Down(_)) {
            tracing::warn!(node = %self.address, %fault, "the Redis server cannot be reached");
        }
        self.trouble.notify_one();
    }
}
