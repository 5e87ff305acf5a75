//! What the objects in the broker are called and how they are declared. `docs/formats/queue.md` tells other programs.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, ShortString};
use resonant_common::hash::key_hash;

use crate::key::Key;

/// How many messages of one queue a channel holds at once. Part of the format: what a lost channel gives back keeps
/// its order only if the next consumer takes as many as the one before could hold.
pub(super) const PREFETCH: u16 = 512;

/// For how long a message waits in the first delay queue, in milliseconds; each further one takes four times as long.
const FIRST_DELAY: u64 = 250;

/// How many delay queues there are. The last one holds for twelve days at a time.
pub(super) const DELAYS: u32 = 12;

/// How long a queue that was deleted stays so. The broker moves the consumers of one that is made again at once to the new one
/// without a word, and then drops all that they should get; given time it cancels them.
pub(super) const BURIAL: Duration = Duration::from_secs(1);

/// The names of one queue's objects.
#[derive(Debug, Clone)]
pub(super) struct Names(String);

impl Names {
    /// The names for a queue. A valid queue name has at most 128 characters, so all of them are short strings.
    pub(super) fn new(queue: &str) -> Self {
        Self(queue.to_owned())
    }

    fn name(&self, rest: &str) -> ShortString {
        ShortString::try_new(format!("{}.{rest}", self.0)).unwrap_or_default()
    }

    pub(super) fn partition(&self, partition: u32) -> ShortString {
        self.name(&format!("p.{partition}"))
    }

    pub(super) fn parked(&self, partition: u32, key: &Key) -> ShortString {
        self.name(&format!("parked.{partition}.{:016x}", key_hash(key.as_bytes())))
    }

    pub(super) fn dead(&self) -> ShortString {
        self.name("dead")
    }

    pub(super) fn due(&self) -> ShortString {
        self.name("due")
    }

    pub(super) fn delay(&self, level: u32) -> ShortString {
        self.name(&format!("delay.{level}"))
    }

    /// Pauses, parked keys, epochs.
    pub(super) fn log(&self) -> ShortString {
        self.name("log")
    }

    /// What owners hold.
    pub(super) fn held(&self) -> ShortString {
        self.name("held")
    }

    /// Unique ids.
    pub(super) fn ids(&self) -> ShortString {
        self.name("ids")
    }
}

/// How long a message waits in a delay queue.
pub(super) fn delay_of(level: u32) -> u64 {
    FIRST_DELAY << (2 * level.min(DELAYS - 1))
}

/// The delay queue for a message that must still wait so long: the longest that is not too long. `None` if even the
/// first one is.
pub(super) fn level_for(remaining: u64) -> Option<u32> {
    (0..DELAYS).rev().find(|level| delay_of(*level) <= remaining)
}

/// What a queue is declared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Messages in order, handed to one consumer at a time.
    Messages,
    /// A log every process reads; of at most so many bytes.
    Log {
        /// The most bytes kept; `None` for all.
        most: Option<u64>,
    },
    /// Messages wait so many milliseconds and go on to the queue of this name.
    Delay {
        /// For how long.
        wait: u64,
        /// Where to.
        then: ShortString,
    },
}

impl Kind {
    pub(super) fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        let mut set = |name: &str, value| {
            table.insert(name.into(), value);
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        let number =
            |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
        match self {
            Kind::Messages => {
                set("x-queue-type", text("quorum"));
                set("x-single-active-consumer", AMQPValue::Boolean(true));
            }
            Kind::Log { most } => {
                set("x-queue-type", text("stream"));
                if let Some(most) = most {
                    set("x-max-length-bytes", number(*most));
                    set("x-stream-max-segment-size-bytes", number(most / 16));
                }
            }
            Kind::Delay { wait, then } => {
                set("x-queue-type", text("quorum"));
                set("x-message-ttl", number(*wait));
                set("x-dead-letter-exchange", text(""));
                set("x-dead-letter-routing-key", text(then.as_str()));
                set("x-dead-letter-strategy", text("at-least-once"));
                set("x-overflow", text("reject-publish"));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_walked_down_in_few_steps() {
        assert_eq!(level_for(249), None);
        assert_eq!((level_for(250), level_for(999), level_for(1000)), (Some(0), Some(0), Some(1)));
        let month = 30 * 24 * 3_600_000;
        let (mut left, mut steps) = (month, 0);
        while let Some(level) = level_for(left) {
            left -= delay_of(level);
            steps += 1;
        }
        assert!(left < 250 && steps <= 3 * DELAYS, "{left} {steps}");
    }

    #[test]
    fn names_fit_for_the_longest_queue() {
        let names = Names::new(&"x".repeat(128));
        let parked = names.parked(4095, &Key::from("k".repeat(1000)));
        assert!(
            parked
                .as_str()
                .ends_with(&format!(".parked.4095.{:016x}", key_hash("k".repeat(1000).as_bytes())))
        );
    }
}
