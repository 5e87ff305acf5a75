//! A node of a set: the user's handle, and what is known of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use resonant_common::join::Position;
use resonant_common::telemetry::Gauge;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::health::Health;
use super::latency::PeakEwma;
use super::roles::Sighting;
use super::strategy::Candidate;

/// What a node is to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Takes the writes.
    Primary,
    /// Answers reads.
    Replica,
}

impl Role {
    /// The role as a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// What a node says of itself when it is asked. Whatever it does not say is not known: then what was set holds, and
/// nothing is promised of its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Observation {
    /// What it is.
    pub role: Option<Role>,
    /// How far it is: where the primary writes, up to where a replica has applied.
    pub position: Option<Position>,
    /// How far it is behind by its own estimate; looked at only where there is no position to compare.
    pub lag: Option<Duration>,
}

impl Observation {
    /// A sign of life and nothing else.
    pub fn alive() -> Self {
        Self::default()
    }

    /// It says what it is.
    #[must_use]
    pub fn role(self, role: impl Into<Option<Role>>) -> Self {
        Self { role: role.into(), ..self }
    }

    /// It says how far it is.
    #[must_use]
    pub fn position(self, position: impl Into<Option<Position>>) -> Self {
        Self { position: position.into(), ..self }
    }

    /// It says how far it is behind.
    #[must_use]
    pub fn lag(self, lag: impl Into<Option<Duration>>) -> Self {
        Self { lag: lag.into(), ..self }
    }
}

/// What was last seen of a node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) sighting: Sighting,
    /// It shows everything up to this instant.
    pub(super) fresh_as_of: Option<Instant>,
    /// So far it was behind, at most, when it was asked.
    pub(super) behind: Option<Duration>,
}

pub(crate) struct Node<P> {
    pub(super) id: u64,
    pub(crate) name: Arc<str>,
    pub(super) url: Arc<str>,
    pub(super) zone: Option<Arc<str>>,
    pub(crate) handle: P,
    pub(super) health: Health,
    pub(super) in_flight: AtomicUsize,
    /// Somebody has taken it out of rotation by hand.
    pub(super) held: AtomicBool,
    pub(super) gone: AtomicBool,
    /// It has been asked what it is at least once, whether it answered or not.
    pub(super) asked: AtomicBool,
    /// It claims to be the primary and is not: its history has parted from the primary's.
    pub(super) parted: AtomicBool,
    role: AtomicU8,
    /// Made with the first answer.
    pub(super) lag: OnceLock<Gauge>,
    latency: Mutex<PeakEwma>,
    seen: Mutex<Seen>,
}

impl<P> Node<P> {
    pub(super) fn new(
        name: &str,
        url: &str,
        zone: Option<&str>,
        handle: P,
        role: Role,
        probed: bool,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let node = Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            url: url.into(),
            zone: zone.map(Into::into),
            handle,
            health: Health::new(probed),
            in_flight: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            parted: AtomicBool::new(false),
            role: AtomicU8::new(0),
            lag: OnceLock::new(),
            latency: Mutex::default(),
            seen: Mutex::default(),
        };
        node.set_role(role);
        node
    }

    pub(crate) fn role(&self) -> Role {
        match self.role.load(Ordering::Acquire) {
            0 => Role::Primary,
            _ => Role::Replica,
        }
    }

    pub(super) fn set_role(&self, role: Role) {
        self.role.store(u8::from(role == Role::Replica), Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn latency(&self) -> MutexGuard<'_, PeakEwma> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is behind at most; `None` where that is not known.
    pub(crate) fn staleness(&self, now: Instant) -> Option<Duration> {
        match self.role() {
            Role::Primary => Some(Duration::ZERO),
            Role::Replica => {
                self.seen().fresh_as_of.map(|fresh| now.saturating_duration_since(fresh))
            }
        }
    }

    pub(super) fn candidate(&self, now: Instant) -> Candidate<'_> {
        Candidate {
            name: &self.name,
            role: self.role(),
            zone: self.zone.as_deref(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: self.latency().expected(now),
            staleness: self.staleness(now),
        }
    }

    pub(crate) fn status(&self, now: Instant) -> NodeState {
        NodeState {
            name: self.name.to_string(),
            role: self.role(),
            ejected: self.health.is_ejected(),
            held: self.is_held(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: self.latency().expected(now),
            staleness: self.staleness(now),
            position: self.seen().sighting.position,
        }
    }
}

impl<P> fmt::Debug for Node<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("role", &self.role())
            .field("ejected", &self.health.is_ejected())
            .finish_non_exhaustive()
    }
}

/// A snapshot of a node, as the routing sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// What it is to the set now.
    pub role: Role,
    /// Whether it kept failing, or answered no probe. A replica is then out of rotation until it answers again; the
    /// primary has no stand-in.
    pub ejected: bool,
    /// Whether it was taken out of rotation by hand.
    pub held: bool,
    /// Calls at the node from here.
    pub in_flight: usize,
    /// What an answer is expected to take; `None` before the first.
    pub latency: Option<Duration>,
    /// How far it is behind at most; `None` where that is not known. Zero for the primary.
    pub staleness: Option<Duration>,
    /// How far it was when it was last asked.
    pub position: Option<Position>,
}
