//! Whether a server lives, as far as it can be told from what it says.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
    /// Answers that are owed, also to those who have gone away.
    owed: AtomicUsize,
    end: Mutex<Option<String>>,
}

impl Signs {
    pub(in super::super) fn new() -> Self {
        let (silent, owed) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { born: Instant::now(), silent, owed, end: Mutex::default() }
    }

    /// So many more answers are owed. Where none was, the silence begins now.
    pub(in super::super) fn begin(&self, answers: usize) {
        if self.owed.fetch_add(answers, Ordering::AcqRel) == 0 {
            self.heard();
        }
    }

    /// So many answers have come, or their questions were never sent.
    pub(in super::super) fn end(&self, answers: usize) {
        self.owed.fetch_sub(answers, Ordering::AcqRel);
    }

    pub(super) fn owed(&self) -> usize {
        self.owed.load(Ordering::Acquire)
    }

    /// The server said something.
    pub(in super::super) fn heard(&self) {
        let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.silent.store(now, Ordering::Relaxed);
    }

    pub(in super::super) fn broke(&self, why: &impl ToString) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_string());
    }

    /// For how long the server has said nothing, while it owes an answer.
    pub(super) fn silence(&self) -> Duration {
        let since = Duration::from_micros(self.silent.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(since)
    }

    pub(in super::super) fn fault(&self) -> Fault {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        Fault::Broken(end.clone().unwrap_or_else(|| "it was ended".to_owned()))
    }
}
