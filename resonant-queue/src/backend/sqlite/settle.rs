//! What became of messages. Runs on the writer.

use rusqlite::{OptionalExtension, params};

use super::publish::{signed, stamp};
use super::schema::SHIFT;
use super::store::Queue;
use super::writer::{Fault, Tx};
use crate::backend::Settlement;
use crate::clock;
use crate::error::fenced;
use crate::key::Key;

/// Takes over a partition for an epoch. Returns the parked keys and the number of the last resumption.
pub(super) fn open(
    tx: &mut Tx<'_>,
    queue: &Queue,
    number: u32,
    epoch: u64,
) -> Result<(Vec<Key>, i64), Fault> {
    let partition = queue.id_of(number);
    check(tx, partition, number, epoch, "open", |current| epoch >= current)?;
    tx.conn
        .prepare_cached("UPDATE partitions SET epoch = ?2 WHERE id = ?1")?
        .execute(params![partition, stamp(epoch)])?;
    // The new owner reads everything anew: what was told to the one before is of no use.
    tx.conn.prepare_cached("DELETE FROM resumed WHERE partition = ?1")?.execute([partition])?;
    let parked = tx
        .conn
        .prepare_cached("SELECT key FROM parked_keys WHERE partition = ?1")?
        .query_map([partition], |row| row.get::<_, String>(0).map(Key::from))?
        .collect::<rusqlite::Result<_>>()?;
    let last: Option<i64> = tx
        .conn
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'resumed'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok((parked, last.unwrap_or_default()))
}

pub(super) fn settle(
    tx: &mut Tx<'_>,
    queue: &Queue,
    number: u32,
    epoch: u64,
    batch: &[Settlement],
) -> Result<(), Fault> {
    let partition = queue.id_of(number);
    check(tx, partition, number, epoch, "settle", |current| epoch == current)?;
    let mut done = Vec::with_capacity(batch.len());
    for settlement in batch {
        let id = id(partition, settlement.sequence());
        match settlement {
            // What else is said of a finished message in this batch came before it was finished.
            Settlement::Done { .. } => done.push(id),
            Settlement::Retry { failures, wait, error, .. } => {
                let due = tx.now.saturating_add(clock::as_millis(*wait));
                tx.conn
                    .prepare_cached(
                        "UPDATE messages SET failures = ?2, due = ?3, error = ?4 WHERE id = ?1",
                    )?
                    .execute(params![id, failures, stamp(due), error])?;
            }
            Settlement::Park { failures, error, .. } => {
                let key = tx
                    .conn
                    .prepare_cached("SELECT key FROM messages WHERE id = ?1")?
                    .query_row([id], |row| row.get::<_, Option<String>>(0))
                    .optional()?
                    .flatten();
                let Some(key) = key else { continue };
                tx.conn
                    .prepare_cached("UPDATE messages SET failures = ?2 WHERE id = ?1")?
                    .execute(params![id, failures])?;
                let new = tx
                    .conn
                    .prepare_cached(
                        "INSERT INTO parked_keys (partition, key, sequence, since, error) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![partition, key, stamp(settlement.sequence()), stamp(tx.now), error])?;
                tx.state.counts(tx.conn, queue.id)?.parked_keys += signed(new);
                put_aside(tx, queue, partition, id)?;
            }
            Settlement::ParkBehind { .. } => put_aside(tx, queue, partition, id)?,
            Settlement::Dead { failures, error, .. } => {
                let moved = tx
                    .conn
                    .prepare_cached(
                        "INSERT INTO dead (queue, partition, sequence, key, failures, published, died, error, headers, body)
                         SELECT ?2, ?3, ?4, key, ?5, published, ?6, ?7, headers, body FROM messages WHERE id = ?1",
                    )?
                    .execute(params![
                        id,
                        queue.id,
                        number,
                        stamp(settlement.sequence()),
                        failures,
                        stamp(tx.now),
                        error
                    ])?;
                remove(tx, id, id)?;
                let counts = tx.state.counts(tx.conn, queue.id)?;
                counts.ready -= signed(moved);
                counts.dead += signed(moved);
            }
        }
    }
    finish(tx, queue, done)
}

/// Removes finished messages, neighbours at once.
fn finish(tx: &mut Tx<'_>, queue: &Queue, mut done: Vec<i64>) -> Result<(), Fault> {
    done.sort_unstable();
    done.dedup();
    let mut removed = 0;
    for neighbours in done.chunk_by(|a, b| *b == *a + 1) {
        if let (Some(first), Some(last)) = (neighbours.first(), neighbours.last()) {
            removed += remove(tx, *first, *last)?;
        }
    }
    if removed > 0 {
        tx.state.counts(tx.conn, queue.id)?.ready -= signed(removed);
        *tx.freed = true;
    }
    Ok(())
}

fn remove(tx: &Tx<'_>, first: i64, last: i64) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached("DELETE FROM messages WHERE id BETWEEN ?1 AND ?2")?
        .execute(params![first, last])
}

/// Puts a message of a parked key aside; leaves it if the key is not parked.
fn put_aside(tx: &mut Tx<'_>, queue: &Queue, partition: i64, id: i64) -> Result<(), Fault> {
    let moved = tx
        .conn
        .prepare_cached(
            "INSERT INTO parked (partition, key, sequence, previous, failures, published, headers, body)
             SELECT ?2, m.key, m.id - (?2 << 40), m.previous, m.failures, m.published, m.headers, m.body
             FROM messages m JOIN parked_keys k ON k.partition = ?2 AND k.key = m.key WHERE m.id = ?1",
        )?
        .execute(params![id, partition])?;
    if moved > 0 {
        remove(tx, id, id)?;
        let counts = tx.state.counts(tx.conn, queue.id)?;
        counts.ready -= signed(moved);
        counts.parked += signed(moved);
    }
    Ok(())
}

/// Brings the messages of a parked key back under their old sequences.
pub(super) fn resume(
    tx: &mut Tx<'_>,
    queue: &Queue,
    number: u32,
    key: &str,
) -> Result<Option<u64>, Fault> {
    let partition = queue.id_of(number);
    let from: Option<i64> = tx
        .conn
        .prepare_cached(
            "DELETE FROM parked_keys WHERE partition = ?1 AND key = ?2 RETURNING sequence",
        )?
        .query_row(params![partition, key], |row| row.get(0))
        .optional()?;
    let Some(from) = from else { return Ok(None) };
    let moved = tx
        .conn
        .prepare_cached(
            "INSERT INTO messages (id, key, previous, published, headers, body)
             SELECT (partition << 40) | sequence, key, previous, published, headers, body FROM parked
             WHERE partition = ?1 AND key = ?2 ORDER BY sequence",
        )?
        .execute(params![partition, key])?;
    tx.conn
        .prepare_cached("DELETE FROM parked WHERE partition = ?1 AND key = ?2")?
        .execute(params![partition, key])?;
    tx.conn
        .prepare_cached("INSERT INTO resumed (partition, key, sequence) VALUES (?1, ?2, ?3)")?
        .execute(params![partition, key, from])?;
    let counts = tx.state.counts(tx.conn, queue.id)?;
    counts.parked_keys -= 1;
    counts.parked -= signed(moved);
    counts.ready += signed(moved);
    tx.touched.insert(partition);
    Ok(Some(moved as u64))
}

fn check(
    tx: &Tx<'_>,
    partition: i64,
    number: u32,
    epoch: u64,
    operation: &'static str,
    allowed: impl FnOnce(u64) -> bool,
) -> Result<(), Fault> {
    let current: i64 = tx
        .conn
        .prepare_cached("SELECT epoch FROM partitions WHERE id = ?1")?
        .query_row([partition], |row| row.get(0))?;
    let current = u64::try_from(current).unwrap_or_default();
    if allowed(current) {
        Ok(())
    } else {
        Err(Fault::Refused(fenced(operation, number, epoch, current)))
    }
}

fn id(partition: i64, sequence: u64) -> i64 {
    (partition << SHIFT) | stamp(sequence)
}
