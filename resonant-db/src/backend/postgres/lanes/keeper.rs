//! The task that looks after a node's lanes: opens them when there is a need, asks the catalogue, cuts off what is stuck,
//! and closes them when nobody has used them for a while.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::known::Known;
use super::lane::{Lane, STUCK};
use super::{Inner, LANES, catalogue, lock};
use crate::Result;

/// How often lanes that are used are looked at, and those that are not.
const BUSY: Duration = Duration::from_millis(50);
const QUIET: Duration = Duration::from_millis(500);
/// After so long without a read all are closed.
const IDLE: Duration = Duration::from_secs(60);
/// How long one may take to open, and the pause after one could not be.
const OPEN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// What a task of the keeper has done.
enum Done {
    Opened(u64, Result<Option<Arc<Lane>>>),
    TooSlow,
    Closed,
    Checked(Arc<Known>, Option<bool>),
}

pub(super) async fn keep(inner: Arc<Inner>) {
    let mut keeper = Keeper {
        tasks: JoinSet::new(),
        leaving: Vec::new(),
        opening: false,
        not_before: None,
        used: None,
        epoch: inner.epoch.load(Ordering::Acquire),
    };
    inner.asleep.store(false, Ordering::SeqCst);
    while !inner.is_closed() {
        let pace = keeper.look(&inner);
        if pace.is_none() {
            inner.asleep.store(true, Ordering::SeqCst);
            if inner.wanted.load(Ordering::SeqCst) && !inner.is_off() {
                inner.asleep.store(false, Ordering::SeqCst);
                continue;
            }
        }
        let done = {
            let nudged = pin!(inner.nudge.notified());
            let ended = pin!(ended(&mut keeper.tasks));
            match within(pace, select(nudged, ended)).await {
                Some(Either::Right((done, _))) => done,
                _ => None,
            }
        };
        inner.asleep.store(false, Ordering::SeqCst);
        if let Some(done) = done {
            keeper.take(&inner, done);
        }
    }
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// The next task that ends; for ever where there is none.
async fn ended(tasks: &mut JoinSet<Done>) -> Option<Done> {
    match tasks.join_next().await {
        Some(done) => done.ok(),
        None => std::future::pending().await,
    }
}

struct Keeper {
    tasks: JoinSet<Done>,
    /// Lanes that take no more reads, until the last one is over.
    leaving: Vec<Arc<Lane>>,
    opening: bool,
    not_before: Option<Instant>,
    /// When somebody would last have used a lane.
    used: Option<Instant>,
    /// How often they had been emptied by then.
    epoch: u64,
}

impl Keeper {
    /// Does what is due. Answers when to look again; `None` is when something happens.
    fn look(&mut self, inner: &Arc<Inner>) -> Option<Duration> {
        let now = Instant::now();
        let wanted = inner.wanted.swap(false, Ordering::AcqRel);
        let epoch = inner.epoch.load(Ordering::Acquire);
        if inner.is_off() || std::mem::replace(&mut self.epoch, epoch) != epoch {
            // What was wanted before says nothing about afterwards.
            self.used = None;
        } else if wanted {
            self.used = Some(now);
        }
        self.see_off();
        let (lanes, role) = (inner.lanes(), inner.role());
        for lane in lanes.iter() {
            lane.clear_the_way(now);
            self.adopt(lane);
        }
        for lane in lanes.iter().filter(|lane| lane.is_stuck(now)) {
            tracing::warn!(node = %inner.target.name, "a shared connection does not answer; it is replaced");
            inner.give_up(lane);
        }
        let idle = self.used.map_or(Duration::MAX, |used| now.saturating_duration_since(used));
        let (done, kept): (Vec<_>, Vec<_>) = lanes
            .iter()
            .partition(|lane| idle > IDLE || lane.is_done(now) || !lane.is_in_place(role));
        for lane in &done {
            lane.retire();
            inner.statements.forget_lane(lane.id);
        }
        if !done.is_empty() {
            inner.change(|lanes| lanes.retain(|lane| done.iter().all(|done| done.id != lane.id)));
        }
        self.leaving.extend(done.into_iter().cloned());
        self.open(inner, kept.len(), idle, now);
        self.check(inner);
        match () {
            () if self.opening || !kept.is_empty() || !self.leaving.is_empty() => {
                Some(if idle < PAUSE { BUSY } else { QUIET })
            }
            () if idle < PAUSE * 2 => Some(QUIET),
            () => None,
        }
    }

    /// Says goodbye on lanes that nobody uses any more.
    fn see_off(&mut self) {
        for lane in std::mem::take(&mut self.leaving) {
            match Arc::try_unwrap(lane) {
                Err(lane) => self.leaving.push(lane),
                Ok(lane) => {
                    self.tasks.spawn(async move {
                        lane.session.close(false).await;
                        Done::Closed
                    });
                }
            }
        }
    }

    fn open(&mut self, inner: &Arc<Inner>, open: usize, idle: Duration, now: Instant) {
        let may = !inner.is_off() && !inner.node.pooler.load(Ordering::Acquire);
        let wanted = may && idle < PAUSE * 2 && open < LANES;
        if !wanted || self.opening || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.opening = true;
        let (inner, epoch) = (Arc::clone(inner), inner.epoch.load(Ordering::Acquire));
        self.tasks.spawn(async move {
            // Behind the epoch: whoever changes it meanwhile makes this come too late.
            let role = inner.role();
            let opening = Lane::open(&inner.node, &inner.target, role, Arc::clone(&inner.crew));
            match timeout(OPEN, opening).await {
                Ok(opened) => Done::Opened(epoch, opened),
                Err(_) => Done::TooSlow,
            }
        });
    }

    /// Ends what readers who have gone had begun to prepare.
    fn adopt(&mut self, lane: &Arc<Lane>) {
        let orphans = lane.session.orphans.take();
        if !orphans.is_empty() {
            let kept = Arc::clone(lane);
            self.tasks.spawn(async move {
                // Each statement is closed as it is dropped.
                let _ = timeout(STUCK, futures::future::join_all(orphans)).await;
                drop(kept);
                Done::Closed
            });
        }
    }

    /// Asks the catalogue what there are doubts about, on a lane.
    fn check(&mut self, inner: &Arc<Inner>) {
        let lanes = inner.lanes();
        let Some(lane) = lanes.iter().find(|lane| lane.is_open()) else { return };
        for known in std::mem::take(&mut *lock(&inner.doubts)) {
            let lane = Arc::clone(lane);
            self.tasks.spawn(async move {
                let names = known.names.as_deref().unwrap_or_default();
                let asked = catalogue::is_harmless(&lane.session.client, names);
                let harmless = timeout(STUCK, asked).await.ok().flatten();
                Done::Checked(known, harmless)
            });
        }
    }

    fn take(&mut self, inner: &Inner, done: Done) {
        let now = Instant::now();
        match done {
            Done::Closed => {}
            Done::Checked(known, harmless) => {
                known.judge(|standing| standing.checked(harmless, now))
            }
            Done::Opened(epoch, Ok(Some(lane))) => {
                (self.opening, self.not_before) = (false, None);
                let in_time = epoch == inner.epoch.load(Ordering::Acquire);
                if in_time && !inner.is_closed() && !inner.is_off() {
                    inner.change(|lanes| lanes.push(lane));
                }
            }
            Done::Opened(_, failed) => {
                (self.opening, self.not_before) = (false, Some(now + PAUSE));
                if let Err(error) = failed {
                    tracing::debug!(node = %inner.target.name, %error, "no shared connection could be opened");
                }
            }
            Done::TooSlow => (self.opening, self.not_before) = (false, Some(now + PAUSE)),
        }
    }
}
