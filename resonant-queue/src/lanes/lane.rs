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
    /// What the bodies in `queue` weigh, and past which weight it takes no more.
    pub(super) bytes: usize,
    pub(super) byte_limit: usize,
}

impl Lane {
    /// Begins a life with a key; the queue's memory is kept from the one before.
    pub(super) fn begin(&mut self, key: Key, limit: usize, byte_limit: usize) {
        self.key = Some(key);
        self.state = State::Empty;
        self.spilled = None;
        (self.limit, self.byte_limit) = (limit, byte_limit);
    }

    pub(super) fn end(&mut self) -> Option<Key> {
        self.queue.clear();
        self.bytes = 0;
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

    /// The size of the first message.
    pub(super) fn first_size(&self) -> usize {
        self.queue.front().map_or(0, |entry| entry.message.body.len())
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.limit || (self.bytes >= self.byte_limit && !self.queue.is_empty())
    }

    pub(super) fn push(&mut self, message: Message, due: Option<Instant>) {
        self.bytes += message.body.len();
        self.queue.push_back(Entry { message, due });
    }

    /// Drops all but the first `keep` messages. Returns how many and what they weighed.
    pub(super) fn cut(&mut self, keep: usize) -> (usize, usize) {
        let cut = self.queue.drain(keep.min(self.queue.len())..);
        let (count, bytes) =
            cut.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.message.body.len()));
        self.bytes -= bytes;
        (count, bytes)
    }

    /// Takes the messages of a run: what is due, in order.
    pub(super) fn run(&mut self, max: usize, now: Instant) -> Vec<Message> {
        let due = self.queue.iter().take(max);
        let count = due.take_while(|entry| entry.due.is_none_or(|due| due <= now)).count();
        let run: Vec<_> = self.queue.drain(..count).map(|entry| entry.message).collect();
        self.bytes -= run.iter().map(|message| message.body.len()).sum::<usize>();
        run
    }

    /// Gives back messages of a run, in order, the first of them not due before `due`.
    pub(super) fn put_back(&mut self, messages: Vec<Message>, mut due: Option<Instant>) {
        let count = messages.len();
        self.bytes += messages.iter().map(|message| message.body.len()).sum::<usize>();
        self.queue.extend(messages.into_iter().map(|message| Entry { message, due: due.take() }));
        self.queue.rotate_right(count);
    }
}
