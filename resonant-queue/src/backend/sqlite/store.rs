//! One queue in a file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resonant_common::join::LeaseStore;
use rusqlite::{OptionalExtension, params};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::feed::{SqliteFeed, unsigned};
use super::leases::SqliteLeases;
use super::publish::{New, revive};
use super::schema::SHIFT;
use super::writer::{Fault, Tx};
use super::{Shared, publish, settle};
use crate::backend::{Opened, QueueSpec, QueueStore, Settlement};
use crate::clock;
use crate::depth::{DeadLetter, ParkedKey, Stored};
use crate::error::{Error, ErrorKind, Result, closed};
use crate::key::Key;
use crate::message::{Outgoing, Receipt};

/// Dead letters moved in one transaction.
const MOVED: usize = 1000;

/// A queue's row.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) id: i64,
    base: i64,
    pub(super) spec: QueueSpec,
}

impl Queue {
    /// The id of a partition.
    pub(super) fn id_of(&self, partition: u32) -> i64 {
        self.base + i64::from(partition)
    }
}

/// Finds or creates a queue.
pub(super) fn declare(tx: &mut Tx<'_>, spec: &QueueSpec) -> Result<Queue, Fault> {
    let known: Option<(i64, u32, i64)> = tx
        .conn
        .prepare_cached("SELECT id, partitions, base FROM queues WHERE name = ?1")?
        .query_row([&spec.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    if let Some((id, partitions, base)) = known {
        if partitions != spec.partitions {
            let message = format!(
                "the queue {:?} exists with {partitions} partitions, not {}; the number is fixed once it exists: build it with that one, or under another name",
                spec.name, spec.partitions
            );
            return Err(Fault::Refused(Error::new(ErrorKind::Incompatible, "build", message)));
        }
        return Ok(Queue { id, base, spec: spec.clone() });
    }
    let base: i64 =
        tx.conn
            .query_row("SELECT coalesce(max(id), 0) + 1 FROM partitions", [], |row| row.get(0))?;
    if base + i64::from(spec.partitions) >= 1 << (63 - SHIFT) {
        let message = "the file holds too many partitions; use another file";
        return Err(Fault::Refused(Error::new(ErrorKind::Unsupported, "build", message)));
    }
    tx.conn
        .prepare_cached("INSERT INTO queues (name, partitions, base) VALUES (?1, ?2, ?3)")?
        .execute(params![spec.name, spec.partitions, base])?;
    let id = tx.conn.last_insert_rowid();
    let mut insert =
        tx.conn.prepare_cached("INSERT INTO partitions (id, queue) VALUES (?1, ?2)")?;
    for number in 0..i64::from(spec.partitions) {
        insert.execute(params![base + number, id])?;
    }
    Ok(Queue { id, base, spec: spec.clone() })
}

/// Whether a handle is open.
#[derive(Debug, Default)]
pub(super) struct Open {
    closed: AtomicBool,
    bell: Notify,
}

impl Open {
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(operation)) } else { Ok(()) }
    }

    pub(super) fn closing(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

pub(super) struct SqliteStore {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    open: Arc<Open>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.shared.options.path)
            .field("queue", &self.queue.spec.name)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    pub(super) fn new(shared: Arc<Shared>, queue: Queue) -> Self {
        Self { shared, queue: Arc::new(queue), open: Arc::default() }
    }

    /// Runs a write on the queue.
    async fn write<R: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Tx<'_>, &Queue) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R> {
        self.open.check(operation)?;
        let queue = Arc::clone(&self.queue);
        self.shared.writer.call(operation, move |tx| work(tx, &queue)).await
    }

    /// Runs a read on the queue.
    async fn read<R: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection, &Queue) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R> {
        self.open.check(operation)?;
        let queue = Arc::clone(&self.queue);
        self.shared.reader.call(operation, move |conn| work(conn, &queue)).await
    }

    /// Moves or removes dead letters, some at a time.
    async fn move_dead(&self, operation: &'static str, limit: usize, alive: bool) -> Result<u64> {
        let mut moved = 0;
        while moved < limit {
            let some = (limit - moved).min(MOVED);
            let count =
                self.write(operation, move |tx, queue| move_dead(tx, queue, some, alive)).await?;
            moved += count;
            if count < some {
                break;
            }
        }
        Ok(moved as u64)
    }
}

fn move_dead(tx: &mut Tx<'_>, queue: &Queue, limit: usize, alive: bool) -> Result<usize, Fault> {
    type Letter = (i64, u32, Option<String>, Option<String>, String);
    let letters: Vec<Letter> = tx
        .conn
        .prepare_cached(
            "SELECT id, partition, key, headers, body FROM dead WHERE queue = ?1 ORDER BY id LIMIT ?2",
        )?
        .query_map(params![queue.id, publish::signed(limit)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let count = letters.len();
    for (id, partition, key, headers, body) in letters {
        if alive {
            let key = key.map(Key::from);
            let new = New { key: key.as_ref(), published: tx.now, headers, body: &body };
            revive(tx, queue.id_of(partition), &new)?;
        }
        tx.conn.prepare_cached("DELETE FROM dead WHERE id = ?1")?.execute([id])?;
    }
    tx.state.counts(tx.conn, queue.id)?.dead -= publish::signed(count);
    if !alive && count > 0 {
        *tx.freed = true;
    }
    Ok(count)
}

#[async_trait]
impl QueueStore for SqliteStore {
    async fn publish(&self, batch: Arc<Vec<Outgoing>>) -> Result<Vec<Receipt>> {
        self.write("publish", move |tx, queue| publish::publish(tx, queue, &batch)).await
    }

    async fn room(&self) {
        tokio::select! {
            () = self.shared.wakes.wait_for_room() => {}
            () = self.open.closing() => {}
        }
    }

    fn leases(&self) -> Arc<dyn LeaseStore> {
        Arc::new(SqliteLeases(Arc::clone(&self.shared)))
    }

    async fn open(&self, partition: u32, epoch: u64) -> Result<Opened> {
        let opened =
            move |tx: &mut Tx<'_>, queue: &Queue| settle::open(tx, queue, partition, epoch);
        let (parked, resumed) = self.write("open", opened).await?;
        let id = self.queue.id_of(partition);
        let feed = SqliteFeed {
            shared: Arc::clone(&self.shared),
            open: Arc::clone(&self.open),
            partition: id,
            bell: self.shared.wakes.bell(id),
            resumed: AtomicI64::new(resumed),
        };
        Ok(Opened::new(Arc::new(feed), parked))
    }

    async fn settle(&self, partition: u32, epoch: u64, batch: Arc<Vec<Settlement>>) -> Result<()> {
        self.write("settle", move |tx, queue| settle::settle(tx, queue, partition, epoch, &batch))
            .await
    }

    async fn stored(&self) -> Result<Stored> {
        self.read("depth", |conn, queue| {
            let mut stored = conn
                .prepare_cached(
                    "SELECT ready, delayed, parked, parked_keys, dead FROM queues WHERE id = ?1",
                )?
                .query_row([queue.id], |row| {
                    Ok(Stored {
                        ready: unsigned(row.get(0)?),
                        delayed: unsigned(row.get(1)?),
                        parked: unsigned(row.get(2)?),
                        parked_keys: unsigned(row.get(3)?),
                        dead: unsigned(row.get(4)?),
                        oldest_age: None,
                    })
                })?;
            let mut first = conn.prepare_cached(
                "SELECT published FROM messages WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT 1",
            )?;
            let now = clock::now_millis();
            for number in 0..queue.spec.partitions {
                let partition = queue.id_of(number);
                let published: Option<i64> = first
                    .query_row([partition << SHIFT, (partition + 1) << SHIFT], |row| row.get(0))
                    .optional()?;
                let age = published.map(|published| {
                    Duration::from_millis(now.saturating_sub(unsigned(published)))
                });
                stored.oldest_age = stored.oldest_age.max(age);
            }
            Ok(stored)
        })
        .await
    }

    async fn parked(&self, limit: usize) -> Result<Vec<ParkedKey>> {
        self.read("parked", move |conn, queue| {
            let (first, last) = (queue.id_of(0), queue.id_of(queue.spec.partitions - 1));
            let base = queue.base;
            conn.prepare_cached(
                "SELECT k.key, k.partition, k.sequence, k.since, k.error,
                        (SELECT count(*) FROM parked p WHERE p.partition = k.partition AND p.key = k.key)
                 FROM parked_keys k WHERE k.partition BETWEEN ?1 AND ?2
                 ORDER BY k.since, k.partition, k.sequence LIMIT ?3",
            )?
            .query_map(params![first, last, publish::signed(limit)], |row| {
                let number = u32::try_from(row.get::<_, i64>(1)? - base).unwrap_or_default();
                Ok(ParkedKey::new(
                    Key::from(row.get::<_, String>(0)?),
                    number,
                    unsigned(row.get(5)?),
                    unsigned(row.get(2)?),
                    unsigned(row.get(3)?),
                    row.get(4)?,
                ))
            })?
            .collect()
        })
        .await
    }

    async fn resume_key(&self, partition: u32, key: &Key) -> Result<Option<u64>> {
        let key = key.clone();
        self.write("resume_key", move |tx, queue| settle::resume(tx, queue, partition, &key)).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.read("dead_letters", move |conn, queue| {
            conn.prepare_cached(
                "SELECT key, partition, sequence, failures, published, died, error, body
                 FROM dead WHERE queue = ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map(params![queue.id, publish::signed(limit)], |row| {
                Ok(DeadLetter {
                    key: row.get::<_, Option<String>>(0)?.map(Key::from),
                    partition: row.get(1)?,
                    sequence: unsigned(row.get(2)?),
                    failures: row.get(3)?,
                    published_at: clock::time(unsigned(row.get(4)?)),
                    died_at: clock::time(unsigned(row.get(5)?)),
                    error: row.get(6)?,
                    body: Bytes::from(row.get::<_, String>(7)?),
                })
            })?
            .collect()
        })
        .await
    }

    async fn redrive(&self, limit: usize) -> Result<u64> {
        self.move_dead("redrive", limit, true).await
    }

    async fn purge_dead(&self, limit: usize) -> Result<u64> {
        self.move_dead("purge_dead_letters", limit, false).await
    }

    async fn set_paused(&self, paused: bool) -> Result<()> {
        self.write("pause", move |tx, queue| {
            tx.conn
                .prepare_cached("UPDATE queues SET paused = ?2 WHERE id = ?1")?
                .execute(params![queue.id, paused])?;
            Ok(())
        })
        .await
    }

    async fn paused(&self) -> Result<bool> {
        self.read("paused", |conn, queue| {
            conn.prepare_cached("SELECT paused FROM queues WHERE id = ?1")?
                .query_row([queue.id], |row| row.get(0))
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        // Through the writer: a file that can only be read is of no use.
        self.write("ping", |_, _| Ok(())).await
    }

    async fn close(&self) {
        self.open.closed.store(true, Ordering::Release);
        self.open.bell.notify_waiters();
    }
}
