//! Storing messages, now or when they fall due. Runs on the writer.

use std::sync::Arc;

use rusqlite::{CachedStatement, OptionalExtension, params};

use super::schema::{MAX_SEQUENCE, SHIFT};
use super::store::Queue;
use super::writer::{Fault, Tx};
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::message::{Headers, Outgoing, Receipt};

/// Delayed messages moved in one transaction.
const PROMOTED: i64 = 1000;

const INSERT: &str = "INSERT INTO messages (id, key, previous, published, headers, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

pub(super) fn publish(
    tx: &mut Tx<'_>,
    queue: &Queue,
    batch: &[Outgoing],
) -> Result<Vec<Receipt>, Fault> {
    if let Some(message) = batch.iter().find(|message| message.partition >= queue.spec.partitions) {
        let text = format!(
            "there is no partition {}; they are numbered from 0, and there are {}",
            message.partition, queue.spec.partitions
        );
        return Err(refused(ErrorKind::NotFound, text));
    }
    let counts = tx.state.counts(tx.conn, queue.id)?;
    let (total, most) = (counts.total(), i64::try_from(queue.spec.max_depth).unwrap_or(i64::MAX));
    if total.saturating_add(signed(batch.len())) > most {
        let text =
            format!("the queue holds {total} of {most} messages; add workers or raise max_depth");
        return Err(refused(ErrorKind::Full, text));
    }
    let mut bodies = Vec::with_capacity(batch.len());
    for message in batch {
        match std::str::from_utf8(&message.body) {
            Ok(body) => bodies.push(body),
            Err(_) => return Err(refused(ErrorKind::Encoding, "the body is not UTF-8")),
        }
    }
    let plain = batch.iter().all(|message| message.delay.is_none() && message.unique_id.is_none());
    let mut insert = tx.conn.prepare_cached(INSERT)?;
    if plain {
        let mut receipts: Vec<_> =
            batch.iter().map(|message| Receipt::new(message.partition, None)).collect();
        // Partition by partition, so that the table's pages are visited once; the order within each stays.
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|index| batch[*index].partition);
        for index in order {
            let (message, body) = (&batch[index], bodies[index]);
            let published = tx.now;
            let sequence = append(
                tx,
                &mut insert,
                queue.id_of(message.partition),
                &New::of(message, body, published),
            )?;
            receipts[index].sequence = u64::try_from(sequence).ok();
        }
        tx.state.counts(tx.conn, queue.id)?.ready += signed(batch.len());
        return Ok(receipts);
    }
    forget_ids(tx, queue)?;
    let mut receipts = Vec::with_capacity(batch.len());
    for (message, body) in batch.iter().zip(bodies) {
        let known = match &message.unique_id {
            Some(id) => remembered(tx, queue, id)?,
            None => None,
        };
        let receipt = match known {
            Some(receipt) => receipt.of_duplicate(),
            None => store_one(tx, &mut insert, queue, message, body)?,
        };
        receipts.push(receipt);
    }
    forget_ids(tx, queue)?;
    Ok(receipts)
}

fn store_one(
    tx: &mut Tx<'_>,
    insert: &mut CachedStatement<'_>,
    queue: &Queue,
    message: &Outgoing,
    body: &str,
) -> Result<Receipt, Fault> {
    let partition = queue.id_of(message.partition);
    let sequence = match message.delay {
        Some(delay) => {
            let due = tx.now.saturating_add(clock::as_millis(delay));
            tx.conn
                .prepare_cached(
                    "INSERT INTO delayed (partition, due, key, headers, body) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    partition,
                    i64::try_from(due).unwrap_or(i64::MAX),
                    message.key.as_deref(),
                    headers_text(message.headers.as_deref()),
                    body
                ])?;
            tx.state.due_at(due);
            tx.state.counts(tx.conn, queue.id)?.delayed += 1;
            None
        }
        None => {
            let published = tx.now;
            let sequence = append(tx, insert, partition, &New::of(message, body, published))?;
            tx.state.counts(tx.conn, queue.id)?.ready += 1;
            Some(sequence)
        }
    };
    if let Some(id) = &message.unique_id {
        tx.conn
            .prepare_cached(
                "INSERT INTO unique_ids (queue, unique_id, partition, sequence, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![queue.id, id, message.partition, sequence, stamp(tx.now)])?;
        tx.state.counts(tx.conn, queue.id)?.unique_ids += 1;
    }
    Ok(Receipt::new(message.partition, sequence.and_then(|sequence| u64::try_from(sequence).ok())))
}

/// The receipt of an id that is remembered.
fn remembered(tx: &Tx<'_>, queue: &Queue, id: &str) -> rusqlite::Result<Option<Receipt>> {
    tx.conn
        .prepare_cached(
            "SELECT partition, sequence FROM unique_ids WHERE queue = ?1 AND unique_id = ?2",
        )?
        .query_row(params![queue.id, id], |row| {
            let sequence: Option<i64> = row.get(1)?;
            Ok(Receipt::new(
                row.get(0)?,
                sequence.and_then(|sequence| u64::try_from(sequence).ok()),
            ))
        })
        .optional()
}

/// Removes ids that are too old or too many.
fn forget_ids(tx: &mut Tx<'_>, queue: &Queue) -> rusqlite::Result<()> {
    let oldest = tx.now.saturating_sub(clock::as_millis(queue.spec.dedup_window));
    let expired = tx
        .conn
        .prepare_cached("DELETE FROM unique_ids WHERE queue = ?1 AND at <= ?2")?
        .execute(params![queue.id, stamp(oldest)])?;
    let counts = tx.state.counts(tx.conn, queue.id)?;
    counts.unique_ids -= signed(expired);
    let most = i64::try_from(queue.spec.dedup_limit).unwrap_or(i64::MAX);
    let over = counts.unique_ids - most;
    if over > 0 {
        counts.unique_ids -= over;
        tx.conn
            .prepare_cached(
                "DELETE FROM unique_ids WHERE queue = ?1 AND unique_id IN
                 (SELECT unique_id FROM unique_ids WHERE queue = ?1 ORDER BY at LIMIT ?2)",
            )?
            .execute(params![queue.id, over])?;
    }
    Ok(())
}

/// A message to append.
pub(super) struct New<'a> {
    pub(super) key: Option<&'a Key>,
    pub(super) published: u64,
    pub(super) headers: Option<String>,
    pub(super) body: &'a str,
}

impl<'a> New<'a> {
    fn of(message: &'a Outgoing, body: &'a str, published: u64) -> Self {
        let headers = headers_text(message.headers.as_deref());
        Self { key: message.key.as_ref(), published, headers, body }
    }
}

/// Stores a message at the end of a partition. The counters are the caller's.
fn append(
    tx: &mut Tx<'_>,
    insert: &mut CachedStatement<'_>,
    partition: i64,
    new: &New<'_>,
) -> Result<i64, Fault> {
    let sequence = tx.state.next_sequence(tx.conn, partition)?;
    if sequence > MAX_SEQUENCE {
        // The number was given out in memory only; the transaction is undone.
        return Err(Fault::Engine(rusqlite::Error::IntegralValueOutOfRange(0, sequence)));
    }
    let previous = match new.key {
        Some(key) => tx.state.follow(tx.conn, partition, key, sequence)?,
        None => None,
    };
    let id = (partition << SHIFT) | sequence;
    let key = new.key.map(Key::as_str);
    insert.execute(params![id, key, previous, stamp(new.published), new.headers, new.body])?;
    tx.touched.insert(partition);
    Ok(sequence)
}

/// Moves what fell due to the end of its partition. Returns when the next one does.
pub(super) fn promote(tx: &mut Tx<'_>) -> rusqlite::Result<Option<u64>> {
    type Due = (i64, i64, Option<String>, Option<String>, String);
    let due: Vec<Due> = tx
        .conn
        .prepare_cached(
            "SELECT id, partition, key, headers, body FROM delayed WHERE due <= ?1 ORDER BY due, id LIMIT ?2",
        )?
        .query_map(params![stamp(tx.now), PROMOTED], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (id, partition, key, headers, body) in due {
        let key = key.map(Key::from);
        let new = New { key: key.as_ref(), published: tx.now, headers, body: &body };
        revive(tx, partition, &new)?;
        tx.conn.prepare_cached("DELETE FROM delayed WHERE id = ?1")?.execute([id])?;
        let queue = tx.state.queue_of(tx.conn, partition)?;
        tx.state.counts(tx.conn, queue)?.delayed -= 1;
    }
    let next: Option<i64> =
        tx.conn.prepare_cached("SELECT min(due) FROM delayed")?.query_row([], |row| row.get(0))?;
    Ok(next.and_then(|next| u64::try_from(next).ok()))
}

/// Stores a message that was aside at the end of its partition, and counts it.
pub(super) fn revive(tx: &mut Tx<'_>, partition: i64, new: &New<'_>) -> rusqlite::Result<()> {
    let mut insert = tx.conn.prepare_cached(INSERT)?;
    match append(tx, &mut insert, partition, new) {
        Ok(_) => {}
        Err(Fault::Engine(error)) => return Err(error),
        Err(Fault::Refused(_)) => return Err(rusqlite::Error::InvalidQuery),
    }
    let queue = tx.state.queue_of(tx.conn, partition)?;
    tx.state.counts(tx.conn, queue)?.ready += 1;
    Ok(())
}

fn refused(kind: ErrorKind, text: impl Into<String>) -> Fault {
    Fault::Refused(Error::new(kind, "publish", text))
}

/// Headers as the JSON object that is stored.
fn headers_text(headers: Option<&Headers>) -> Option<String> {
    headers.and_then(|headers| serde_json::to_string(headers).ok())
}

/// The stored JSON object as headers. What another program wrote wrongly counts as none.
pub(super) fn headers_of(text: Option<&str>) -> Option<Arc<Headers>> {
    text.and_then(|text| serde_json::from_str(text).ok()).map(Arc::new)
}

/// A time as it is stored.
pub(super) fn stamp(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
