//! Owns a worker's partitions: takes its share of leases, renews them, gives back what is too much, ends all at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use resonant_common::join::{Acquired, Lease, LeaseErrorKind, LeaseStore};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::handler::{Handle, Origin};
use super::pump::{End, Mode, Pump};
use super::report::Tally;
use super::share;
use crate::clock;
use crate::lanes::Rules;
use crate::queue::Core;

/// How often shares are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// What a worker's owner asks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Drain,
    Stop,
}

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its owner wished it.
    AsAsked,
    /// The queue was closed.
    Closed,
}

/// All a worker needs.
pub(crate) struct Plan {
    /// Keeps the queue looking at itself, also when no handle is left.
    pub(crate) core: Arc<Core>,
    pub(crate) owner: String,
    pub(crate) ttl: Duration,
    pub(crate) rules: Rules,
    pub(crate) handler: Arc<dyn Handle>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) tally: Arc<Tally>,
}

pub(crate) struct Supervisor {
    plan: Plan,
    leases: Arc<dyn LeaseStore>,
    /// The place in the row of workers, and until when it is certain.
    place: Option<(u32, Lease, Instant)>,
    owned: HashMap<u32, Owned>,
    pumps: JoinSet<(u32, u64, End)>,
    /// Which partition a task served, for those that end without saying so.
    tasks: HashMap<Id, (u32, u64)>,
}

struct Owned {
    lease: Lease,
    /// Until when the lease is certainly held.
    until: Instant,
    mode: watch::Sender<Mode>,
    task: AbortHandle,
    /// Its handlers: an aborted one goes on until its next await.
    running: TaskTracker,
}

impl Supervisor {
    pub(crate) fn new(plan: Plan) -> Self {
        let leases = plan.core.store.leases();
        Self {
            plan,
            leases,
            place: None,
            owned: HashMap::new(),
            pumps: JoinSet::new(),
            tasks: HashMap::new(),
        }
    }

    /// Works until told to end, then gives the partitions back. Tells `started` once the first look at the leases is
    /// over.
    pub(crate) async fn run(
        mut self,
        mut wish: watch::Receiver<Wish>,
        started: oneshot::Sender<()>,
    ) -> Ended {
        let closing = self.plan.core.closing.clone();
        self.look().await;
        let _ = started.send(());
        let every = (self.plan.ttl / 3).min(LOOK);
        let mut next = Instant::now() + every;
        loop {
            let asked = *wish.borrow_and_update();
            match asked {
                Wish::Run => {}
                Wish::Drain => return self.drain(wish).await,
                Wish::Stop => return self.stop(Ended::AsAsked).await,
            }
            let wake = self.first_expiry().map_or(next, |expires| expires.min(next));
            tokio::select! {
                // A worker may have nothing to ask of the engine, and so not learn of it from there.
                () = closing.cancelled() => return self.stop(Ended::Closed).await,
                changed = wish.changed() => {
                    if changed.is_err() { return self.stop(Ended::AsAsked).await }
                }
                Some(ended) = self.pumps.join_next_with_id() => {
                    if self.ended(ended).await {
                        return self.stop(Ended::Closed).await;
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    self.look().await;
                    next = Instant::now() + every;
                }
            }
        }
    }

    /// Renews, then evens out the shares.
    async fn look(&mut self) {
        self.keep().await;
        if tokio::time::timeout(self.patience(), self.balance()).await.is_err() {
            tracing::debug!(queue = %self.plan.core.spec.name, "balancing partitions took too long and is tried again");
        }
        self.expire(Instant::now());
    }

    /// Renews what is held, and lets go what could not be.
    async fn keep(&mut self) {
        self.expire(Instant::now());
        // A store that hangs must not keep us from noticing that our leases run out.
        if tokio::time::timeout(self.patience(), self.renew()).await.is_err() {
            tracing::warn!(queue = %self.plan.core.spec.name, "the lease store does not answer; leases may run out");
        }
        self.expire(Instant::now());
    }

    /// When the first lease may have run out.
    fn first_expiry(&self) -> Option<Instant> {
        self.owned.values().map(|owned| owned.until).min()
    }

    /// How long the lease store is waited for: never past the moment a lease may have run out.
    fn patience(&self) -> Duration {
        let limit = self.plan.ttl / 2;
        let left = |expires: Instant| expires.saturating_duration_since(Instant::now());
        self.first_expiry().map_or(limit, |expires| left(expires).min(limit))
    }

    /// Stops pumps whose lease may have run out: somebody else may own the partition by now.
    fn expire(&mut self, now: Instant) {
        self.owned.retain(|partition, owned| {
            let live = now < owned.until;
            if !live {
                tracing::warn!(queue = %self.plan.core.spec.name, partition, "the lease could not be renewed in time");
                self.plan.tally.fenced.fetch_add(1, Ordering::Relaxed);
                owned.task.abort();
            }
            live
        });
    }

    async fn renew(&mut self) {
        let (leases, ttl, asked) = (&self.leases, self.plan.ttl, Instant::now());
        // Leases are renewed when a third of their time is gone.
        let due = |until: Instant| until.saturating_duration_since(asked) < ttl - ttl / 3;
        let renewals = self.owned.iter().filter(|(_, owned)| due(owned.until)).map(
            |(partition, owned)| async move { (*partition, leases.renew(&owned.lease, ttl).await) },
        );
        for (partition, renewed) in join_all(renewals).await {
            match renewed {
                Ok(_) => {
                    if let Some(owned) = self.owned.get_mut(&partition) {
                        owned.until = asked + ttl;
                    }
                }
                Err(error) if error.kind() == LeaseErrorKind::Lost => self.lose(partition),
                // Unknown: it stays as long as it is certain.
                Err(_) => {}
            }
        }
        if let Some((_, lease, until)) = &mut self.place
            && due(*until)
        {
            match self.leases.renew(lease, ttl).await {
                Ok(_) => *until = asked + ttl,
                Err(error) if error.kind() == LeaseErrorKind::Lost => self.place = None,
                Err(_) => {}
            }
        }
    }

    fn lose(&mut self, partition: u32) {
        if let Some(owned) = self.owned.remove(&partition) {
            tracing::warn!(queue = %self.plan.core.spec.name, partition, "lost to another owner");
            self.plan.tally.fenced.fetch_add(1, Ordering::Relaxed);
            owned.task.abort();
        }
    }

    async fn balance(&mut self) {
        let partitions = self.plan.core.spec.partitions;
        if self.place.as_ref().is_some_and(|(_, _, until)| *until <= Instant::now()) {
            self.place = None;
        }
        let Some((members, rank)) = self.row().await else { return };
        let wanted = share::share(partitions, members, rank);
        let running: Vec<_> = self
            .owned
            .iter()
            .filter(|(_, owned)| *owned.mode.borrow() == Mode::Run)
            .map(|(partition, _)| *partition)
            .collect();
        let have = u32::try_from(running.len()).unwrap_or(u32::MAX);
        if have > wanted {
            for partition in running.iter().take((have - wanted) as usize) {
                if let Some(owned) = self.owned.get(partition) {
                    owned.mode.send_replace(Mode::Drain);
                }
            }
        } else if have < wanted {
            self.acquire(wanted - have, members, rank).await;
        }
    }

    /// How many workers there are, and how many stand before this one. Takes a place first if it has none.
    async fn row(&mut self) -> Option<(u32, u32)> {
        let places = self.plan.core.spec.partitions.min(256);
        let seen = join_all((0..places).map(|place| {
            let name = self.place_name(place);
            let leases = Arc::clone(&self.leases);
            async move { leases.inspect(&name).await }
        }))
        .await;
        let mut taken: Vec<bool> = Vec::with_capacity(seen.len());
        for view in seen {
            taken.push(view.ok()?.is_some());
        }
        if self.place.is_none() {
            for place in 0..places {
                if taken[place as usize] {
                    continue;
                }
                let (name, asked) = (self.place_name(place), Instant::now());
                let answer = self.leases.acquire(&name, &self.plan.owner, self.plan.ttl).await;
                taken[place as usize] = true;
                if let Ok(Acquired::Granted(lease)) = answer {
                    self.place = Some((place, lease, asked + self.plan.ttl));
                    break;
                }
            }
        }
        let (mine, _, _) = self.place.as_ref()?;
        let count = |taken: &[bool]| {
            u32::try_from(taken.iter().filter(|taken| **taken).count()).unwrap_or_default()
        };
        Some((count(&taken).max(1), count(&taken[..*mine as usize])))
    }

    fn place_name(&self, place: u32) -> String {
        format!("{}/worker/{place}", self.plan.core.spec.name)
    }

    /// Takes up to `missing` free partitions.
    async fn acquire(&mut self, missing: u32, members: u32, rank: u32) {
        let candidates: Vec<_> = share::order(self.plan.core.spec.partitions, members, rank)
            .filter(|partition| !self.owned.contains_key(partition))
            .collect();
        let mut missing = missing as usize;
        // As many at once as are missing, so that an engine that commits in groups commits once.
        let mut rest = candidates.as_slice();
        while missing > 0 && !rest.is_empty() {
            let (now, later) = rest.split_at(missing.min(rest.len()));
            rest = later;
            let asked = Instant::now();
            let answers = join_all(now.iter().map(|partition| {
                let name = self.plan.core.spec.lease_name(*partition);
                let leases = Arc::clone(&self.leases);
                let (owner, ttl) = (self.plan.owner.clone(), self.plan.ttl);
                async move { (*partition, leases.acquire(&name, &owner, ttl).await) }
            }))
            .await;
            for (partition, answer) in answers {
                if let Ok(Acquired::Granted(lease)) = answer {
                    missing = missing.saturating_sub(1);
                    self.serve(partition, lease, asked);
                }
            }
        }
    }

    fn serve(&mut self, partition: u32, lease: Lease, asked: Instant) {
        let plan = &self.plan;
        let (mode, receiver) = watch::channel(Mode::Run);
        let epoch = lease.epoch;
        let running = TaskTracker::new();
        let pump = Pump {
            core: Arc::clone(&plan.core),
            handler: Arc::clone(&plan.handler),
            permits: Arc::clone(&plan.permits),
            tally: Arc::clone(&plan.tally),
            running: running.clone(),
            origin: Origin { partition, epoch },
            mode: receiver,
            pause: plan.core.pause.subscribe(),
        };
        let rules = plan.rules.clone();
        let task = self.pumps.spawn(async move { (partition, epoch, pump.run(rules).await) });
        self.tasks.insert(task.id(), (partition, epoch));
        let until = asked + plan.ttl;
        self.owned.insert(partition, Owned { lease, until, mode, task, running });
    }

    /// A pump ended. Says whether the queue was closed.
    async fn ended(&mut self, ended: Result<(Id, (u32, u64, End)), JoinError>) -> bool {
        let (id, end) = match ended {
            Ok((id, (_, _, end))) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let Some((partition, epoch)) = self.tasks.remove(&id) else { return false };
        let current = self.owned.get(&partition).is_some_and(|owned| owned.lease.epoch == epoch);
        if !current {
            return false;
        }
        let Some(owned) = self.owned.remove(&partition) else { return false };
        let queue = &self.plan.core.spec.name;
        match end {
            Some(End::Drained) => {
                // One that hangs must not keep us from renewing the others; this one runs out by itself.
                let release = self.leases.release(&owned.lease);
                let _ = tokio::time::timeout(self.patience(), release).await;
                false
            }
            Some(End::Fenced) => {
                tracing::warn!(queue = %queue, partition, "lost to another owner");
                self.plan.tally.fenced.fetch_add(1, Ordering::Relaxed);
                false
            }
            Some(End::Closed) => true,
            None => {
                // Its handlers may not have stopped: the lease runs out by itself.
                tracing::error!(queue = %queue, partition, "serving a partition panicked; it is taken again once its lease has run out");
                false
            }
        }
    }

    /// Lets running handlers finish, settles, gives all back. Renews meanwhile.
    async fn drain(mut self, mut wish: watch::Receiver<Wish>) -> Ended {
        let closing = self.plan.core.closing.clone();
        let deadline = clock::after(Instant::now(), self.plan.core.config.drain_timeout);
        for owned in self.owned.values() {
            owned.mode.send_replace(Mode::Drain);
        }
        let mut renew = tokio::time::interval((self.plan.ttl / 3).min(LOOK));
        while let Some(expires) = self.first_expiry() {
            tokio::select! {
                () = closing.cancelled() => return self.stop(Ended::Closed).await,
                changed = wish.changed() => {
                    if changed.is_err() || *wish.borrow() == Wish::Stop { break }
                }
                Some(ended) = self.pumps.join_next_with_id() => {
                    self.ended(ended).await;
                }
                _ = renew.tick() => self.keep().await,
                () = tokio::time::sleep_until(expires) => self.expire(Instant::now()),
                () = tokio::time::sleep_until(deadline) => {
                    self.plan.tally.abandoned.fetch_add(self.owned.len() as u64, Ordering::Relaxed);
                    break;
                }
            }
        }
        self.stop(Ended::AsAsked).await
    }

    /// Stops all handlers and gives each lease back once those of its partition have stopped.
    async fn stop(mut self, why: Ended) -> Ended {
        self.pumps.shutdown().await;
        let leases = &self.leases;
        let place = self.place.take().map(|(_, lease, _)| (lease, TaskTracker::new()));
        let owned = self.owned.drain().map(|(_, owned)| (owned.lease, owned.running));
        let releases = owned.chain(place).map(|(lease, running)| async move {
            running.close();
            running.wait().await;
            leases.release(&lease).await
        });
        // What cannot be given back in time runs out by itself.
        let _ = tokio::time::timeout(self.plan.ttl, join_all(releases)).await;
        why
    }
}
