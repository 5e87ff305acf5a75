//! Reads one partition by sequence.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use tokio::sync::Notify;

use super::Shared;
use super::publish::{headers_of, stamp};
use super::schema::{MAX_SEQUENCE, SHIFT};
use super::store::Open;
use crate::backend::{Feed, Fetch, Fetched};
use crate::clock;
use crate::error::Result;
use crate::key::Key;
use crate::message::Message;

pub(super) struct SqliteFeed {
    pub(super) shared: Arc<Shared>,
    pub(super) open: Arc<Open>,
    pub(super) partition: i64,
    pub(super) bell: Arc<Notify>,
    /// The last resumption that was reported.
    pub(super) resumed: AtomicI64,
}

impl fmt::Debug for SqliteFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteFeed").field("partition", &self.partition).finish_non_exhaustive()
    }
}

/// What a read finds.
struct Found {
    fetched: Fetched,
    last_resumed: i64,
}

#[async_trait]
impl Feed for SqliteFeed {
    async fn fetch(&self, fetch: Fetch) -> Result<Fetched> {
        loop {
            // Both are listened to before the look, so that nothing published after it is missed.
            let mut rung = std::pin::pin!(self.bell.notified());
            let mut closed = std::pin::pin!(self.open.closing());
            rung.as_mut().enable();
            closed.as_mut().enable();
            self.open.check("fetch")?;
            let (partition, seen) = (self.partition, self.resumed.load(Ordering::Acquire));
            let read = move |conn: &Connection| read(conn, partition, fetch, seen);
            let found = self.shared.reader.call("fetch", read).await?;
            let fetched = found.fetched;
            if fetch.until.is_some() || !fetched.messages.is_empty() || !fetched.resumed.is_empty()
            {
                // Nothing is awaited after this: who gets the result gets the resumptions.
                self.resumed.fetch_max(found.last_resumed, Ordering::AcqRel);
                return Ok(fetched);
            }
            tokio::select! {
                () = rung => {}
                () = closed => {}
            }
        }
    }
}

fn read(conn: &Connection, partition: i64, fetch: Fetch, seen: i64) -> rusqlite::Result<Found> {
    let base = partition << SHIFT;
    let after = base | stamp(fetch.after).min(MAX_SEQUENCE);
    let until = base | stamp(fetch.until.unwrap_or(u64::MAX)).min(MAX_SEQUENCE);
    let limit = i64::try_from(fetch.limit.saturating_add(1)).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(
        "SELECT id, key, previous, failures, due, published, headers, body FROM messages
         WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = select.query(params![after, until, limit])?;
    let now = clock::now_millis();
    let (mut messages, mut bytes, mut more) = (Vec::new(), 0_usize, false);
    while let Some(row) = rows.next()? {
        let size = row.get_ref(7)?.as_bytes()?.len();
        bytes = bytes.saturating_add(size);
        // One past the limit is asked for, to know whether there is more.
        if messages.len() >= fetch.limit || (bytes > fetch.bytes && !messages.is_empty()) {
            more = true;
            break;
        }
        messages.push(message(row, base, now)?);
    }
    let mut last_resumed = seen;
    if fetch.until.is_some() {
        // A refill runs beside the read forward: only one of them tells of resumptions, so that none is told twice.
        return Ok(Found {
            fetched: Fetched { messages, resumed: Vec::new(), more },
            last_resumed,
        });
    }
    let resumed = conn
        .prepare_cached("SELECT number, key, sequence FROM resumed WHERE number > ?1 AND partition = ?2 ORDER BY number")?
        .query_map(params![seen, partition], |row| {
            last_resumed = last_resumed.max(row.get(0)?);
            Ok((Key::from(row.get_ref(1)?.as_str()?), unsigned(row.get(2)?)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Found { fetched: Fetched { messages, resumed, more }, last_resumed })
}

fn message(row: &Row<'_>, base: i64, now: u64) -> rusqlite::Result<Message> {
    let id: i64 = row.get(0)?;
    let key = row.get_ref(1)?.as_str_or_null()?.map(Key::from);
    let mut message =
        Message::new(unsigned(id - base), key, Bytes::copy_from_slice(row.get_ref(7)?.as_bytes()?));
    message.previous = row.get::<_, Option<i64>>(2)?.map(unsigned);
    message.failures = row.get(3)?;
    message.wait = row
        .get::<_, Option<i64>>(4)?
        .and_then(|due| unsigned(due).checked_sub(now))
        .filter(|wait| *wait > 0)
        .map(Duration::from_millis);
    message.published = unsigned(row.get(5)?);
    message.headers = headers_of(row.get_ref(6)?.as_str_or_null()?);
    Ok(message)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
