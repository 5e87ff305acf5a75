//! Storing messages, now or when they fall due.

use std::sync::Arc;

use resonant_db::{Param, Row, Rows, params};

use super::error::fault;
use super::sharing::{Wait, briefly};
use super::store::{Queue, Shared, get, one};
use super::text::{numbers, signed, texts, unsigned};
use crate::backend::QueueSpec;
use crate::clock;
use crate::error::{Error, ErrorKind, Result, closed};
use crate::message::{Outgoing, Receipt};

/// The longest key or unique id.
const LONGEST: usize = 1024;

/// Old ids are cleaned up once in so many publishes of one.
pub(super) const CLEAN: u64 = 10_000;

/// Refuses what this engine cannot store.
pub(super) fn check(spec: &QueueSpec, batch: &[Outgoing]) -> Result<()> {
    let refused = |kind, text: String| Err(Error::new(kind, "publish", text));
    for message in batch {
        if message.partition >= spec.partitions {
            let text = format!(
                "there is no partition {}; they are numbered from 0, and there are {}",
                message.partition, spec.partitions
            );
            return refused(ErrorKind::NotFound, text);
        }
        let texts = [message.key.as_deref(), message.unique_id.as_deref()];
        if texts.into_iter().flatten().any(|text| text.len() > LONGEST) {
            let text = format!("a key or unique id is longer than {LONGEST} bytes");
            return refused(ErrorKind::Key, text);
        }
        if std::str::from_utf8(&message.body).is_err() {
            return refused(ErrorKind::Encoding, "the body is not UTF-8".into());
        }
    }
    Ok(())
}

pub(super) fn is_plain(message: &Outgoing) -> bool {
    message.delay.is_none() && message.unique_id.is_none()
}

/// The columns of a batch, as arrays.
struct Columns {
    partitions: String,
    keys: String,
    headers: String,
    bodies: String,
}

impl Columns {
    fn of<'a>(queue: &Queue, messages: impl Iterator<Item = &'a Outgoing> + Clone) -> Self {
        let id = |message: &Outgoing| Some(i64::from(queue.id_of(message.partition)));
        let headers: Vec<_> = messages
            .clone()
            .map(|message| {
                message.headers.as_deref().and_then(|map| serde_json::to_string(map).ok())
            })
            .collect();
        Self {
            partitions: numbers(messages.clone().map(id)),
            keys: texts(messages.clone().map(|message| message.key.as_deref())),
            headers: texts(headers.iter().map(Option::as_deref)),
            // They were checked.
            bodies: texts(messages.map(|message| std::str::from_utf8(&message.body).ok())),
        }
    }
}

const PUBLISH: &str = "SELECT depth, sequences FROM resonant_queue.publish($1, $2, $3, $4, $5, $6)";

/// The function is called for the row that set the limit, so after it.
const BRIEFLY: &str = concat!(
    briefly!("$7"),
    "SELECT p.depth, p.sequences FROM briefly CROSS JOIN LATERAL
        resonant_queue.publish(CASE WHEN briefly.most IS NOT NULL THEN $1::int END, $2, $3, $4, $5, $6) p"
);

/// Stores plain batches in one transaction.
pub(super) async fn store(
    shared: &Shared,
    queue: &Queue,
    batches: &[Arc<Vec<Outgoing>>],
    wait: Wait,
) -> Result<Vec<Receipt>> {
    let messages = || batches.iter().flat_map(|batch| batch.iter());
    let columns = Columns::of(queue, messages());
    let _permit = permit(shared).await?;
    let Columns { partitions, keys, headers, bodies } = &columns;
    let most = signed(queue.spec.max_depth);
    let rows = match wait {
        Wait::AsSet => {
            let params = params![queue.id, most, partitions, keys, headers, bodies];
            shared.rows("publish", PUBLISH, params).await?
        }
        Wait::AtMost(limit) => {
            let params = params![queue.id, most, partitions, keys, headers, bodies, limit];
            shared.rows("publish", BRIEFLY, params).await?
        }
    };
    let row = one("publish", &rows)?;
    let Some(sequences) = get::<Option<&str>>("publish", &row, 1)? else {
        return Err(full(queue, get("publish", &row, 0)?));
    };
    let ids = messages().map(|message| queue.id_of(message.partition));
    shared.wakes.tell(&shared.db, &shared.stop, distinct(ids).into_iter(), false);
    Ok(messages()
        .zip(sequences.split(','))
        .map(|(message, sequence)| Receipt::new(message.partition, sequence.parse().ok()))
        .collect())
}

/// What the function for messages with delays or unique ids is asked.
pub(super) struct Each {
    queue: i64,
    most: i64,
    window: i64,
    columns: Columns,
    delays: String,
    unique_ids: String,
}

impl Each {
    pub(super) const SQL: &str = "SELECT depth, part, sequence, duplicate
        FROM resonant_queue.publish_each($1, $2, $3, $4, $5, $6, $7, $8, $9)";

    pub(super) fn of(queue: &Queue, batch: &[Outgoing]) -> Self {
        let delay = |message: &Outgoing| message.delay.map(|delay| signed(clock::as_millis(delay)));
        Self {
            queue: queue.id,
            most: signed(queue.spec.max_depth),
            window: signed(clock::as_millis(queue.spec.dedup_window)),
            columns: Columns::of(queue, batch.iter()),
            delays: numbers(batch.iter().map(delay)),
            unique_ids: texts(batch.iter().map(|message| message.unique_id.as_deref())),
        }
    }

    pub(super) fn params(&self) -> [Param<'_>; 9] {
        let Columns { partitions, keys, headers, bodies } = &self.columns;
        let numbers = [self.queue, self.most, self.window].map(Param::Int);
        let [queue, most, window] = numbers;
        let texts = [partitions, keys, headers, bodies, &self.delays, &self.unique_ids];
        let [partitions, keys, headers, bodies, delays, ids] = texts.map(|text| Param::Text(text));
        [queue, most, window, partitions, keys, headers, bodies, delays, ids]
    }

    /// The answer.
    pub(super) fn receipts(queue: &Queue, rows: &Rows) -> Result<Vec<Receipt>> {
        let read = |row: Row| {
            let Some(id) = get::<Option<i32>>("publish", &row, 1)? else {
                return Err(full(queue, get("publish", &row, 0)?));
            };
            let sequence = get::<Option<i64>>("publish", &row, 2)?.map(unsigned);
            let receipt = Receipt::new(queue.number_of(id), sequence);
            let duplicate: bool = get("publish", &row, 3)?;
            Ok(if duplicate { receipt.of_duplicate() } else { receipt })
        };
        rows.iter().map(read).collect()
    }
}

/// Stores messages with delays or unique ids in one transaction.
pub(super) async fn each(
    shared: &Shared,
    queue: &Queue,
    batch: &[Outgoing],
) -> Result<Vec<Receipt>> {
    let asked = Each::of(queue, batch);
    let _permit = permit(shared).await?;
    let rows = shared.rows("publish", Each::SQL, &asked.params()).await?;
    let receipts = Each::receipts(queue, &rows)?;
    for delayed in [false, true] {
        let some = batch.iter().filter(|message| message.delay.is_some() == delayed);
        let ids = distinct(some.map(|message| queue.id_of(message.partition)));
        shared.wakes.tell(&shared.db, &shared.stop, ids.into_iter(), delayed);
    }
    Ok(receipts)
}

/// Forgets ids that are too many and keys that are too old, in the background.
pub(super) fn clean(shared: &Shared, queue: &Queue) {
    let (db, stop) = (shared.db.clone(), shared.stop.clone());
    let (id, limit) = (queue.id, signed(queue.spec.dedup_limit));
    tokio::spawn(async move {
        let clean = async {
            let sql = "SELECT resonant_queue.forget($1, $2)";
            if let Err(error) = db.write().query(sql, params![id, limit]).await {
                tracing::debug!(error = %fault("publish", error), "old ids were not cleaned up; the next ones do it");
            }
        };
        let _ = stop.run_until_cancelled(clean).await;
    });
}

async fn permit(shared: &Shared) -> Result<tokio::sync::SemaphorePermit<'_>> {
    shared.publishing.acquire().await.map_err(|_| closed("publish"))
}

fn distinct(ids: impl Iterator<Item = i32>) -> Vec<i32> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn full(queue: &Queue, depth: i64) -> Error {
    let most = queue.spec.max_depth;
    let text =
        format!("the queue holds {depth} of {most} messages; add workers or raise max_depth");
    Error::new(ErrorKind::Full, "publish", text)
}
