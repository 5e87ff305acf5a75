//! COPY over all shards: each gets its own rows and no others.
//!
//! Every shard copies in a transaction of its own, and none commits before all have taken all of their rows: a bad row
//! anywhere leaves every shard as it was. Only when a server fails between the commits, which follow each other at once, are
//! some done and others not; the error says which.

mod binary;
mod cutter;
mod line;
mod statement;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures::future::{Either, join, join_all, select};
use futures::{Stream, StreamExt};
use resonant_common::error::BoxError;
use tokio::sync::{mpsc, watch};

use self::cutter::{Cutter, Parcels, Places};
use self::statement::Copy;
use super::database::ShardedDatabase;
use super::key::ShardKey;
use super::live::is_gone;
use super::refusal::Checked;
use super::router::{RouteKind, ShardRouter};
use super::schema::Engine;
use crate::{Error, ErrorKind, Result, TransactionOptions};

const OPERATION: &str = "copy_in";
/// What is sent to a shard at once, and how many of these may wait for it.
const PARCEL: usize = 128 << 10;
const WAITING: usize = 2;

/// What a COPY over all shards has copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// The rows, over all shards.
    pub rows: u64,
    /// The shards that got any, in the order of declaration, with how many.
    pub shards: Vec<(String, u64)>,
}

impl ShardedDatabase {
    /// Runs a `COPY table (columns) FROM STDIN` whose rows belong to any shards; the data may be of any size. Each shard gets
    /// its own rows only, and all of them copy at the same time, each at its own pace; at most about half a megabyte waits
    /// for each.
    ///
    /// The columns have to be listed, with the key among them. The formats are text, csv (also with HEADER) and binary; the
    /// options DELIMITER, NULL, QUOTE and ESCAPE are understood and others refused. Rows end with a newline, or with a
    /// carriage return and a newline.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::ShardedDatabase) -> resonant_db::Result<()> {
    /// use std::convert::Infallible;
    /// let lines = (0..1_000_000).map(|n| Ok::<_, Infallible>(format!("org_{n}\t{n}\n")));
    /// let sql = "COPY agents (org_id, id) FROM STDIN";
    /// let report = db.copy_in(sql, futures::stream::iter(lines)).await?;
    /// assert_eq!(report.rows, 1_000_000);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict) when buckets move to another shard meanwhile: nothing was copied, copy it again.
    /// [`Refused`](ErrorKind::Refused) for a statement or a row that cannot be dealt; the message counts rows from 1 and a
    /// header with them. `Rejected` when the source of the data fails; `Unsupported` for another engine than PostgreSQL; else
    /// the error of the shard that failed first, named.
    ///
    /// **Nothing is copied on any shard** then, with one exception, of which the message says so: when a shard fails at its
    /// commit, others may have committed; the message lists those that have, those that have not, and those of which it is
    /// unknown ([`may_have_applied`](Error::may_have_applied)).
    ///
    /// # Cancel safety
    ///
    /// A dropped future copies nothing, unless the commits were already on the way.
    pub async fn copy_in<S, B, E>(&self, sql: &str, data: S) -> Result<CopyReport>
    where
        S: Stream<Item = Result<B, E>> + Send,
        B: AsRef<[u8]> + Send,
        E: Into<BoxError> + Send,
    {
        let router = &self.inner.router;
        if router.engine() != Engine::Postgres {
            let message = "SQLite has no COPY; use execute_many";
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, message));
        }
        let read = statement::read(sql, router.schema());
        let copy = self.counted(read.map_err(|refusal| refusal.error(OPERATION)))?;
        self.refreshed().await;
        self.inner.meters.routed(RouteKind::Split, 1);

        let (vote, votes) = mpsc::channel(router.count() as usize);
        let (decide, decided) = watch::channel(None);
        let (mut doors, mut takers) = (Vec::new(), Vec::new());
        for shard in 0..router.count() {
            let (door, parcels) = mpsc::channel(WAITING);
            doors.push(door);
            takers.push(self.take(shard, sql, parcels, vote.clone(), decided.clone()));
        }
        drop(vote);
        let lead = async {
            let led = lead(deal(&copy, router, data, doors), votes, router.count()).await;
            // Nobody is left to hear it only if all have failed.
            let _ = decide.send(Some(led.is_ok()));
            led
        };
        let (led, taken) = join(lead, join_all(takers)).await;
        self.reported(led, taken)
    }

    /// One shard's part: takes its rows, says when it has all of them, and commits when all others have, too.
    async fn take(
        &self,
        shard: u32,
        sql: &str,
        mut parcels: mpsc::Receiver<Vec<u8>>,
        vote: mpsc::Sender<bool>,
        decided: watch::Receiver<Option<bool>>,
    ) -> Result<u64> {
        let Some(first) = parcels.recv().await else {
            let _ = vote.send(true).await;
            return Ok(0);
        };
        let source = Mutex::new(Some((first, parcels)));
        let here = self.at(shard);
        let options = TransactionOptions::default().max_attempts(1);
        let (source, voice, decided) = (&source, &vote, &decided);
        let work = here.database.transaction_with(options, async |transaction| {
            let taken = source.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((first, parcels)) = taken else {
                let message = "the shard's primary changed, and the data cannot be sent again";
                return Err(Error::new(ErrorKind::Unavailable, OPERATION, message));
            };
            // The statement lasts as long as the data do.
            transaction.execute("SET LOCAL statement_timeout = 0", &[]).await?;
            let rest = futures::stream::unfold(parcels, async |mut parcels| {
                parcels.recv().await.map(|parcel| (parcel, parcels))
            });
            let data = futures::stream::iter([first]).chain(rest).map(Ok::<_, Infallible>);
            let rows = transaction.copy_in(sql, data).await?;
            let _ = voice.send(true).await;
            let mut decided = decided.clone();
            match decided.wait_for(Option::is_some).await.map(|verdict| *verdict) {
                Ok(Some(true)) => Ok(rows),
                _ => Err(Error::new(ErrorKind::Rejected, OPERATION, "another shard failed")),
            }
        });
        let result = here.run(OPERATION, work).await;
        if let (Some(live), Err(error)) = (&self.inner.live, &result)
            && is_gone(error)
        {
            // So that the next attempt goes where they are; this one has failed whatever comes of it.
            let _ = live.ask(here, shard).await;
        }
        let result = result.map_err(|error| match is_gone(&error) {
            true => {
                let message = "buckets moved to another shard while it was copied; copy it again";
                Error::new(ErrorKind::Conflict, OPERATION, message).with_source(error)
            }
            false => error,
        });
        if result.is_err() {
            let _ = vote.send(false).await;
        }
        result
    }

    fn reported(&self, led: Result<u64>, taken: Vec<Result<u64>>) -> Result<CopyReport> {
        let name = |shard: usize| self.inner.shards.get(shard).map_or("", |shard| &shard.name);
        let each = || taken.iter().enumerate();
        if let Err(error) = led {
            // A shard that failed says more than that one did.
            let failed = each().find_map(|(shard, result)| match result {
                Err(own) if own.message() != "another shard failed" => Some((name(shard), own)),
                _ => None,
            });
            let (place, cause) = match (&failed, error.kind() == ErrorKind::Closed) {
                (Some((shard, own)), true) => (format!("on {shard}: "), *own),
                _ => (String::new(), &error),
            };
            let message = format!("{place}{}; nothing was copied on any shard", cause.message());
            return Err(Error::new(cause.kind(), OPERATION, message).with_source(cause.clone()));
        }
        let failed = each().find_map(|(shard, result)| Some((shard, result.as_ref().err()?)));
        let Some((first, error)) = failed else {
            let rows = each().filter_map(|(shard, result)| {
                let rows = *result.as_ref().ok()?;
                (rows > 0).then(|| (name(shard).to_owned(), rows))
            });
            let shards: Vec<_> = rows.collect();
            return Ok(CopyReport { rows: shards.iter().map(|(_, rows)| rows).sum(), shards });
        };
        let list = |wanted: &dyn Fn(&Result<u64>) -> bool| {
            let names: Vec<_> =
                each().filter(|(_, result)| wanted(result)).map(|(shard, _)| name(shard)).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let message = format!(
            "the commit failed on {}: {}; copied on: {}; not copied on: {}; unknown on: {}",
            name(first),
            error.message(),
            list(&|result| matches!(result, Ok(rows) if *rows > 0)),
            list(&|result| matches!(result, Err(error) if !error.may_have_applied())),
            list(&|result| matches!(result, Err(error) if error.may_have_applied())),
        );
        let unknown = taken.iter().flat_map(|result| result.as_ref().err());
        let unknown = unknown.into_iter().any(Error::may_have_applied);
        let error = Error::new(error.kind(), OPERATION, message).with_source(error.clone());
        Err(if unknown { error.with_may_have_applied() } else { error })
    }
}

/// Waits until all data are dealt and all shards have them. An error of the kind `Closed` means that a shard failed.
async fn lead(
    dealing: impl Future<Output = Result<u64>>,
    mut votes: mpsc::Receiver<bool>,
    shards: u32,
) -> Result<u64> {
    let failed = || Error::new(ErrorKind::Closed, OPERATION, "a shard failed");
    let mut ready = 0;
    let rows = {
        let mut dealing = pin!(dealing);
        loop {
            match select(dealing.as_mut(), pin!(votes.recv())).await {
                Either::Left((rows, _)) => break rows?,
                Either::Right((Some(true), _)) => ready += 1,
                Either::Right(_) => return Err(failed()),
            }
        }
    };
    while ready < shards {
        match votes.recv().await {
            Some(true) => ready += 1,
            _ => return Err(failed()),
        }
    }
    Ok(rows)
}

/// Cuts the data and hands the parts to the shards.
async fn deal<S, B, E>(
    copy: &Copy,
    router: &ShardRouter,
    data: S,
    doors: Vec<mpsc::Sender<Vec<u8>>>,
) -> Result<u64>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: AsRef<[u8]> + Send,
    E: Into<BoxError> + Send,
{
    let mut parcels = Parcels::new(router.count(), copy);
    let mut cutter = Cutter::new(copy, router);
    let mut begun = vec![false; doors.len()];
    let fault = |fault: cutter::Fault| {
        let message = format!("row {}: {}", fault.row, fault.reason);
        Error::new(ErrorKind::Refused, OPERATION, message)
    };
    let mut data = pin!(data);
    while let Some(piece) = data.next().await {
        let piece = piece.map_err(|error| {
            let message = "the source of the data failed";
            Error::new(ErrorKind::Rejected, OPERATION, message).with_source(error)
        })?;
        // Large pieces are dealt bit by bit, so that what is held stays small.
        for piece in piece.as_ref().chunks(PARCEL) {
            cutter.push(piece, &mut parcels).map_err(fault)?;
            deliver(&mut parcels, &doors, &mut begun, PARCEL).await?;
        }
    }
    let rows = cutter.finish(&mut parcels).map_err(fault)?;
    deliver(&mut parcels, &doors, &mut begun, 1).await?;
    for (door, _) in doors.iter().zip(&begun).filter(|(_, begun)| **begun) {
        if !parcels.tail.is_empty() {
            send(door, parcels.tail.to_vec()).await?;
        }
    }
    Ok(rows)
}

/// Sends on what has at least this size.
async fn deliver(
    parcels: &mut Parcels,
    doors: &[mpsc::Sender<Vec<u8>>],
    begun: &mut [bool],
    size: usize,
) -> Result<()> {
    let Parcels { head, shards, .. } = parcels;
    for ((parcel, door), begun) in shards.iter_mut().zip(doors).zip(begun) {
        if parcel.len() < size {
            continue;
        }
        if !std::mem::replace(begun, true) && !head.is_empty() {
            send(door, head.clone()).await?;
        }
        let next = Vec::with_capacity(if size == 1 { 0 } else { parcel.len() });
        send(door, std::mem::replace(parcel, next)).await?;
    }
    Ok(())
}

async fn send(door: &mpsc::Sender<Vec<u8>>, parcel: Vec<u8>) -> Result<()> {
    let failed = |_| Error::new(ErrorKind::Closed, OPERATION, "a shard failed");
    door.send(parcel).await.map_err(failed)
}

impl Places for &ShardRouter {
    fn place(&self, key: &ShardKey<'_>) -> Checked<u32> {
        self.place_key(key)
    }
}
