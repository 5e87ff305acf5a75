//! Moving buckets from shard to shard while the program reads and writes them.
//!
//! What moves is copied to the target into tables that no statement sees. A trigger on the source writes down which rows are
//! changed meanwhile, and those are brought after. Then the buckets switch group by group: writes to a group wait while its
//! last changes are brought after, its rows become the target's and are compared by digest, and leave the source. So each
//! row is on one shard at any time a statement looks, and a group that has switched is done with.
//!
//! How far a move has come is written down on its source ([`MoveState`]), under a lock that keeps other movers away. The pure
//! part is `steps`; `inspect` refuses, `work` copies, `switch` switches.

mod found;
mod hash;
mod inspect;
mod link;
mod report;
mod steps;
mod switch;
mod tables;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::report::{MoveEvent, MoveReport};
pub use self::steps::MoveState;
use self::work::Work;
use super::BucketPlan;
use super::database::ShardedDatabase;
use super::function::Bucketed;
use crate::{Error, ErrorKind, Result};

const OPERATION: &str = "move";

type Listener = Arc<dyn Fn(MoveEvent) + Send + Sync>;

/// Moves buckets, and the rows of their keys, between shards that are in use; made by [`ShardedDatabase::mover`].
///
/// | setting | default | |
/// |---|---|---|
/// | [`group_rows`](Mover::group_rows) | 2,000 | about so many rows change their shard at once: writes to them wait meanwhile |
/// | [`lock_timeout`](Mover::lock_timeout) | 200 ms | how long a statement in progress is waited for before the mover gives way |
/// | [`attempts`](Mover::attempts) | 100 | how often it then tries again |
/// | [`rest`](Mover::rest) | 20 ms | between two groups, for reads of several shards |
/// | [`on_event`](Mover::on_event) | none | hears what happens as it happens |
///
/// Every program that uses the shards needs a [`live_map`](super::ShardedDatabaseBuilder::live_map), and declares the target
/// already. Shards have to be PostgreSQL 14 or newer and to differ in nothing: the same tables, a primary key with the shard key
/// in it, an index that begins with it, foreign keys between sharded tables that carry it, no triggers of the user's own.
/// What does not fit is [refused](ErrorKind::Refused) by name before anything is changed. Buckets of pinned keys stay.
///
/// A group that has switched has moved for good: going back is a plan of its own, and takes all new rows along.
///
/// # Cancel safety
///
/// A move whose future is dropped, whose process dies or that meets an error stays where it is: all buckets are served by
/// whoever owns them, changes are written down, and reads of several shards are refused as
/// [`Unavailable`](ErrorKind::Unavailable) if it was stopped in the moment when a group's rows are on both shards. Writes to a group
/// that comes back to a shard which had it before are refused as [`Conflict`](ErrorKind::Conflict) if it was stopped just after that.
/// [`resume`](Mover::resume) goes on from there and [`rollback`](Mover::rollback) ends it.
#[must_use = "a mover does nothing until it is told to"]
pub struct Mover<'d> {
    database: &'d ShardedDatabase,
    group_rows: u64,
    lock_timeout: Duration,
    attempts: u32,
    rest: Duration,
    listener: Option<Listener>,
}

impl ShardedDatabase {
    /// Prepares to move buckets between shards that are in use.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::ShardedDatabase) -> Result<(), Box<dyn std::error::Error>> {
    /// // The fifth shard is declared everywhere and owns nothing yet.
    /// let map = db.bucket_map().await?.ok_or("the shard function has no buckets")?;
    /// let plan = map.plan(&[0, 1, 2, 3, 4])?;
    /// for report in db.mover().on_event(|event| println!("{event:?}")).run(&plan).await? {
    ///     println!("{report}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn mover(&self) -> Mover<'_> {
        Mover {
            database: self,
            group_rows: 2_000,
            lock_timeout: Duration::from_millis(200),
            attempts: 100,
            rest: Duration::from_millis(20),
            listener: None,
        }
    }
}

impl<'d> Mover<'d> {
    /// About how many rows change their shard at once. A bucket with more goes by itself.
    pub fn group_rows(mut self, rows: u64) -> Self {
        self.group_rows = rows;
        self
    }

    /// How long a statement in progress is waited for: whoever comes behind it waits as long. Where whole tables are locked for a
    /// moment, when a move begins and when it ends, every fifth attempt waits for 1.5 s at least: then an autovacuum gives way.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_timeout = limit;
        self
    }

    /// How often it tries to get a lock, for each group.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The pause between two groups. A read of several shards that takes longer is tried again until it fits in.
    pub fn rest(mut self, rest: Duration) -> Self {
        self.rest = rest;
        self
    }

    /// Calls `listener` with what happens, as it happens. It must not block.
    pub fn on_event(mut self, listener: impl Fn(MoveEvent) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// What a plan moves from shard to shard: nothing is changed. Buckets that have moved already and those of pinned keys are
    /// left out.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the plan does not fit the map, when a table cannot be moved, or when a move is unfinished;
    /// as [`ShardedDatabase::query`] when a shard does not answer.
    pub async fn plan(&self, plan: &BucketPlan) -> Result<Vec<MoveReport>> {
        let (pairs, _) = self.checked(plan).await?;
        let mut reports = Vec::new();
        for pair in pairs {
            let (mut source, mut target) = self.links(pair.from, pair.to).await?;
            self.look(&mut source, &mut target, &pair.buckets).await?;
            reports.push(self.report(&pair, None));
        }
        Ok(reports)
    }

    /// Moves what a plan says, from shard to shard, one pair after another. Buckets that have moved already are left out, so a
    /// plan may be run again.
    ///
    /// # Errors
    ///
    /// As [`plan`](Mover::plan), and nothing is changed then. [`ErrorKind::Conflict`] when another mover is at work, or somebody
    /// holds locks for too long; [`ErrorKind::Constraint`] when the target's constraints refuse rows or digests differ. The
    /// move is unfinished then: [`resume`](Mover::resume) it or [roll it back](Mover::rollback).
    pub async fn run(&self, plan: &BucketPlan) -> Result<Vec<MoveReport>> {
        let (pairs, _) = self.checked(plan).await?;
        for pair in &pairs {
            let (mut source, mut target) = self.links(pair.from, pair.to).await?;
            self.look(&mut source, &mut target, &pair.buckets).await?;
        }
        let mut reports = Vec::new();
        for pair in pairs {
            let (mut source, mut target) = self.links(pair.from, pair.to).await?;
            self.lock(&mut source, &mut target, &pair).await?;
            // Again, under the locks.
            let tables = self.look(&mut source, &mut target, &pair.buckets).await?;
            let map = self.map().await?;
            if pair.buckets.iter().any(|bucket| map.shard(*bucket) != Some(pair.from)) {
                let message = "another mover has moved some of these buckets meanwhile: plan again";
                return Err(Error::new(ErrorKind::Conflict, OPERATION, message));
            }
            // After the map: whoever has begun elsewhere at the same time has the same epoch, or is seen here.
            self.vacant(&mut source, &mut target).await?;
            let epoch = map.epoch().cast_signed() + 1;
            let (state, mut report) = (MoveState::Preparing, self.report(&pair, None));
            let buckets = pair.buckets;
            let mut work = Work { mover: self, source, target, tables, buckets, epoch, state };
            self.walk(&mut work, &mut report).await?;
            reports.push(report);
        }
        Ok(reports)
    }

    /// Goes on with every move that is unfinished, whichever process began it.
    ///
    /// # Errors
    ///
    /// As [`run`](Mover::run); [`ErrorKind::Refused`] when the tables have changed since it began.
    pub async fn resume(&self) -> Result<Vec<MoveReport>> {
        let mut reports = Vec::new();
        for from in 0..self.database.inner.router.count() {
            if let Some((mut work, mut report)) = self.unfinished(from).await? {
                work.undo().await?;
                self.walk(&mut work, &mut report).await?;
                reports.push(report);
            }
        }
        self.sweep().await?;
        Ok(reports)
    }

    /// Ends every move that is unfinished. Buckets that have switched stay where they are, all others stay where they were;
    /// nothing of what the move needed is left.
    ///
    /// # Errors
    ///
    /// As [`resume`](Mover::resume).
    pub async fn rollback(&self) -> Result<Vec<MoveReport>> {
        let mut reports = Vec::new();
        for from in 0..self.database.inner.router.count() {
            if let Some((mut work, mut report)) = self.unfinished(from).await? {
                work.undo().await?;
                work.clear().await?;
                report.state = None;
                self.known(&report).await?;
                reports.push(report);
            }
        }
        self.sweep().await?;
        Ok(reports)
    }

    /// Takes the triggers away that refuse writes to buckets that have gone, on every shard: for the time when no process can
    /// have an old map any more and nobody writes past this crate. What the shards say of their buckets stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] while a move is unfinished; as [`ShardedDatabase::query`] when a shard does not answer.
    pub async fn release(&self) -> Result<()> {
        self.at_rest().await?;
        for at in 0..self.database.inner.router.count() {
            let mut link = self.link(at).await?;
            link.lock().await?;
            // One may have begun, and stopped, since: its triggers write down what changes.
            self.untouched(&mut link).await?;
            let schema = Arc::clone(self.database.inner.router.schema());
            let relations = inspect::relations(&mut link, &schema).await?;
            let there = relations.into_iter().filter(|(_, relation)| relation.is_some());
            for (name, _) in there {
                let limit = self.lock_timeout.as_millis().max(1);
                let forget = tables::forget_guard(&name);
                link.run(&format!("SET LOCAL lock_timeout = {limit}; {forget}")).await?;
            }
        }
        Ok(())
    }

    async fn walk(&self, work: &mut Work<'_, '_>, report: &mut MoveReport) -> Result<()> {
        let (from, to) = (work.source.name.clone(), work.target.name.clone());
        self.tell(MoveEvent::Began { from, to, buckets: work.buckets.len() }).await;
        if work.state > MoveState::Preparing {
            work.inboxes().await?;
        }
        loop {
            match work.state {
                MoveState::Preparing => {
                    work.prepare().await?;
                    work.inboxes().await?;
                }
                MoveState::Copying { tables } => work.copy(tables).await?,
                MoveState::Following => {
                    work.follow().await?;
                    // What was made different meanwhile would show in the digests; here it can be said what it is.
                    let schema = Arc::clone(self.database.inner.router.schema());
                    let Work { source, target, .. } = work;
                    let now = inspect::tables(source, target, &schema, self.buckets()?).await?;
                    self.same(&now, &work.tables)?;
                    work.reach(MoveState::Switching).await?;
                }
                MoveState::Switching => {
                    work.announce().await?;
                    work.switch_all(report).await?;
                    work.reach(MoveState::Clearing).await?;
                }
                MoveState::Clearing => {
                    work.clear().await?;
                    report.state = None;
                    return self.known(report).await;
                }
            }
        }
    }

    /// This process knows what has moved.
    async fn known(&self, report: &MoveReport) -> Result<()> {
        let inner = &self.database.inner;
        let Some(live) = &inner.live else { return Ok(()) };
        for (at, shard) in (0_u32..).zip(&inner.shards) {
            if shard.name == report.from || shard.name == report.to {
                live.ask(shard, at).await?;
            }
        }
        Ok(())
    }

    fn same(&self, now: &[tables::Table], then: &[tables::Table]) -> Result<()> {
        if now == then {
            return Ok(());
        }
        let message = "the tables have changed since the move began: roll it back and move again";
        Err(Error::new(ErrorKind::Refused, OPERATION, message))
    }

    /// What the rows are hashed by.
    fn buckets(&self) -> Result<&Bucketed> {
        let missing =
            || Error::new(ErrorKind::Config, OPERATION, "the shard function has no buckets");
        self.database.inner.buckets.as_deref().ok_or_else(missing)
    }

    /// Lets whoever waits for the event go first.
    async fn tell(&self, event: MoveEvent) {
        if let Some(listener) = &self.listener {
            listener(event);
            tokio::task::yield_now().await;
        }
    }
}

impl fmt::Debug for Mover<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mover")
            .field("group_rows", &self.group_rows)
            .field("lock_timeout", &self.lock_timeout)
            .field("attempts", &self.attempts)
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}
