//! The messages of one key.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::key::Key;
use crate::message::Message;

/// Where a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// Nothing in memory, something spilled.
    #[default]
    Empty,
    /// In the list of ready lanes.
    Ready,
    /// A run is out with a handler.
    Running,
    /// Its first message is not due before the instant.
    Waiting(Instant),
}

/// A message in memory and when it is due, if not at once.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) due: Option<Instant>,
}

/// From where a key's messages are to be read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spill {
    /// The first sequence not in memory.
    pub(super) from: u64,
    /// Only a refill with at least this stamp may serve it.
    pub(super) stamp: u64,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    key: Option<Key>,
    pub(super) queue: VecDeque<Entry>,
    pub(super) state: State,
    pub(super) spilled: Option<Spill>,
    /// Under which sequence it is listed as hungry.
    pub(super) hungry_at: Option<u64>,
    /// The most messages it holds in memory.
    pub(super) limit: usize,
}

impl Lane {
    /// Begins a life with a key; the queue's memory is kept from the one before.
    pub(super) fn begin(&mut self, key: Key, limit: usize) {
        self.key = Some(key);
        self.state = State::Empty;
        self.spilled = None;
        self.limit = limit;
    }

    pub(super) fn end(&mut self) -> Option<Key> {
        self.queue.clear();
        self.spilled = None;
        self.state = State::Empty;
        self.key.take()
    }

    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// When the first message is due: `None` without one, `Some(None)` for at once.
    pub(super) fn first_due(&self) -> Option<Option<Instant>> {
        self.queue.front().map(|entry| entry.due)
    }

    /// Takes the messages of a run: what is due, in order.
    pub(super) fn run(&mut self, max: usize, now: Instant) -> Vec<Message> {
        let due = self.queue.iter().take(max);
        let count = due.take_while(|entry| entry.due.is_none_or(|due| due <= now)).count();
        self.queue.drain(..count).map(|entry| entry.message).collect()
    }

    /// Gives back messages of a run, in order, the first of them not due before `due`.
    pub(super) fn put_back(&mut self, messages: Vec<Message>, mut due: Option<Instant>) {
        let count = messages.len();
        self.queue.extend(messages.into_iter().map(|message| Entry { message, due: due.take() }));
        self.queue.rotate_right(count);
    }
}
