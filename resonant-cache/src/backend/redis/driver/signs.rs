//! Whether a server lives, as far as it can be told from what it says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Fault;

/// What is known of a connection while it lives, and why it ended.
#[derive(Debug)]
pub(in super::super) struct Signs {
    born: Instant,
    /// Microseconds after `born` since which the server owes an answer and has said nothing.
    silent: AtomicU64,
    end: Mutex<Option<String>>,
}

impl Signs {
    pub(in super::super) fn new() -> Self {
        Self { born: Instant::now(), silent: AtomicU64::new(0), end: Mutex::default() }
    }

    /// The server said something, or begins to owe an answer.
    pub(in super::super) fn heard(&self) {
        let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.silent.store(now, Ordering::Relaxed);
    }

    pub(in super::super) fn broke(&self, why: &impl ToString) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_string());
    }

    /// For how long the server has said nothing, while somebody waits.
    pub(super) fn silence(&self) -> Duration {
        let since = Duration::from_micros(self.silent.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(since)
    }

    pub(in super::super) fn fault(&self) -> Fault {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        Fault::Broken(end.clone().unwrap_or_else(|| "it was ended".to_owned()))
    }
}
