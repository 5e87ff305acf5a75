//! Which shard owns which bucket while buckets move: what the shards say, how long that holds, and whether a statement
//! ran before its bucket went.
//!
//! Each shard keeps a row about itself (`resonant.place`) and one for each bucket that leaves or has left
//! (`resonant.bucket`). What a process has read there holds for [`LEASE`]: a bucket goes [`ANNOUNCED`] after that was said
//! at the earliest. So an answer that came within the lease is right without asking again. Any other is believed once the
//! shard has said afterwards that nothing has gone since the statement was sent.

mod known;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep};

use self::known::{Heard, Known};
use super::function::{Bucketed, Said, Whereabouts};
use super::shard::Shard;
use crate::backend::{ErrorExt, SqlState};
use crate::{Database, Error, ErrorKind, Result, Session, Transaction, params};

/// How long what a shard has said holds.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// How long before the first bucket goes that is said. Longer than the lease, so that clocks need not run alike.
#[cfg(feature = "postgres")]
pub(super) const ANNOUNCED: Duration = Duration::from_millis(1_500);
/// The code with which a shard refuses a write to a bucket that has gone.
pub(super) const GONE: &str = "RS001";
/// How often a statement is routed again because its bucket goes before it gets there.
pub(super) const TURNS: u32 = 64;
/// How long rows that are on two shards are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a shard is asked once more because its word is in doubt before it has come.
const DOUBTED: u32 = 8;

/// Writers of a bucket that leaves share the advisory lock of this number and its own.
pub(super) const WRITERS: i32 = 5_927_194;

/// Buckets are about to go.
pub(super) const SWITCHING: i64 = 2;

/// The tables a shard speaks with.
pub(super) const TABLES: &str = "
SELECT pg_catalog.pg_advisory_xact_lock(5927193, 1);
CREATE SCHEMA IF NOT EXISTS resonant;
CREATE TABLE IF NOT EXISTS resonant.place (
    id integer PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,
    phase bigint NOT NULL,
    departed bigint NOT NULL,
    arrived bigint NOT NULL,
    landing text,
    floor text
);
INSERT INTO resonant.place VALUES (1, 1, 0, 0, 0, NULL, NULL) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS resonant.bucket (
    bucket integer PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('leaving', 'away')),
    owner text NOT NULL,
    epoch bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS resonant.fence (id integer PRIMARY KEY CHECK (id = 1), turn bigint NOT NULL);
INSERT INTO resonant.fence VALUES (1, 0) ON CONFLICT DO NOTHING;
GRANT USAGE ON SCHEMA resonant TO PUBLIC;
GRANT SELECT ON resonant.place, resonant.bucket TO PUBLIC;";
const PLACE: &str = "SELECT version, phase, departed, arrived, landing IS NOT NULL AS landing, floor \
     FROM resonant.place WHERE id = 1";
const ROWS: &str = "SELECT bucket::bigint AS bucket, state, owner, epoch FROM resonant.bucket";
const AWAY: &str =
    "SELECT count(*) FROM resonant.bucket WHERE state = 'away' AND bucket = ANY ($1::integer[])";
const HOLD: &str =
    "SELECT pg_catalog.pg_advisory_xact_lock_shared($1::integer, b) FROM unnest($2::integer[]) b";
const MOVED: &str = "SELECT departed, arrived FROM resonant.place WHERE id = 1";

#[derive(serde::Deserialize)]
struct Place {
    version: i64,
    phase: i64,
    departed: i64,
    arrived: i64,
    landing: bool,
    floor: Option<String>,
}

#[derive(serde::Deserialize)]
struct Line {
    bucket: i64,
    state: String,
    owner: String,
    epoch: i64,
}

/// What all shards have said.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) buckets: Arc<Bucketed>,
    /// The names of the shards, and whether they have replicas.
    names: Box<[(String, bool)]>,
    known: Box<[Known]>,
    begun: Instant,
}

/// What has come and gone on a shard when a statement was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    departed: i64,
    arrived: i64,
    /// Which replicas may be read changes after that: some have rows that have gone.
    floors: u64,
}

impl Live {
    pub(super) fn new(buckets: Arc<Bucketed>, names: Box<[(String, bool)]>) -> Self {
        let known = names.iter().map(|_| Known::default()).collect();
        Self { buckets, names, known, begun: Instant::now() }
    }

    /// The indices are the router's, which are below the number of shards.
    fn of(&self, at: u32) -> &Known {
        &self.known[at as usize]
    }

    fn now(&self) -> u64 {
        // Five hundred years.
        self.begun.elapsed().as_nanos() as u64 + 1
    }

    fn holds_now(&self, at: u32) -> bool {
        let asked = self.of(at).asked.load(Ordering::Acquire);
        asked != 0 && self.now().saturating_sub(asked) <= LEASE.as_nanos() as u64
    }

    /// Whether buckets of a shard are about to go or to come.
    pub(super) fn is_switching(&self, at: u32) -> bool {
        self.of(at).phase.load(Ordering::Acquire) == SWITCHING
    }

    /// Whether a move is on that a shard takes part in.
    pub(super) fn is_moving(&self, at: u32) -> bool {
        self.of(at).phase.load(Ordering::Acquire) != 0
    }

    /// Reads on a shard have to see this.
    pub(super) fn floor(&self, at: u32) -> Option<Session> {
        let (_, replicas) = self.names.get(at as usize)?;
        if !replicas {
            return None;
        }
        self.of(at).floor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stamp(&self, at: u32) -> Stamp {
        let known = self.of(at);
        Stamp {
            departed: known.departed.load(Ordering::Acquire),
            arrived: known.arrived.load(Ordering::Acquire),
            floors: known.floors.load(Ordering::Acquire),
        }
    }

    /// Before a statement is sent to a shard: what it has said holds.
    pub(super) async fn enter(&self, shard: &Shard, at: u32) -> Result<Stamp> {
        if !self.holds_now(at) {
            self.ask(shard, at).await?;
        }
        Ok(self.stamp(at))
    }

    /// Whether what a shard has said last holds as of now.
    pub(super) fn holds(&self, at: u32) -> bool {
        self.holds_now(at)
    }

    /// Whether a bucket that was on a shard at `stamp` and is there now has been there all the time.
    pub(super) fn is_unbroken(&self, at: u32, stamp: Stamp) -> bool {
        let now = self.stamp(at);
        now.departed == stamp.departed || now.arrived == stamp.arrived
    }

    /// Asks a shard, after this was called. Of many who do one asks for all.
    pub(super) async fn ask(&self, shard: &Shard, at: u32) -> Result<()> {
        let (known, since) = (self.of(at), self.now());
        let mut heard = known.turn.lock().await;
        if known.asked.load(Ordering::Acquire) > since {
            return Ok(());
        }
        for _ in 0..DOUBTED {
            let doubts = *known.doubts();
            let sent = self.now();
            self.hear(shard, at, &mut heard).await?;
            if known.believe(sent, doubts) {
                break;
            }
        }
        Ok(())
    }

    /// Asks a shard once and takes in what it says.
    async fn hear(&self, shard: &Shard, at: u32, heard: &mut Heard) -> Result<()> {
        let known = self.of(at);
        let place = shard.run("shard_map", recall(&shard.database)).await?;
        if place.version != heard.version {
            let rows = shard.database.write().query_as::<Line>(ROWS, params![]);
            let lines = shard.run("shard_map", rows).await?;
            let said: Vec<Said> = lines.iter().filter_map(|line| self.said(line)).collect();
            for gained in self.buckets.map().learn(at, &said) {
                // What it said before it had them says nothing of replicas that do not have their rows yet.
                self.of(gained).doubt();
            }
            if place.floor != heard.floor {
                let floor = place.floor.as_deref().map(|token| shard.database.session_from(token));
                *known.floor.lock().unwrap_or_else(PoisonError::into_inner) = floor.transpose()?;
                known.floors.fetch_add(1, Ordering::AcqRel);
                heard.floor = place.floor;
            }
            heard.version = place.version;
        }
        known.departed.store(place.departed, Ordering::Release);
        known.arrived.store(place.arrived, Ordering::Release);
        known.landing.store(place.landing, Ordering::Release);
        // The last: whoever sees that the move is over sees what has gone.
        known.phase.store(place.phase, Ordering::Release);
        Ok(())
    }

    fn said(&self, line: &Line) -> Option<Said> {
        let state = match line.state.as_str() {
            "leaving" => Whereabouts::Leaving,
            "away" => {
                let owner = self.names.iter().position(|(name, _)| *name == line.owner);
                if owner.is_none() {
                    tracing::warn!(owner = %line.owner, bucket = line.bucket, "a bucket has moved to a shard that is not declared here");
                }
                Whereabouts::Away(owner.and_then(|owner| u32::try_from(owner).ok()))
            }
            _ => return None,
        };
        let bucket = u32::try_from(line.bucket).ok()?;
        Some(Said { bucket, state, epoch: line.epoch.cast_unsigned() })
    }

    /// Before a statement is sent to several shards: what they have said holds, and no rows are on two of them.
    pub(super) async fn enter_all(&self, shards: &[Shard], which: &[u32]) -> Result<Vec<Stamp>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.ask_switching(shards, which).await?;
            let landing = which.iter().find(|at| self.of(**at).landing.load(Ordering::Acquire));
            let Some(landing) = landing else { break };
            if Instant::now() >= deadline {
                let message = format!(
                    "a move of buckets to {} stopped between two steps, and their rows are on two shards: resume it",
                    self.names.get(*landing as usize).map_or("", |(name, _)| name)
                );
                return Err(Error::new(ErrorKind::Unavailable, "query", message));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(which.iter().map(|at| self.stamp(*at)).collect())
    }

    /// After all have answered: whether nothing had come or gone meanwhile.
    pub(super) async fn held_all(
        &self,
        shards: &[Shard],
        which: &[u32],
        stamps: &[Stamp],
    ) -> Result<bool> {
        self.ask_switching(shards, which).await?;
        Ok(which.iter().zip(stamps).all(|(at, stamp)| {
            self.stamp(*at) == *stamp && !self.of(*at).landing.load(Ordering::Acquire)
        }))
    }

    async fn ask_switching(&self, shards: &[Shard], which: &[u32]) -> Result<()> {
        let asked = which.iter().filter_map(|at| {
            let shard = shards.get(*at as usize)?;
            (!self.holds_now(*at) || self.is_switching(*at)).then(|| self.ask(shard, *at))
        });
        try_join_all(asked).await.map(drop)
    }

    /// Asks those whose word does not hold any more.
    pub(super) async fn refresh(&self, shards: &[Shard]) {
        let asked = shards.iter().zip(0_u32..).filter(|(_, at)| !self.holds_now(*at));
        join_all(asked.map(|(shard, at)| self.ask(shard, at))).await;
    }

    /// Asks all shards. Answers how those fared that did not answer.
    pub(super) async fn ask_all(&self, shards: &[Shard]) -> Vec<Result<()>> {
        join_all(shards.iter().zip(0_u32..).map(|(shard, at)| self.ask(shard, at))).await
    }

    /// Before a transaction commits: fails with [`GONE`] if buckets it has touched may have gone from the shard since it began.
    /// Without `touched`: if any has.
    pub(super) async fn before_commit(
        &self,
        transaction: &mut Transaction<'_>,
        at: u32,
        stamp: Stamp,
        touched: Option<&BTreeSet<u32>>,
    ) -> Result<()> {
        // In this order: what is read second may only be newer.
        let (departed, arrived) = match self.holds_now(at) && !self.is_switching(at) {
            true => {
                let now = self.stamp(at);
                (now.departed, now.arrived)
            }
            false => transaction.query_one_as::<(i64, i64)>(MOVED, params![]).await?,
        };
        if departed == stamp.departed {
            return Ok(());
        }
        // Others may have gone. What has gone may have come back, but not where nothing has come.
        if let Some(touched) = touched
            && arrived == stamp.arrived
            && transaction.query_one_as::<i64>(AWAY, params![array(touched)]).await? == 0
        {
            return Ok(());
        }
        Err(gone("transaction"))
    }

    /// Before a transaction writes to buckets: waits for those that change their owner just now. A writer that waited in the
    /// trigger would hold the row that whoever switches the owner needs.
    pub(super) async fn hold(
        &self,
        transaction: &mut Transaction<'_>,
        at: u32,
        touched: &BTreeSet<u32>,
    ) -> Result<()> {
        let map = self.buckets.map();
        let leaving: BTreeSet<u32> =
            touched.iter().copied().filter(|bucket| map.is_leaving(*bucket)).collect();
        if leaving.is_empty() || !self.is_switching(at) {
            return Ok(());
        }
        transaction.query(HOLD, params![i64::from(WRITERS), array(&leaving)]).await.map(drop)
    }

    /// Whether something has gone from a shard since, as far as is known here.
    pub(super) fn has_departed(&self, at: u32, stamp: Stamp) -> bool {
        self.stamp(at).departed != stamp.departed
    }
}

/// What a shard says of itself. It is told how to speak the first time.
async fn recall(database: &Database) -> Result<Place> {
    match database.write().query_opt_as(PLACE, params![]).await {
        Ok(Some(place)) => return Ok(place),
        Err(error) if !matches!(error.sqlstate(), Some("42P01" | "3F000")) => return Err(error),
        _ => {}
    }
    database.write().batch(TABLES).await?;
    database.write().query_one_as(PLACE, params![]).await
}

/// The bucket has gone, and the statement did nothing.
pub(super) fn gone(operation: &'static str) -> Error {
    let message = "the bucket has moved to another shard";
    Error::new(ErrorKind::Rejected, operation, message).with_source(SqlState::new(GONE, message))
}

pub(super) fn is_gone(error: &Error) -> bool {
    error.sqlstate() == Some(GONE)
}

/// Buckets as the text of an array, in ascending order.
fn array(buckets: &BTreeSet<u32>) -> String {
    let numbers: Vec<String> = buckets.iter().map(u32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// Before a statement is routed for the `turn`th time, counted from 0. A bucket that comes back is refused by its new owner
/// for a moment after the old one has let it go; and where a move stopped in that moment, until it is resumed.
pub(super) async fn pause(turn: u32) {
    if let Some(more) = turn.checked_sub(2) {
        sleep(Duration::from_millis(1 << more.min(8))).await;
    }
}

/// It was routed again and again.
pub(super) fn restless(operation: &'static str) -> Error {
    let message = "the buckets it touches moved each time before it got there; run it again";
    Error::new(ErrorKind::Conflict, operation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_two_turns_come_at_once_and_all_of_them_end() {
        let begun = Instant::now();
        pause(0).await;
        pause(1).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for turn in 0..TURNS {
            pause(turn).await;
        }
        let all = begun.elapsed();
        assert!(all > Duration::from_secs(10) && all < Duration::from_secs(15), "{all:?}");
    }
}
