//! Callers that wait, oldest first.
//!
//! A list threaded through a vector, so that a caller in the middle leaves in constant time and a busy pool allocates
//! nothing per wait. A caller whose outcome is known has left the order but keeps its entry until it picks it up.

use tokio::time::Instant;

use super::slots::Site;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Waiters<T, W> {
    entries: Vec<Entry<T, W>>,
    vacant: Vec<u32>,
    head: u32,
    tail: u32,
    len: u32,
}

#[derive(Debug)]
struct Entry<T, W> {
    stage: Stage<T, W>,
    previous: u32,
    next: u32,
    since: Instant,
    site: Site,
}

#[derive(Debug)]
enum Stage<T, W> {
    Vacant,
    Waiting(W),
    Ready(T),
}

/// The waiter whose turn it is.
pub(crate) struct Turn<W> {
    pub(crate) key: u32,
    pub(crate) site: Site,
    pub(crate) waker: W,
}

impl<T, W> Waiters<T, W> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), vacant: Vec::new(), head: NONE, tail: NONE, len: 0 }
    }

    /// How many still wait for an outcome.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When the oldest one came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.entries.get(self.head as usize).map(|entry| entry.since)
    }

    pub(crate) fn push(&mut self, since: Instant, site: Site, waker: W) -> u32 {
        let entry =
            Entry { stage: Stage::Waiting(waker), previous: self.tail, next: NONE, since, site };
        let key = if let Some(key) = self.vacant.pop() {
            self.entries[key as usize] = entry;
            key
        } else {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
        };
        match self.tail {
            NONE => self.head = key,
            tail => self.entries[tail as usize].next = key,
        }
        self.tail = key;
        self.len += 1;
        key
    }

    /// Takes the oldest out of the order. It must be given its outcome with [`resolve`](Waiters::resolve).
    pub(crate) fn pop(&mut self) -> Option<Turn<W>> {
        let key = self.head;
        if key == NONE {
            return None;
        }
        self.unlink(key);
        let entry = &mut self.entries[key as usize];
        match std::mem::replace(&mut entry.stage, Stage::Vacant) {
            Stage::Waiting(waker) => Some(Turn { key, site: entry.site, waker }),
            Stage::Vacant | Stage::Ready(_) => None,
        }
    }

    pub(crate) fn resolve(&mut self, key: u32, outcome: T) {
        self.entries[key as usize].stage = Stage::Ready(outcome);
    }

    /// Gives an outcome to all for whom `outcome`, asked with the time they came, has one.
    pub(crate) fn resolve_where(
        &mut self,
        mut outcome: impl FnMut(Instant) -> Option<T>,
    ) -> Vec<W> {
        let mut wakers = Vec::new();
        let mut key = self.head;
        while key != NONE {
            let next = self.entries[key as usize].next;
            if let Some(outcome) = outcome(self.entries[key as usize].since) {
                self.unlink(key);
                let stage = &mut self.entries[key as usize].stage;
                if let Stage::Waiting(waker) = std::mem::replace(stage, Stage::Ready(outcome)) {
                    wakers.push(waker);
                }
            }
            key = next;
        }
        wakers
    }

    /// The outcome, if there is one, which ends the wait; otherwise `refresh` sees the waker.
    pub(crate) fn poll(&mut self, key: u32, refresh: impl FnOnce(&mut W)) -> Option<T> {
        match &mut self.entries[key as usize].stage {
            Stage::Waiting(waker) => {
                refresh(waker);
                None
            }
            Stage::Ready(_) | Stage::Vacant => self.remove(key),
        }
    }

    /// Ends the wait. What the waiter had been given but not picked up is handed back.
    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        if matches!(self.entries[key as usize].stage, Stage::Waiting(_)) {
            self.unlink(key);
        }
        self.vacant.push(key);
        match std::mem::replace(&mut self.entries[key as usize].stage, Stage::Vacant) {
            Stage::Ready(outcome) => Some(outcome),
            Stage::Vacant | Stage::Waiting(_) => None,
        }
    }

    fn unlink(&mut self, key: u32) {
        let Entry { previous, next, .. } = self.entries[key as usize];
        match previous {
            NONE => self.head = next,
            previous => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => self.entries[next as usize].previous = previous,
        }
        self.len -= 1;
    }
}
