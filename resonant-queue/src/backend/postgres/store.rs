//! One queue in a database.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resonant_common::join::LeaseStore;
use resonant_db::{Database, Param, Row, Rows, Transaction, params};
use tokio::sync::{Notify, OnceCell, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{calling, fault};
use super::feed::{PostgresFeed, Read};
use super::flights::Publisher;
use super::leases::PostgresLeases;
use super::settle::Settled;
use super::sharing::Ferry;
use super::text::{signed, unsigned};
use super::wakes::Wakes;
use super::{publish, schema};
use crate::backend::{Opened, QueueSpec, QueueStore, Settlement};
use crate::clock;
use crate::depth::{DeadLetter, ParkedKey, Stored};
use crate::error::{Error, ErrorKind, Result, closed, fenced};
use crate::key::Key;
use crate::message::{Outgoing, Receipt};

/// Dead letters moved in one transaction.
const MOVED: usize = 1000;

/// Statements that read for partitions at once, and such that settle. What comes meanwhile goes with the next one; two, so
/// that one that is held up does not hold up all.
const READING: usize = 2;
const SETTLING: usize = 2;

/// Partitions for which somebody waits for a place of what fell due, at once.
const PROMOTING: usize = 2;

/// How long somebody waits for a sign of room; others may make it.
const ROOM: Duration = Duration::from_millis(100);

/// What all queues of a [`Postgres`](super::Postgres) share. Its tasks end with it.
pub(super) struct Shared {
    pub(super) db: Database,
    create_tables: bool,
    ready: OnceCell<()>,
    /// The queues that were found or created from here, by name.
    known: Mutex<HashMap<String, Queue>>,
    pub(super) wakes: Arc<Wakes>,
    pub(super) reading: Ferry<Read>,
    settling: Ferry<Settled>,
    pub(super) stop: CancellationToken,
    _stop: DropGuard,
    /// Promotions at once: each may wait for a moment with a connection in its hands.
    pub(super) promoting: Semaphore,
    /// Publishing leaves half of the connections to who settles: a transaction that holds up publishers holds up nobody else.
    pub(super) publishing: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(db: Database, create_tables: bool) -> Self {
        let connections = db.config().pool.as_ref().map_or(100, |pool| pool.max_size);
        let stop = CancellationToken::new();
        Self {
            db,
            create_tables,
            ready: OnceCell::new(),
            known: Mutex::default(),
            wakes: Arc::default(),
            reading: Ferry::new(READING),
            settling: Ferry::new(SETTLING),
            promoting: Semaphore::new(PROMOTING),
            _stop: stop.clone().drop_guard(),
            stop,
            publishing: Arc::new(Semaphore::new((connections / 2).clamp(1, 32) as usize)),
        }
    }

    /// Looks once whether the tables are there.
    pub(super) async fn ready(&self, operation: &'static str) -> Result<()> {
        let check = || schema::check(&self.db, self.create_tables, operation);
        self.ready.get_or_try_init(check).await.copied()
    }

    /// What is known of a queue without asking.
    pub(super) fn known(&self, spec: &Arc<QueueSpec>) -> Option<Queue> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Queue { id, base, .. } =
            *known.get(&spec.name).filter(|it| it.spec.partitions == spec.partitions)?;
        Some(Queue { id, base, spec: Arc::clone(spec) })
    }

    fn know(&self, queue: &Queue) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(queue.spec.name.clone(), queue.clone());
    }

    /// Runs a statement on the primary.
    pub(super) async fn rows(
        &self,
        operation: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows> {
        calling(operation, || self.db.write().query(sql, params)).await
    }
}

/// A queue's row.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) id: i64,
    pub(super) base: i32,
    pub(super) spec: Arc<QueueSpec>,
}

impl Queue {
    /// Finds or creates it.
    pub(super) async fn declare(
        shared: &Shared,
        spec: &Arc<QueueSpec>,
        operation: &'static str,
    ) -> Result<Self> {
        shared.ready(operation).await?;
        let rows = shared.rows(operation, Self::DECLARE, &Self::declaration(spec)).await?;
        let queue = Self::read(&rows, spec, operation)?;
        shared.know(&queue);
        Ok(queue)
    }

    /// The same in the transaction of a caller, who may have the only connection.
    pub(super) async fn find_in(
        tx: &mut Transaction<'_>,
        shared: &Shared,
        spec: &Arc<QueueSpec>,
        operation: &'static str,
    ) -> Result<Self> {
        const FIND: &str = "SELECT id, partitions, base FROM resonant_queue.queues WHERE name = $1";
        if let Some(known) = shared.known(spec) {
            return Ok(known);
        }
        let failed = |error| fault(operation, error);
        schema::check_in(tx, operation).await?;
        let rows = tx.query(FIND, params![spec.name]).await.map_err(failed)?;
        let found = if rows.is_empty() {
            tx.query(Self::DECLARE, &Self::declaration(spec)).await.map_err(failed)?
        } else {
            rows
        };
        // Whoever made it may have done so in this transaction, and it goes with that, should it be undone: nothing is
        // remembered.
        Self::read(&found, spec, operation)
    }

    const DECLARE: &str = "SELECT id, partitions, base FROM resonant_queue.declare($1, $2, $3, $4)";

    fn declaration(spec: &QueueSpec) -> [Param<'_>; 4] {
        let (most, window) = (signed(spec.max_depth), signed(clock::as_millis(spec.dedup_window)));
        let partitions = Param::Int(i64::from(spec.partitions));
        [Param::Text(&spec.name), partitions, Param::Int(most), Param::Int(window)]
    }

    fn read(rows: &Rows, spec: &Arc<QueueSpec>, operation: &'static str) -> Result<Self> {
        let (id, partitions, base): (i64, u32, i32) =
            one(operation, rows)?.decode().map_err(|error| fault(operation, error))?;
        if partitions != spec.partitions {
            let message = format!(
                "the queue {:?} exists with {partitions} partitions, not {}; the number is fixed once it exists: build it with that one, or under another name",
                spec.name, spec.partitions
            );
            return Err(Error::new(ErrorKind::Incompatible, operation, message));
        }
        Ok(Self { id, base, spec: Arc::clone(spec) })
    }

    /// The id of a partition.
    pub(super) fn id_of(&self, partition: u32) -> i32 {
        self.base.saturating_add_unsigned(partition)
    }

    pub(super) fn number_of(&self, id: i32) -> u32 {
        u32::try_from(id.saturating_sub(self.base)).unwrap_or_default()
    }
}

/// The only row of an answer.
pub(super) fn one(operation: &'static str, rows: &Rows) -> Result<Row> {
    rows.first().ok_or_else(|| foreign(operation))
}

/// An answer that none of the queue's functions gives.
pub(super) fn foreign(operation: &'static str) -> Error {
    let message = "the queue's functions answer in another way than this program knows";
    Error::new(ErrorKind::Incompatible, operation, message)
}

/// A value of a row.
pub(super) fn get<'r, T: resonant_db::FromValue<'r>>(
    operation: &'static str,
    row: &'r Row,
    column: usize,
) -> Result<T> {
    row.get(column).map_err(|error| fault(operation, error))
}

/// Whether a handle is open.
#[derive(Debug, Default)]
pub(super) struct Open {
    closed: AtomicBool,
    pub(super) closing: Notify,
}

impl Open {
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(operation)) } else { Ok(()) }
    }
}

pub(super) struct PostgresStore {
    shared: Arc<Shared>,
    spec: Arc<QueueSpec>,
    queue: OnceCell<Queue>,
    publisher: Arc<Publisher>,
    open: Arc<Open>,
    /// Unique ids published from here, to clean up now and then.
    unique: AtomicU64,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("queue", &self.spec.name).finish_non_exhaustive()
    }
}

impl PostgresStore {
    pub(super) fn new(shared: Arc<Shared>, spec: &QueueSpec) -> Self {
        let publisher = Arc::new(Publisher::new(spec.partitions));
        let spec = Arc::new(spec.clone());
        Self {
            shared,
            spec,
            queue: OnceCell::new(),
            publisher,
            open: Arc::default(),
            unique: AtomicU64::new(0),
        }
    }

    /// The queue, found or created on first use.
    pub(super) async fn queue(&self, operation: &'static str) -> Result<&Queue> {
        self.open.check(operation)?;
        self.queue.get_or_try_init(|| Queue::declare(&self.shared, &self.spec, operation)).await
    }

    /// Moves or removes dead letters, some at a time.
    async fn move_dead(&self, operation: &'static str, limit: usize, alive: bool) -> Result<u64> {
        const MOVE: &str = "SELECT part FROM unnest(resonant_queue.move_dead($1, $2, $3)) AS part";
        let queue = self.queue(operation).await?;
        let mut moved = 0;
        while moved < limit {
            let some = (limit - moved).min(MOVED);
            let limit = signed(some as u64);
            let params = params![queue.id, limit, alive];
            let parts: Vec<i32> = self
                .shared
                .rows(operation, MOVE, params)
                .await?
                .decode()
                .map_err(|error| fault(operation, error))?;
            moved += parts.len();
            let count = parts.len();
            if alive {
                self.shared.wakes.tell(
                    &self.shared.db,
                    &self.shared.stop,
                    parts.into_iter(),
                    false,
                );
            } else {
                self.shared.wakes.room.notify_waiters();
            }
            if count < some {
                break;
            }
        }
        Ok(moved as u64)
    }
}

#[async_trait]
impl QueueStore for PostgresStore {
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>> {
        let queue = self.queue("publish").await?;
        publish::check(&queue.spec, &batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if batch.iter().all(publish::is_plain) {
            return self.publisher.publish(&self.shared, queue, batch).await;
        }
        let receipts = publish::each(&self.shared, queue, &batch).await?;
        let ids = batch.iter().filter(|message| message.unique_id.is_some()).count() as u64;
        let before = self.unique.fetch_add(ids, Ordering::Relaxed);
        if before / publish::CLEAN != (before + ids) / publish::CLEAN {
            publish::clean(&self.shared, queue);
        }
        Ok(receipts)
    }

    async fn room(&self) {
        tokio::select! {
            () = self.shared.wakes.room.notified() => {}
            () = self.open.closing.notified() => {}
            () = tokio::time::sleep(ROOM) => {}
        }
    }

    fn leases(&self) -> Arc<dyn LeaseStore> {
        Arc::new(PostgresLeases(Arc::clone(&self.shared)))
    }

    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened> {
        let queue = self.queue("open").await?;
        let id = queue.id_of(partition);
        self.shared.wakes.listen(&self.shared.db, &self.shared.stop);
        let rows = self
            .shared
            .rows(
                "open",
                "SELECT epoch, key FROM resonant_queue.open($1, $2)",
                params![id, signed(epoch)],
            )
            .await?;
        let current = unsigned(get("open", &one("open", &rows)?, 0)?);
        if current > epoch {
            return Err(fenced("open", partition, epoch, current));
        }
        let mut parked = Vec::new();
        for row in rows.iter().skip(1) {
            parked.push(Key::from(get::<&str>("open", &row, 1)?));
        }
        let feed = PostgresFeed::new(&self.shared, &self.open, id);
        Ok(Opened::new(Arc::new(feed), parked))
    }

    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()> {
        let queue = self.queue("settle").await?;
        let settled = Settled::new(queue.id_of(partition), epoch, &batch);
        let current = self.shared.settling.carry(&self.shared, settled).await?;
        if current == epoch { Ok(()) } else { Err(fenced("settle", partition, epoch, current)) }
    }

    async fn stored(&self) -> Result<Stored> {
        let queue = self.queue("depth").await?;
        let sql =
            "SELECT ready, delayed, parked, parked_keys, dead, age FROM resonant_queue.stored($1)";
        let rows = self.shared.rows("depth", sql, params![queue.id]).await?;
        let row = one("depth", &rows)?;
        let count = |column| get::<i64>("depth", &row, column).map(unsigned);
        let age: Option<i64> = get("depth", &row, 5)?;
        Ok(Stored {
            ready: count(0)?,
            delayed: count(1)?,
            parked: count(2)?,
            parked_keys: count(3)?,
            dead: count(4)?,
            oldest_age: age.map(|age| Duration::from_millis(unsigned(age))),
        })
    }

    async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>> {
        let queue = self.queue("parked").await?;
        let (first, last) = (queue.base, queue.id_of(self.spec.partitions.saturating_sub(1)));
        let sql = "SELECT k.key, k.partition, k.sequence, k.since, k.error,
                (SELECT count(*) FROM resonant_queue.parked p WHERE p.partition = k.partition AND p.key = k.key)
             FROM resonant_queue.parked_keys k WHERE k.partition BETWEEN $1 AND $2
             ORDER BY k.since, k.partition, k.sequence LIMIT $3";
        let rows =
            self.shared.rows("parked", sql, params![first, last, signed(limit as u64)]).await?;
        let read = |row: Row| {
            Ok(ParkedKey::new(
                Key::from(get::<&str>("parked", &row, 0)?),
                queue.number_of(get("parked", &row, 1)?),
                unsigned(get("parked", &row, 5)?),
                unsigned(get("parked", &row, 2)?),
                unsigned(get("parked", &row, 3)?),
                get("parked", &row, 4)?,
            ))
        };
        rows.iter().map(read).collect()
    }

    async fn resume_key(&self, partition: u32, key: &Key) -> Result<Option<u64>> {
        let queue = self.queue("resume_key").await?;
        let id = queue.id_of(partition);
        let sql = "SELECT resonant_queue.resume($1, $2)";
        let rows = self.shared.rows("resume_key", sql, params![id, key.as_str()]).await?;
        let moved: Option<i64> = get("resume_key", &one("resume_key", &rows)?, 0)?;
        self.shared.wakes.tell(&self.shared.db, &self.shared.stop, std::iter::once(id), true);
        Ok(moved.map(unsigned))
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        let queue = self.queue("dead_letters").await?;
        let sql = "SELECT key, partition, sequence, failures, published, died, error, body
             FROM resonant_queue.dead WHERE queue = $1 ORDER BY id LIMIT $2";
        let rows =
            self.shared.rows("dead_letters", sql, params![queue.id, signed(limit as u64)]).await?;
        let read = |row: Row| {
            let row = &row;
            let time = |column| get("dead_letters", row, column).map(unsigned).map(clock::time);
            Ok(DeadLetter {
                key: get::<Option<&str>>("dead_letters", row, 0)?.map(Key::from),
                partition: queue.number_of(get("dead_letters", row, 1)?),
                sequence: unsigned(get("dead_letters", row, 2)?),
                failures: get("dead_letters", row, 3)?,
                published_at: time(4)?,
                died_at: time(5)?,
                error: get("dead_letters", row, 6)?,
                body: Bytes::copy_from_slice(get::<&str>("dead_letters", row, 7)?.as_bytes()),
            })
        };
        rows.iter().map(read).collect()
    }

    async fn redrive(&self, limit: usize) -> Result<u64> {
        self.move_dead("redrive", limit, true).await
    }

    async fn purge_dead(&self, limit: usize) -> Result<u64> {
        self.move_dead("purge_dead_letters", limit, false).await
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        let queue = self.queue("pause").await?;
        let sql = "UPDATE resonant_queue.queues SET paused = $2 WHERE id = $1 RETURNING 1";
        self.shared.rows("pause", sql, params![queue.id, paused]).await.map(drop)
    }

    async fn paused(&self) -> Result<bool> {
        let queue = self.queue("paused").await?;
        let sql = "SELECT paused FROM resonant_queue.queues WHERE id = $1";
        let rows = self.shared.rows("paused", sql, params![queue.id]).await?;
        get("paused", &one("paused", &rows)?, 0)
    }

    async fn ping(&self) -> Result<()> {
        // On the primary, and through the queue's own tables.
        self.paused().await.map(drop)
    }

    async fn close(&self) {
        self.open.closed.store(true, Ordering::Release);
        self.open.closing.notify_waiters();
    }
}
