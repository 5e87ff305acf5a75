//! Lanes: a few connections that many plain reads share, one answer behind the other.
//!
//! A read that has a connection to itself makes two processes wake each other for a single row. Reads that share one go
//! out and come back many at a time, which is most of what there is to gain once more tasks read than there are
//! connections. What can go wrong with sharing is kept out, or made harmless:
//!
//! - Who may share is decided by proof: the text (`plain`), the catalogue, and what the statement takes (`standing`).
//! - The session is opened read-only, with short limits for statements and locks. The server keeps to that whatever the
//!   proof is worth, and stops by itself what nobody waits for any more: nothing is ever cancelled on a lane, so no
//!   request to cancel can hit a neighbour.
//! - Any error at all is no answer: the read runs again on a connection of its own and is told what is wrong there. It only
//!   reads, so running it twice changes nothing.
//! - A lane that stops answering is cut off by the `keeper`, which sends everybody on it elsewhere at once. So nobody needs
//!   a timer of his own. A reader who does not take his answer is cut off alone (`intake`).
//! - A lane is at the server at which the node's other connections are, in the role the caller takes the node for.

mod catalogue;
mod intake;
mod keeper;
mod known;
mod lane;
mod plain;
mod standing;
mod words;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::backend::{Fitness, LanesStatus, ParamRows, Sharing, Target};
use crate::{Param, Role, Rows};

use super::Node;
use super::apart::Apart;
use super::param::{self, Encoded};

use self::known::{Known, Prepared, Statements};
use self::lane::{Answer, Lane, Place};

/// How many lanes a node has at most. Few: the more there are, the less comes along with each answer.
const LANES: usize = 4;
/// Statements that may wait for the catalogue to be asked.
const DOUBTS: usize = 64;

/// The lanes of a node.
pub(super) struct PostgresLanes {
    inner: Arc<Inner>,
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the keeper shares.
struct Inner {
    node: Arc<Node>,
    target: Target,
    statements: Statements,
    lanes: RwLock<Arc<[Arc<Lane>]>>,
    /// The catalogue is to be asked about these.
    doubts: Mutex<Vec<Arc<Known>>>,
    /// Somebody would have used a lane since the keeper last looked.
    wanted: AtomicBool,
    /// The keeper looks again only when it is told to.
    asleep: AtomicBool,
    closed: AtomicBool,
    /// There are to be none for the time being.
    off: AtomicBool,
    /// What the node was to whoever would have used a lane last.
    primary: AtomicBool,
    /// Counts the calls of `empty`: what is being opened meanwhile comes too late.
    epoch: AtomicU64,
    /// Reads under way.
    crew: Arc<AtomicU32>,
    tally: Apart<Tally>,
    lost: AtomicU64,
    nudge: Notify,
}

/// What changes with each read.
#[derive(Default)]
struct Tally {
    /// What a read takes on average, in nanoseconds.
    typical: AtomicU64,
    reads: AtomicU64,
}

impl PostgresLanes {
    pub(super) fn new(node: Arc<Node>, target: Target) -> Self {
        let inner = Inner {
            node,
            target,
            statements: Statements::default(),
            lanes: RwLock::new(Arc::new([])),
            doubts: Mutex::default(),
            wanted: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            off: AtomicBool::new(false),
            primary: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            crew: Arc::default(),
            tally: Apart::default(),
            lost: AtomicU64::new(0),
            nudge: Notify::new(),
        };
        Self { inner: Arc::new(inner), keeper: Mutex::default() }
    }

    /// Whether there is a keeper: it ends with the runtime it was started on.
    fn is_kept(&self) -> bool {
        lock(&self.keeper).as_ref().is_some_and(|keeper| !keeper.is_finished())
    }

    /// There is something to do for the keeper.
    fn nudge(&self) {
        let mut keeper = lock(&self.keeper);
        if keeper.as_ref().is_none_or(|keeper| keeper.is_finished()) && !self.inner.is_closed() {
            // On another runtime than the last one, if that is gone.
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            let task = runtime.spawn(keeper::keep(Arc::clone(&self.inner)));
            *keeper = Some(AbortOnDropHandle::new(task));
        }
        drop(keeper);
        self.inner.nudge.notify_one();
    }
}

#[async_trait]
impl Sharing for PostgresLanes {
    fn fitness(&self, sql: &str) -> Fitness {
        if self.inner.node.pooler.load(Ordering::Acquire) {
            return Fitness::Own;
        }
        if sql.len() > plain::MAX_BYTES {
            return Fitness::Own;
        }
        let known = self.inner.statements.meet(sql);
        match known.names {
            None => Fitness::Own,
            Some(_) if known.is_watched() => Fitness::Watched,
            Some(_) => Fitness::Shared,
        }
    }

    fn read<'a>(
        &'a self,
        role: Role,
        sql: &'a str,
        params: &'a [Param<'a>],
    ) -> Option<BoxFuture<'a, Option<Rows>>> {
        let inner = &*self.inner;
        if sql.len() > plain::MAX_BYTES || inner.is_off() {
            return None;
        }
        let known = inner.statements.meet(sql);
        known.names.as_ref()?;
        let place = if known.is_trusted() { inner.place(role, Instant::now()) } else { None };
        let Some(place) = place else {
            inner.primary.store(role == Role::Primary, Ordering::Release);
            // A read that was under way when the lanes went may have wanted one while nobody looked.
            let first = !inner.wanted.swap(true, Ordering::SeqCst);
            if first || inner.asleep.load(Ordering::SeqCst) || !self.is_kept() {
                self.nudge();
            }
            return None;
        };
        Some(Box::pin(inner.run(role, place, known, params)))
    }

    fn ran(&self, sql: &str, took: Duration) {
        if sql.len() > plain::MAX_BYTES {
            return;
        }
        let known = self.inner.statements.meet(sql);
        if known.names.is_none() {
            return;
        }
        let (now, way) = (Instant::now(), self.inner.way());
        if known.judge(|standing| standing.ran(took, way, now)) {
            if self.inner.doubt(&known) {
                self.nudge();
            } else {
                known.judge(|standing| standing.checked(None, now));
            }
        }
    }

    fn most(&self) -> u32 {
        LANES as u32
    }

    fn in_flight(&self) -> u32 {
        self.inner.crew.load(Ordering::Relaxed)
    }

    fn status(&self) -> LanesStatus {
        let lanes = self.inner.lanes();
        LanesStatus {
            open: lanes.iter().filter(|lane| lane.is_open()).count() as u32,
            in_flight: self.in_flight(),
            reads: self.inner.tally.reads.load(Ordering::Relaxed),
            lost: self.inner.lost.load(Ordering::Relaxed),
        }
    }

    fn empty(&self) {
        self.inner.empty();
    }

    fn switch(&self, on: bool) {
        self.inner.off.store(!on, Ordering::Release);
        if !on {
            self.inner.wanted.store(false, Ordering::Release);
            self.inner.empty();
        }
    }

    async fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        let lanes = self.inner.take().to_vec();
        let keeper = lock(&self.keeper).take();
        drop(keeper);
        lanes.iter().for_each(|lane| lane.retire());
        // What is idle says goodbye; the others end with the last read that is under way.
        for lane in lanes.into_iter().filter_map(Arc::into_inner) {
            lane.session.close(false).await;
        }
    }
}

impl Inner {
    fn lanes(&self) -> Arc<[Arc<Lane>]> {
        Arc::clone(&self.lanes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn is_off(&self) -> bool {
        self.off.load(Ordering::Acquire)
    }

    /// What the node is taken for.
    fn role(&self) -> Role {
        if self.primary.load(Ordering::Acquire) { Role::Primary } else { Role::Replica }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Lane>>)) {
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = lanes.to_vec();
        change(&mut changed);
        *lanes = changed.into();
    }

    fn take(&self) -> Arc<[Arc<Lane>]> {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut lanes, Arc::new([]))
    }

    fn empty(&self) {
        for lane in self.take().iter() {
            lane.give_up();
            self.statements.forget_lane(lane.id);
        }
    }

    fn give_up(&self, lane: &Arc<Lane>) {
        if lane.give_up() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.nudge.notify_one();
    }

    /// The way to the server and back; nothing where that is not known.
    fn way(&self) -> Duration {
        self.lanes().iter().map(|lane| lane.way).min().unwrap_or_default()
    }

    /// Has the catalogue asked about a statement; false where too many wait for that already, as when no lane is open.
    fn doubt(&self, known: &Arc<Known>) -> bool {
        let mut doubts = lock(&self.doubts);
        let room = doubts.len() < DOUBTS;
        if room {
            doubts.push(Arc::clone(known));
        }
        room
    }

    /// A place on the lane with the fewest reads.
    fn place(&self, role: Role, now: Instant) -> Option<Place> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let mut best: Option<(u32, &Arc<Lane>)> = None;
        for lane in lanes.iter() {
            let load = lane.load();
            let better = best.is_none_or(|(least, _)| load < least);
            if better && lane.serves(role) && lane.takes(load, now) {
                best = Some((load, lane));
            }
        }
        best.map(|(_, lane)| Place::take(lane, now))
    }

    /// Runs a statement at its place; `None` when somebody else has to.
    async fn run(
        &self,
        role: Role,
        place: Place,
        known: Arc<Known>,
        params: &[Param<'_>],
    ) -> Option<Rows> {
        let lane = &place.lane;
        let prepared = match known.prepared(lane.id) {
            Some(prepared) => prepared,
            None => match lane.session.prepare(&known.sql).await {
                Ok(statement) => known.keep(lane.id, statement),
                Err(error) => return self.failed(&place, &known, &error),
            },
        };
        param::check(params.iter().copied(), prepared.statement.params()).ok()?;
        // `None` when it was cut off.
        let (prepared, answer) = lane.intakes.take(fetch(lane, prepared, params)).await?;
        match answer {
            // It is another server's state than the caller asked for.
            Ok(_) if !lane.serves(role) => None,
            Ok(rows) if lane.is_sound() => {
                self.answered(&place, &known);
                Some(prepared.layout.rows(prepared.statement.columns(), rows))
            }
            Ok(_) => {
                known.judge(|standing| standing.stumbled(Instant::now()));
                self.give_up(lane);
                None
            }
            Err(error) => self.failed(&place, &known, &error),
        }
    }

    fn answered(&self, place: &Place, known: &Known) {
        let now = Instant::now();
        let took = place.answered(now).saturating_sub(place.lane.way);
        let typical = self.typical(took);
        known.judge_if_free(|standing| standing.served(took, typical, now));
        self.tally.reads.fetch_add(1, Ordering::Relaxed);
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
        }
    }

    /// What reads take on average, with one more. That one gets lost now and then does not matter.
    fn typical(&self, took: Duration) -> Duration {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.tally.typical.load(Ordering::Relaxed);
        let typical = before - before / 64 + took / 64;
        self.tally.typical.store(typical, Ordering::Relaxed);
        Duration::from_nanos(typical)
    }

    fn failed(&self, place: &Place, known: &Known, error: &tokio_postgres::Error) -> Option<Rows> {
        let now = Instant::now();
        place.answered(now);
        known.forget(place.lane.id);
        match error.code().map(tokio_postgres::error::SqlState::code) {
            // It was stopped, or waited for a lock: it blocked those behind it, who are sent elsewhere.
            Some(code @ ("57014" | "55P03")) => {
                tracing::debug!(
                    node = %self.target.name,
                    code,
                    "a statement blocked a shared connection"
                );
                known.judge(|standing| standing.stumbled(now));
                self.give_up(&place.lane);
            }
            // It would have written: it is not what it was taken for.
            Some("25006") => known.judge(|standing| standing.checked(Some(false), now)),
            Some(_) => {}
            None => self.nudge.notify_one(),
        }
        None
    }
}

/// Runs a statement. What it takes is its own: the keeper may have to drop it.
fn fetch(
    lane: &Lane,
    prepared: Arc<Prepared>,
    params: &[Param<'_>],
) -> impl Future<Output = Answer> + Send + use<> {
    let (client, params) = (Arc::clone(&lane.session.client), ParamRows::single(params));
    async move {
        let rows = async {
            let encoded = (0..params.width()).map(|at| Encoded(params.param(0, at)));
            let stream = client.query_raw(&prepared.statement, encoded).await?;
            pin!(stream).try_collect().await
        };
        let rows = rows.await;
        (prepared, rows)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for PostgresLanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLanes")
            .field("node", &self.inner.target.name)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
