//! What becomes of messages a handler is done with.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::lane::State;
use super::{Job, Lanes};
use crate::Poison;
use crate::backend::Settlement;
use crate::clock;
use crate::message::Message;

/// How a handler ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// So many of the messages, from the first on, are finished.
    pub(crate) done: usize,
    /// What went wrong with the one after them. Without it the rest was merely not reached.
    pub(crate) failure: Option<Failure>,
}

/// Why a message failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) verdict: Verdict,
    pub(crate) error: String,
}

/// What a failure asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again, after the backoff or the given wait.
    Retry(Option<Duration>),
    /// Make it a dead letter now.
    Reject,
    /// It cannot be read: as if all attempts were spent.
    Poison,
    /// It cannot be read yet: its key waits for somebody who can, whatever becomes of poison.
    Later,
}

/// What was decided about a failed message, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Retried,
    Parked,
    Dead,
}

impl Lanes {
    /// Takes back a job. Returns what was decided about the message that failed, if one did.
    pub(crate) fn finish(
        &mut self,
        job: Job,
        outcome: Outcome,
        now: Instant,
        chance: &mut impl Rng,
    ) -> Option<Fate> {
        let Job { lane, mut messages } = job;
        let done = outcome.done.min(messages.len());
        for message in &messages[..done] {
            self.settle(Settlement::Done { sequence: message.sequence });
            self.held.remove(message.body.len());
        }
        let mut left = messages.split_off(done);
        let failure = outcome.failure.filter(|_| !left.is_empty());
        let Some(failure) = failure else {
            self.give_back(lane, left, None, now);
            return None;
        };
        let head = &mut left[0];
        head.failures = head.failures.saturating_add(1);
        let (sequence, failures) = (head.sequence, head.failures);
        let spent = failures >= self.rules.max_attempts;
        let error = failure.error;
        match failure.verdict {
            Verdict::Retry(wait) if !spent => {
                let wait = wait.unwrap_or_else(|| self.rules.backoff.wait(failures - 1, chance));
                self.settle(Settlement::Retry { sequence, failures, wait, error });
                self.give_back(lane, left, Some(clock::after(now, wait)), now);
                Some(Fate::Retried)
            }
            Verdict::Retry(_) | Verdict::Poison | Verdict::Later
                if lane.is_some()
                    && (self.rules.poison == Poison::Park || failure.verdict == Verdict::Later) =>
            {
                self.settle(Settlement::Park { sequence, failures, error });
                self.park(lane, left);
                Some(Fate::Parked)
            }
            Verdict::Retry(_) | Verdict::Poison | Verdict::Later | Verdict::Reject => {
                self.settle(Settlement::Dead { sequence, failures, error });
                let dead = left.remove(0);
                self.held.remove(dead.body.len());
                self.give_back(lane, left, None, now);
                Some(Fate::Dead)
            }
        }
    }

    /// Returns messages to where they came from, the first of them not due before `due`.
    fn give_back(
        &mut self,
        lane: Option<usize>,
        messages: Vec<Message>,
        due: Option<Instant>,
        now: Instant,
    ) {
        match lane {
            Some(id) => {
                self.lanes[id].put_back(messages, due);
                self.rest(id, now);
            }
            None => {
                let mut messages = messages.into_iter();
                if let Some(due) = due
                    && let Some(first) = messages.next()
                {
                    self.idle.add(first.body.len());
                    self.loose_waiting.insert((due, first.sequence), first);
                }
                for message in messages.rev() {
                    self.loose.push_front(message);
                }
            }
        }
    }

    /// Parks the key of a lane: what is in memory is put aside behind the failed message, what is spilled follows by
    /// refills.
    fn park(&mut self, lane: Option<usize>, left: Vec<Message>) {
        let Some(id) = lane else { return };
        let behind: Vec<_> =
            self.lanes[id].queue.iter().map(|entry| entry.message.sequence).collect();
        let (messages, bytes) = self.lanes[id].cut(0);
        self.held.messages -= messages;
        self.held.bytes -= bytes;
        left.iter().for_each(|message| self.held.remove(message.body.len()));
        for sequence in left.iter().skip(1).map(|message| message.sequence).chain(behind) {
            self.settle(Settlement::ParkBehind { sequence });
        }
        if let Some(key) = self.lanes[id].key() {
            self.parked.insert(key.clone());
        }
        if self.lanes[id].spilled.is_some() {
            self.lanes[id].state = State::Empty;
            self.update_hunger(id);
        } else {
            self.remove(id);
        }
    }
}
