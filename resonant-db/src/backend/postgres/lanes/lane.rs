//! One shared connection.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Row;

use crate::backend::postgres::apart::Apart;
use crate::backend::postgres::facts::Status;
use crate::backend::postgres::login::{Login, SHARED_LIMIT};
use crate::backend::postgres::session::Session;
use crate::backend::postgres::{Node, hosts, position};
use crate::backend::{Access, Target};
use crate::{Result, Role};

use super::intake::Intakes;
use super::known::Prepared;

/// The most reads under way on a lane. More go elsewhere.
const DEPTH: u32 = 256;
/// A lane that has answered nothing for so long, beside the way there and back, gets no more reads for the moment: what is
/// at its head is slow.
const STALE: Duration = Duration::from_millis(50);
/// One that has answered nothing for so long is given up.
pub(super) const STUCK: Duration = Duration::from_millis(500);
/// One on which nothing has come for so long may be held up by a reader who does not take his answer.
const HELD_UP: Duration = Duration::from_millis(100);
/// How long a lane lives.
const LIFETIME: Duration = Duration::from_secs(1800);
const PING: Duration = Duration::from_secs(2);

pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) session: Session,
    /// The way to the server and back, as it was when the lane was opened.
    pub(super) way: Duration,
    opened: Instant,
    /// Reads under way on all the lanes of the node.
    crew: Arc<AtomicU32>,
    /// When it last answered, or began to be asked, in nanoseconds since it was opened.
    progress: Apart<AtomicU64>,
    /// The system it talks to, where that is known.
    system: Option<u64>,
    /// The answers on their way in.
    pub(super) intakes: Intakes<Answer>,
    retired: AtomicBool,
    lost: OnceLock<()>,
}

/// What comes of a read on a lane, with the statement it was.
pub(super) type Answer = (Arc<Prepared>, std::result::Result<Vec<Row>, tokio_postgres::Error>);

impl Lane {
    /// Opens a lane for a node of this role; `None` where a pooler stands in between, or it leads to another server than the
    /// connections.
    pub(super) async fn open(
        node: &Arc<Node>,
        target: &Target,
        role: Role,
        crew: Arc<AtomicU32>,
    ) -> Result<Option<Arc<Self>>> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let target = Target {
            access: Access::ReadOnly,
            statement_timeout: Some(
                target.statement_timeout.map_or(SHARED_LIMIT, |limit| limit.min(SHARED_LIMIT)),
            ),
            ..target.clone()
        };
        let login = Login { shared: Some(role), ..Login::default() };
        let session = Session::open(node, &target, login).await?;
        // Only with its options is it kept from writing, and its statements from running on.
        if session.facts.is_pooled() {
            return Ok(None);
        }
        let system = match session.within(session.client.query_typed(position::SYSTEM, &[])).await {
            Ok(rows) => rows.first().and_then(position::system),
            // Not everybody may ask.
            Err(trouble) if trouble.said().is_some() => None,
            Err(_) => return Ok(None),
        };
        if hosts::is_steady(node) && !node.whereabouts.agrees(&session.route.address, system) {
            return Ok(None);
        }
        session.facts.note_times();
        let mut way = Duration::MAX;
        for _ in 0..2 {
            let asked = Instant::now();
            if !matches!(timeout(PING, session.client.check_connection()).await, Ok(Ok(()))) {
                return Ok(None);
            }
            way = way.min(asked.elapsed());
        }
        Ok(Some(Arc::new(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            session,
            way,
            opened: Instant::now(),
            crew,
            system,
            intakes: Intakes::default(),
            progress: Apart::default(),
            retired: AtomicBool::new(false),
            lost: OnceLock::new(),
        })))
    }

    /// Reads under way, also those nobody waits for any more.
    pub(super) fn load(&self) -> u32 {
        let pending = u32::try_from(self.session.facts.pending()).unwrap_or(u32::MAX);
        self.session.facts.readers().max(pending)
    }

    /// Whether it takes another read at `now`, with this load.
    pub(super) fn takes(&self, load: u32, now: Instant) -> bool {
        self.is_open() && load < DEPTH && (load == 0 || self.silence(now) < STALE + self.way * 2)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.retired.load(Ordering::Acquire) && !self.session.is_closed()
    }

    /// For how long it has not answered, or not been asked.
    fn silence(&self, now: Instant) -> Duration {
        let progress = Duration::from_nanos(self.progress.load(Ordering::Acquire));
        let asked = now.saturating_duration_since(self.opened).saturating_sub(progress);
        asked.min(self.session.facts.silence(now))
    }

    /// It has answered at `now`: how long since it had before.
    fn advance(&self, now: Instant) -> Duration {
        let now = self.age(now);
        let before = self.progress.swap(now, Ordering::AcqRel);
        Duration::from_nanos(now.saturating_sub(before))
    }

    fn age(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.opened).as_nanos();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    /// Whether it has come to the end of its time, or of its use.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        !self.is_open() || now.saturating_duration_since(self.opened) > LIFETIME
    }

    /// Whether it answers nothing although it is asked.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.load() > 0 && self.silence(now) > STUCK + self.way * 2
    }

    /// Whether somebody does not take what he has asked for, so that all wait: that one is cut off.
    pub(super) fn clear_the_way(&self, now: Instant) {
        if self.load() > 0 && self.silence(now) > HELD_UP + self.way * 2 {
            let idle = self.intakes.cut_off();
            if idle > 0 {
                tracing::debug!(
                    lane = self.id,
                    idle,
                    "readers did not take their answers; they read again elsewhere"
                );
            }
        }
    }

    /// Whether its server is what the node is taken for. A standby that was promoted says so by itself.
    pub(super) fn serves(&self, role: Role) -> bool {
        role == Role::Replica || self.session.facts.standby() == Some(false)
    }

    /// Whether it is at the server the node's connections are at.
    pub(super) fn is_in_place(&self, role: Role) -> bool {
        let node = &self.session.node;
        self.serves(role)
            && (!hosts::is_steady(node)
                || node.whereabouts.agrees(&self.session.route.address, self.system))
    }

    /// Takes no more reads; it is closed after the last one.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Cuts it off: whoever waits hears of it at once. Whether it was still there.
    pub(super) fn give_up(&self) -> bool {
        self.retire();
        self.session.driver.abort();
        self.lost.set(()).is_ok()
    }

    /// Whether the session is what it was when it was opened, as it must always be.
    pub(super) fn is_sound(&self) -> bool {
        let facts = &self.session.facts;
        facts.status() == Status::Idle && !facts.is_touched() && !facts.is_undermined()
    }
}

/// A read's place on a lane.
pub(super) struct Place {
    pub(super) lane: Arc<Lane>,
    taken: Instant,
}

impl Place {
    pub(super) fn take(lane: &Arc<Lane>, now: Instant) -> Self {
        lane.crew.fetch_add(1, Ordering::Relaxed);
        let facts = &lane.session.facts;
        if facts.join() == 0 && facts.pending() == 0 {
            lane.advance(now);
        }
        Self { lane: Arc::clone(lane), taken: now }
    }

    /// It has been answered: how long that took, without those before it.
    pub(super) fn answered(&self, now: Instant) -> Duration {
        let since = self.lane.advance(now);
        since.min(now.saturating_duration_since(self.taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.session.facts.leave();
        self.lane.crew.fetch_sub(1, Ordering::Relaxed);
    }
}
