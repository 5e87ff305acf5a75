//! What is there of moves: their records, and whether a plan fits.

use std::sync::Arc;

use serde::Deserialize;

use super::link::Link;
use super::report::MoveReport;
use super::steps::{MoveState, Pair, pairs};
use super::tables::{Table, text};
use super::work::Work;
use super::{Mover, OPERATION, hash, inspect};
use crate::backend::ErrorExt as _;
use crate::sharding::{BucketMap, BucketPlan, live};
use crate::{Error, ErrorKind, Result, params};

/// The record of a move.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    target: String,
    epoch: i64,
    state: String,
    buckets: String,
    tables: String,
}

const RECORD: &str = "SELECT target, epoch, state, array_to_string(buckets, ',') AS buckets, tables FROM resonant_move.record";
const HAS_RECORD: &str = "SELECT pg_catalog.to_regclass('resonant_move.record') IS NOT NULL";
const HAS_ORIGIN: &str = "SELECT pg_catalog.to_regclass('resonant_move.origin') IS NOT NULL";
const IS_LANDING: &str = "SELECT EXISTS (SELECT 1 FROM resonant.place WHERE landing IS NOT NULL)";

impl<'d> Mover<'d> {
    /// The moves that are unfinished.
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::query`](crate::ShardedDatabase::query) when a shard does not answer.
    pub async fn status(&self) -> Result<Vec<MoveReport>> {
        let mut reports = Vec::new();
        for shard in &self.database.inner.shards {
            let there: bool = shard.database.write().query_one_as(HAS_RECORD, params![]).await?;
            if !there {
                continue;
            }
            let record = shard.database.write().query_opt_as::<Record>(RECORD, params![]).await;
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                // It has ended just now.
                Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => continue,
                Err(error) => return Err(error),
            };
            let buckets = numbers(&record.buckets);
            let sql = "SELECT count(*) FROM resonant.bucket b, resonant_move.record r WHERE b.state = 'leaving' AND b.bucket = ANY (r.buckets)";
            let left: i64 = shard.database.write().query_one_as(sql, params![]).await?;
            let state = MoveState::parse(&record.state);
            let left = match state {
                Some(MoveState::Preparing) | None => buckets.len(),
                _ => usize::try_from(left).unwrap_or_default(),
            };
            reports.push(MoveReport {
                from: shard.name.clone(),
                to: record.target,
                state,
                moved: buckets.len().saturating_sub(left),
                left,
                rows: 0,
                pauses: Vec::new(),
            });
        }
        Ok(reports)
    }

    /// The move a shard has a record of, with both shards locked.
    pub(super) async fn unfinished(&self, from: u32) -> Result<Option<(Work<'_, 'd>, MoveReport)>> {
        let mut source = self.link(from).await?;
        if !source.value::<bool>(HAS_RECORD).await? {
            return Ok(None);
        }
        let record: Record = source.value(RECORD).await?;
        let router = &self.database.inner.router;
        let to = router.shard_names().iter().position(|name| *name == record.target);
        let Some(to) = to.and_then(|to| u32::try_from(to).ok()) else {
            let message = format!(
                "a move from {} to {} is unfinished, and that shard is not declared",
                source.name, record.target
            );
            return Err(Error::new(ErrorKind::Config, OPERATION, message));
        };
        let mut target = self.link(to).await?;
        let pair = Pair { from, to, buckets: numbers(&record.buckets) };
        self.lock(&mut source, &mut target, &pair).await?;
        // Another mover may have ended it while this one waited.
        if !source.value::<bool>(HAS_RECORD).await? {
            return Ok(None);
        }
        let record: Record = source.value(RECORD).await?;
        let Some(state) = MoveState::parse(&record.state) else {
            let message = format!(
                "the record of the move says {:?}, which this version does not know",
                record.state
            );
            return Err(Error::new(ErrorKind::Config, OPERATION, message));
        };
        let schema = Arc::clone(router.schema());
        let tables = inspect::tables(&mut source, &mut target, &schema, self.buckets()?).await?;
        let (epoch, buckets) = (record.epoch, numbers(&record.buckets));
        let mut work = Work { mover: self, source, target, tables, buckets, epoch, state };
        if state == MoveState::Preparing {
            // What it has on the target is made anew; what others have there is not.
            let other: bool = match work.target.value(HAS_ORIGIN).await? {
                true => {
                    let own = text(&work.source.name);
                    let sql = format!(
                        "SELECT EXISTS (SELECT 1 FROM resonant_move.origin WHERE source <> {own})"
                    );
                    work.target.value(&sql).await?
                }
                false => work.target.value(HAS_RECORD).await?,
            };
            if other {
                return Err(engaged(&work.target.name));
            }
        }
        if work.names() != record.tables {
            let message = format!(
                "the move is one of the tables {} and {} are declared",
                record.tables,
                work.names()
            );
            return Err(Error::new(ErrorKind::Refused, OPERATION, message));
        }
        let left = match state {
            MoveState::Preparing => work.buckets.len(),
            _ => work.left().await?.len(),
        };
        let mut report =
            self.report(&Pair { from, to, buckets: work.buckets.clone() }, Some(state));
        report.moved = work.buckets.len().saturating_sub(left);
        report.left = left;
        Ok(Some((work, report)))
    }

    /// Takes away what a target has of a move its source knows nothing of.
    pub(super) async fn sweep(&self) -> Result<()> {
        let inner = &self.database.inner;
        for at in 0..inner.router.count() {
            let mut target = self.link(at).await?;
            if !target.value::<bool>(HAS_ORIGIN).await? {
                continue;
            }
            target.lock().await?;
            let sql = "SELECT source FROM resonant_move.origin";
            for name in target.rows::<String>(sql).await? {
                let from = inner.router.shard_names().iter().position(|other| *other == name);
                let Some(from) = from.and_then(|from| u32::try_from(from).ok()) else { continue };
                if !self.link(from).await?.value::<bool>(HAS_RECORD).await? {
                    target
                        .run("DROP SCHEMA resonant_move CASCADE; UPDATE resonant.place SET phase = 0, version = version + 1;")
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// The pairs of a plan, and the map it was compared with.
    pub(super) async fn checked(&self, plan: &BucketPlan) -> Result<(Vec<Pair>, BucketMap)> {
        let inner = &self.database.inner;
        if inner.live.is_none() {
            let message = "moving buckets needs a live_map, in every program that uses the shards";
            return Err(Error::new(ErrorKind::Config, OPERATION, message));
        }
        self.at_rest().await?;
        let map = self.map().await?;
        let count = inner.router.count();
        if let Some(step) = plan.moves.iter().find(|step| step.from >= count || step.to >= count) {
            let message =
                format!("the plan names shard {} and {count} are declared", step.to.max(step.from));
            return Err(Error::new(ErrorKind::Refused, OPERATION, message));
        }
        match pairs(plan, &map, &inner.origin.pinned) {
            Ok(pairs) => Ok((pairs, map)),
            Err(bucket) => {
                let message =
                    format!("bucket {bucket} is not where the plan takes it to be: plan again");
                Err(Error::new(ErrorKind::Refused, OPERATION, message))
            }
        }
    }

    pub(super) async fn at_rest(&self) -> Result<()> {
        match self.status().await?.first() {
            None => Ok(()),
            Some(unfinished) => {
                let message =
                    format!("a move is unfinished, resume it or roll it back: {unfinished}");
                Err(Error::new(ErrorKind::Refused, OPERATION, message))
            }
        }
    }

    /// Under the locks of both shards: neither has a part in a move that is unfinished, of which the preparations would leave nothing.
    pub(super) async fn vacant(&self, source: &mut Link, target: &mut Link) -> Result<()> {
        self.at_rest().await?;
        for link in [source, target] {
            self.untouched(link).await?;
            if link.value(IS_LANDING).await? {
                return Err(engaged(&link.name));
            }
        }
        Ok(())
    }

    /// Under the lock of a shard: it has no part in a move that is unfinished.
    pub(super) async fn untouched(&self, link: &mut Link) -> Result<()> {
        let busy = link.value::<bool>(HAS_RECORD).await? || link.value::<bool>(HAS_ORIGIN).await?;
        if busy { Err(engaged(&link.name)) } else { Ok(()) }
    }

    pub(super) async fn map(&self) -> Result<BucketMap> {
        let missing =
            || Error::new(ErrorKind::Config, OPERATION, "the shard function has no buckets");
        self.database.bucket_map().await?.ok_or_else(missing)
    }

    /// The tables that move, or why they cannot.
    pub(super) async fn look(
        &self,
        source: &mut Link,
        target: &mut Link,
        buckets: &[u32],
    ) -> Result<Vec<Table>> {
        let schema = Arc::clone(self.database.inner.router.schema());
        let tables = inspect::tables(source, target, &schema, self.buckets()?).await?;
        for link in [&mut *source, &mut *target] {
            link.run(&format!("{} {}", live::TABLES, hash::functions())).await?;
            inspect::hashes(link, &tables, self.buckets()?).await?;
        }
        inspect::empty(target, &tables, buckets, self.buckets()?).await?;
        Ok(tables)
    }

    pub(super) async fn link(&self, at: u32) -> Result<Link> {
        let inner = &self.database.inner;
        let url = inner.origin.urls.get(at as usize).map_or("", String::as_str);
        Link::open(inner.router.name(at), url).await
    }

    pub(super) async fn links(&self, from: u32, to: u32) -> Result<(Link, Link)> {
        Ok((self.link(from).await?, self.link(to).await?))
    }

    /// In the order of the shards, so that two movers do not wait for each other.
    pub(super) async fn lock(
        &self,
        source: &mut Link,
        target: &mut Link,
        pair: &Pair,
    ) -> Result<()> {
        match pair.from < pair.to {
            true => {
                source.lock().await?;
                target.lock().await
            }
            false => {
                target.lock().await?;
                source.lock().await
            }
        }
    }

    pub(super) fn report(&self, pair: &Pair, state: Option<MoveState>) -> MoveReport {
        let router = &self.database.inner.router;
        MoveReport {
            from: router.name(pair.from).to_owned(),
            to: router.name(pair.to).to_owned(),
            state,
            moved: 0,
            left: pair.buckets.len(),
            rows: 0,
            pauses: Vec::new(),
        }
    }
}

fn engaged(shard: &str) -> Error {
    let message =
        format!("{shard} has a part in a move that is unfinished: resume it or roll it back");
    Error::new(ErrorKind::Refused, OPERATION, message)
}

fn numbers(list: &str) -> Vec<u32> {
    list.split(',').filter_map(|number| number.parse().ok()).collect()
}
