//! The switch: a group of buckets changes its owner while writes to it wait.
//!
//! | on the source | on the target |
//! |---|---|
//! | takes the locks of the buckets alone: writers inside are waited for, new ones wait | |
//! | brings the last changes after | |
//! | digests the rows, deletes them | makes the rows its own, digests them |
//! | | **commits**: the rows are on both, and it says so |
//! | **commits**: the buckets are the target's | |
//! | writers that waited are refused with `RS001` and go to the target | takes writes to them, where it had given them away before |
//! | | says that the rows are its own alone |
//!
//! The second commit decides. Stopped before it, the rows on the target are lifted out again and the source never knew;
//! stopped after it, the rest is done again.

use std::collections::BTreeMap;

use futures::future::join;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::link::{Link, SILENT, meanwhile};
use super::report::{MoveEvent, MoveReport};
use super::steps::{MoveState, groups};
use super::tables::{Table, array, columns_now, text};
use super::work::Work;
use super::{OPERATION, inspect};
use crate::sharding::live::WRITERS;
use crate::{Error, ErrorKind, Result};

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Digest {
    bucket: i64,
    rows: i64,
    digest: String,
}

impl Work<'_, '_> {
    /// The buckets that have not changed their owner yet.
    pub(super) async fn left(&mut self) -> Result<Vec<u32>> {
        let sql = format!(
            "SELECT bucket::bigint FROM resonant.bucket WHERE state = 'leaving' AND bucket = ANY ({}) ORDER BY 1",
            array(&self.buckets)
        );
        let left: Vec<i64> = self.source.rows(&sql).await?;
        Ok(left.into_iter().filter_map(|bucket| u32::try_from(bucket).ok()).collect())
    }

    /// All groups, one after another.
    pub(super) async fn switch_all(&mut self, report: &mut MoveReport) -> Result<()> {
        let mut counts: BTreeMap<u32, u64> =
            self.left().await?.into_iter().map(|bucket| (bucket, 0)).collect();
        for at in 0..self.tables.len() {
            let sql = format!(
                "SELECT \"resonant bucket\"::bigint, count(*) FROM resonant_move.rows_{at} GROUP BY 1"
            );
            for (bucket, rows) in self.target.rows::<(i64, i64)>(&sql).await? {
                let count = u32::try_from(bucket).ok().and_then(|bucket| counts.get_mut(&bucket));
                if let Some(count) = count {
                    *count += rows.unsigned_abs();
                }
            }
        }
        for group in groups(&counts, self.mover.group_rows) {
            self.follow().await?;
            let mut attempt = 1;
            loop {
                match self.switch(&group, report).await? {
                    None => break,
                    Some(_) if attempt < self.mover.attempts => attempt += 1,
                    Some(error) => return Err(error),
                }
                self.mover.tell(MoveEvent::GaveWay).await;
                sleep(self.mover.rest).await;
                self.follow().await?;
            }
            // For those who read several shards at once.
            sleep(self.mover.rest).await;
        }
        Ok(())
    }

    /// One group. `Some`: somebody was in the way, and both shards are as they were. After an error they are, too, or
    /// [`undo`](Work::undo) knows what to do.
    async fn switch(&mut self, group: &[u32], report: &mut MoveReport) -> Result<Option<Error>> {
        self.source.begin().await?;
        self.target.begin().await?;
        let landed = self.land(group).await;
        let (rows, began) = match landed {
            Ok(landed) => landed,
            Err(error) => {
                self.source.rollback().await?;
                self.target.rollback().await?;
                return if gives_way(&error) { Ok(Some(error)) } else { Err(error) };
            }
        };
        let buckets = group.to_vec();
        let Work { mover, source, target, .. } = self;
        let commits = async {
            target.commit().await?;
            mover.tell(MoveEvent::Landed { buckets: buckets.clone(), rows }).await;
            // Its replicas are not to be read before they have come this far.
            let token = text(&target.token().await?);
            let sql = format!("UPDATE resonant.place SET floor = {token}, version = version + 1");
            target.run(&sql).await
        };
        meanwhile(source, commits).await?;
        self.source.commit().await?;
        let pause = began.elapsed();
        report.rows += rows;
        report.moved += group.len();
        report.left = report.left.saturating_sub(group.len());
        report.pauses.push(pause);
        self.settle(&array(group)).await?;
        self.mover.tell(MoveEvent::Switched { buckets, rows, pause }).await;
        Ok(None)
    }

    /// Everything of a switch but the commits, in transactions that are open. Answers the rows, and since when writers wait.
    async fn land(&mut self, group: &[u32]) -> Result<(u64, Instant)> {
        let buckets = array(group);
        let limit = self.mover.lock_timeout.as_millis().max(1);
        // For all the locks together.
        let longer = limit * 2;
        let began = Instant::now();
        self.source
            .run(&format!(
                "{SILENT} SET LOCAL lock_timeout = {limit}; SET LOCAL statement_timeout = {longer};
                 SELECT pg_catalog.pg_advisory_xact_lock({WRITERS}, b) FROM unnest({buckets}) b;
                 SET LOCAL statement_timeout = 0;
                 UPDATE resonant.fence SET turn = turn + 1;
                 UPDATE resonant.place SET departed = departed + 1, version = version + 1;"
            ))
            .await?;
        self.mover.tell(MoveEvent::Fenced { buckets: group.to_vec() }).await;
        self.changes().await?;
        // The target's tables may be locked as well.
        let (mut insert, mut delete) =
            (format!("SET LOCAL lock_timeout = {limit}; "), String::new());
        for (at, table) in self.tables.iter().enumerate() {
            insert.push_str(&table.land(at, &buckets));
            insert.push_str(&table.advance(at, &buckets));
            delete.insert_str(0, &table.depart(at, &buckets));
        }
        insert.push_str(&format!(
            "UPDATE resonant.place SET landing = {}, arrived = arrived + 1, version = version + 1;",
            text(&buckets)
        ));
        delete.push_str(&format!(
            "UPDATE resonant.bucket SET state = 'away' WHERE bucket = ANY ({buckets});"
        ));
        let Work { source, target, tables, .. } = self;
        let tables = tables.as_slice();
        let keys = |at: usize, _: &Table| format!("resonant_move.keys_{at}");
        let waiting = |at: usize, table: &Table| table.waiting_keys(at);
        let landed = Notify::new();
        let leaving = async {
            let left = async {
                let digests = digested(source, tables, &buckets, keys).await?;
                source.run(&delete).await?;
                Ok::<_, Error>(digests)
            };
            let left = left.await;
            // The target may need longer.
            let beaten = source.beat(&landed).await;
            let digests = left?;
            beaten.map(|()| digests)
        };
        let coming = async {
            let came = async {
                target.run(&insert).await?;
                digested(target, tables, &buckets, waiting).await
            };
            let came = came.await;
            landed.notify_one();
            came
        };
        // Both to their end, so that neither session is left in the middle of a statement.
        let (here, there) = join(leaving, coming).await;
        let (here, there) = (here?, there?);
        for ((table, here), there) in tables.iter().zip(&here).zip(&there) {
            if here == there {
                continue;
            }
            let of = |digests: &[Digest]| -> BTreeMap<i64, (i64, String)> {
                let each = digests.iter().map(|one| (one.bucket, (one.rows, one.digest.clone())));
                each.collect()
            };
            let (one, other) = (of(here), of(there));
            let differ: Vec<String> = group
                .iter()
                .map(|bucket| i64::from(*bucket))
                .filter(|bucket| one.get(bucket) != other.get(bucket))
                .map(|bucket| bucket.to_string())
                .collect();
            let message = format!(
                "the rows of {} in the buckets {} are not the same on {} and {}; nothing was switched: roll back, look at \
                 them and move again",
                table.name,
                differ.join(", "),
                source.name,
                target.name
            );
            return Err(Error::new(ErrorKind::Constraint, OPERATION, message));
        }
        let rows = here.iter().flatten().map(|digest| digest.rows.unsigned_abs()).sum();
        Ok((rows, began))
    }

    /// After a switch: the rows are the target's alone.
    async fn settle(&mut self, buckets: &str) -> Result<()> {
        // What it had given away has come back. Not before the source has let it go: both would take writes.
        let sql = format!(
            "DELETE FROM resonant.bucket WHERE bucket = ANY ({buckets}) AND state = 'away';
             UPDATE resonant.place SET version = version + 1;"
        );
        self.target.run(&sql).await?;
        // Its replicas still have what is deleted here: who reads several shards must not read it there.
        let token = text(&self.source.token().await?);
        self.source
            .run(&format!("UPDATE resonant.place SET floor = {token}, version = version + 1"))
            .await?;
        let rooms: String =
            self.tables.iter().enumerate().map(|(at, table)| table.settle(at, buckets)).collect();
        self.target
            .run(&format!(
                "{rooms} UPDATE resonant.place SET landing = NULL, version = version + 1;"
            ))
            .await
    }

    /// What was stopped between the two commits of a switch: done to the end, or undone.
    pub(super) async fn undo(&mut self) -> Result<()> {
        if self.state < MoveState::Switching {
            return Ok(());
        }
        let landing: Option<String> =
            self.target.value("SELECT landing FROM resonant.place WHERE id = 1").await?;
        let Some(buckets) = landing else { return Ok(()) };
        let sql = format!(
            "SELECT count(*) FROM resonant.bucket WHERE state = 'leaving' AND bucket = ANY ({buckets})"
        );
        if self.source.value::<i64>(&sql).await? == 0 {
            return self.settle(&buckets).await;
        }
        let lifted: String = self
            .tables
            .iter()
            .enumerate()
            .rev()
            .map(|(at, table)| table.lift(at, &buckets))
            .collect();
        self.target.run(&lifted).await?;
        // Its replicas still have them.
        let token = text(&self.target.token().await?);
        self.target
            .run(&format!(
                "UPDATE resonant.place SET floor = {token}, landing = NULL, arrived = arrived + 1, version = version + 1"
            ))
            .await
    }

    /// Takes away what the move needed. The triggers stay and refuse writes to buckets that have gone.
    pub(super) async fn clear(&mut self) -> Result<()> {
        // Whoever still writes down a change is waited for.
        let names: Vec<String> = self.tables.iter().map(super::tables::Table::quoted).collect();
        let guards = self.last_guards().await?;
        let sql = format!(
            "{} DELETE FROM resonant.bucket WHERE state = 'leaving' AND bucket = ANY ({});
             {guards}
             UPDATE resonant.place SET phase = 0, version = version + 1;
             UPDATE resonant_move.record SET state = {}, buckets = ARRAY(
                 SELECT b.bucket FROM resonant.bucket b WHERE b.bucket = ANY (buckets) AND b.state = 'away' AND b.owner = target
                 ORDER BY 1);",
            super::work::lock(&names),
            array(&self.buckets),
            text(&MoveState::Clearing.to_string()),
        );
        self.undisturbed(&sql).await?;
        self.target
            .run("DROP SCHEMA IF EXISTS resonant_move CASCADE; UPDATE resonant.place SET phase = 0, version = version + 1;")
            .await?;
        let owns_all: bool = self
            .target
            .value("SELECT NOT EXISTS (SELECT 1 FROM resonant.bucket WHERE state = 'away')")
            .await?;
        if owns_all {
            // Everything it had given away has come back. Where somebody is in the way the triggers stay, and refuse nothing.
            let limit = self.mover.lock_timeout.as_millis().max(1);
            let forget: String =
                self.tables.iter().map(|table| super::tables::forget_guard(&table.name)).collect();
            match self.target.run(&format!("SET LOCAL lock_timeout = {limit}; {forget}")).await {
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                _ => {}
            }
        }
        self.source.run("DROP SCHEMA resonant_move CASCADE").await?;
        self.mover.tell(MoveEvent::Finished).await;
        Ok(())
    }

    /// What guards the source once the move is over: nothing, where it has given no bucket away.
    async fn last_guards(&mut self) -> Result<String> {
        let away: bool = self
            .source
            .value("SELECT EXISTS (SELECT 1 FROM resonant.bucket WHERE state = 'away')")
            .await?;
        Ok(match away {
            true => self.guards(false),
            false => {
                self.tables.iter().map(|table| super::tables::forget_guard(&table.name)).collect()
            }
        })
    }

    /// Tables where changes arrive, for the time of this session.
    pub(super) async fn inboxes(&mut self) -> Result<()> {
        let inboxes: String =
            self.tables.iter().enumerate().map(|(at, table)| table.inbox(at)).collect();
        if inboxes.is_empty() { Ok(()) } else { self.target.run(&inboxes).await }
    }
}

/// The digests of a group on one shard. From then on until the end of the transaction nobody changes the tables themselves: that
/// they are still those which the move began with is looked at here.
async fn digested(
    link: &mut Link,
    tables: &[Table],
    buckets: &str,
    keys: impl Fn(usize, &Table) -> String,
) -> Result<Vec<Vec<Digest>>> {
    let mut digests = Vec::with_capacity(tables.len());
    for (at, table) in tables.iter().enumerate() {
        digests.push(link.rows(&table.digest(&keys(at, table), buckets)).await?);
    }
    if !tables.is_empty() {
        let now: Vec<(i64, String)> = link.rows(&columns_now(tables)).await?;
        inspect::unchanged(tables, &now, &link.name)?;
    }
    Ok(digests)
}

/// Whether somebody was in the way.
fn gives_way(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::TimedOut)
}
