//! What passed through a proxy.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Direction;

/// Counters of a [`FaultProxy`](super::FaultProxy) since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections that are there now.
    pub open: u64,
    /// Bytes handed to servers.
    pub bytes_to_server: u64,
    /// Bytes handed to clients.
    pub bytes_to_client: u64,
    /// How often an answer followed a request: a burst of any number of bytes to the server and then one back is one. Requests
    /// that are pipelined count once together.
    pub round_trips: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    live: Mutex<BTreeSet<u64>>,
    to_server: AtomicU64,
    to_client: AtomicU64,
    round_trips: AtomicU64,
}

impl Counters {
    pub(super) fn open(&self) -> u64 {
        let mut live = self.live();
        let number = self.accepted.fetch_add(1, Relaxed);
        live.insert(number);
        number
    }

    pub(super) fn close(&self, number: u64) {
        self.live().remove(&number);
    }

    /// The number of the next connection: all that are there now are below it.
    pub(super) fn next_number(&self) -> u64 {
        let _open_is_not_halfway = self.live();
        self.accepted.load(Relaxed)
    }

    pub(super) fn has_below(&self, number: u64) -> bool {
        self.live().first().is_some_and(|first| *first < number)
    }

    /// Counts bytes; `asked` is the connection's own mark that a request awaits its answer.
    pub(super) fn pass(&self, direction: Direction, bytes: usize, asked: &AtomicBool) {
        match direction {
            Direction::ToServer => {
                self.to_server.fetch_add(bytes as u64, Relaxed);
                asked.store(true, Relaxed);
            }
            Direction::ToClient => {
                self.to_client.fetch_add(bytes as u64, Relaxed);
                if asked.swap(false, Relaxed) {
                    self.round_trips.fetch_add(1, Relaxed);
                }
            }
        }
    }

    pub(super) fn snapshot(&self) -> ProxyStats {
        ProxyStats {
            connections: self.accepted.load(Relaxed),
            open: self.live().len() as u64,
            bytes_to_server: self.to_server.load(Relaxed),
            bytes_to_client: self.to_client.load(Relaxed),
            round_trips: self.round_trips.load(Relaxed),
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
