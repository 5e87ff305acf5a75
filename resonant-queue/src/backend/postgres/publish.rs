//! Storing messages. What is published at once into the same place shares a transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use resonant_db::params;
use tokio::sync::oneshot;

use super::error::fault;
use super::store::{Queue, Shared, get, one};
use super::text::{numbers, signed, texts, unsigned};
use crate::backend::QueueSpec;
use crate::clock;
use crate::error::{Error, ErrorKind, Result, closed};
use crate::message::{Outgoing, Receipt};

/// Messages and bytes of bodies that share a transaction at most; a single batch may be larger.
const TOGETHER: usize = 1000;
const BYTES_TOGETHER: usize = 4 << 20;

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

/// Lets plain batches share transactions: one at a time for each partition, and one for batches that touch several. While
/// one is on its way the next one grows.
#[derive(Debug)]
pub(super) struct Publisher {
    lanes: Vec<Arc<Mutex<Lane>>>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Ask>,
    flying: bool,
}

#[derive(Debug)]
struct Ask {
    batch: Arc<Vec<Outgoing>>,
    reply: oneshot::Sender<Result<Vec<Receipt>>>,
}

impl Publisher {
    pub(super) fn new(partitions: u32) -> Self {
        Self { lanes: (0..=partitions).map(|_| Arc::default()).collect() }
    }

    pub(super) async fn publish(
        &self,
        shared: &Arc<Shared>,
        queue: &Queue,
        batch: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        let lane = self.lane_of(&batch).ok_or_else(|| closed("publish"))?;
        let (reply, answer) = oneshot::channel();
        let begins = {
            let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.waiting.push_back(Ask { batch, reply });
            !std::mem::replace(&mut lane.flying, true)
        };
        if begins {
            // A task of its own: it carries the messages of others, whoever of them stops waiting. It ends with what is
            // waiting, and each of its calls has a limit.
            let (shared, queue, lane) = (Arc::clone(shared), queue.clone(), Arc::clone(lane));
            tokio::spawn(async move { fly(&shared, &queue, &lane).await });
        }
        answer.await.unwrap_or_else(|_| Err(closed("publish").with_may_have_applied()))
    }

    fn lane_of(&self, batch: &[Outgoing]) -> Option<&Arc<Mutex<Lane>>> {
        let first = batch.first()?.partition;
        if batch.iter().all(|message| message.partition == first) {
            self.lanes.get(first as usize)
        } else {
            self.lanes.last()
        }
    }
}

/// Ends a lane's flying, also if the task ends before its time.
struct Landing<'a>(&'a Mutex<Lane>);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut lane = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lane.flying {
            lane.flying = false;
            lane.waiting.clear();
        }
    }
}

async fn fly(shared: &Shared, queue: &Queue, lane: &Mutex<Lane>) {
    let _landing = Landing(lane);
    loop {
        let asks = {
            let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            let asks = take(&mut lane.waiting);
            if asks.is_empty() {
                lane.flying = false;
                return;
            }
            asks
        };
        let batches: Vec<_> = asks.iter().map(|ask| Arc::clone(&ask.batch)).collect();
        match store(shared, queue, &batches).await {
            Ok(mut receipts) => {
                for ask in asks {
                    let rest = receipts.split_off(ask.batch.len().min(receipts.len()));
                    let _ = ask.reply.send(Ok(std::mem::replace(&mut receipts, rest)));
                }
            }
            // What stopped them together need not stop each.
            Err(error) if asks.len() > 1 && !error.may_have_applied() && is_about_one(&error) => {
                for ask in asks {
                    let _ = ask.reply.send(store(shared, queue, &[Arc::clone(&ask.batch)]).await);
                }
            }
            Err(error) => {
                for ask in asks {
                    let _ = ask.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

fn is_about_one(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Full | ErrorKind::Encoding | ErrorKind::Key)
}

/// As many as may share a transaction. Who does not wait any more is left out.
fn take(waiting: &mut VecDeque<Ask>) -> Vec<Ask> {
    let (mut asks, mut messages, mut bytes) = (Vec::new(), 0_usize, 0_usize);
    while let Some(ask) = waiting.pop_front() {
        if ask.reply.is_closed() {
            continue;
        }
        messages += ask.batch.len();
        bytes += ask.batch.iter().map(|message| message.body.len()).sum::<usize>();
        if !asks.is_empty() && (messages > TOGETHER || bytes > BYTES_TOGETHER) {
            waiting.push_front(ask);
            break;
        }
        asks.push(ask);
    }
    asks
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

/// Stores plain batches in one transaction.
async fn store(
    shared: &Shared,
    queue: &Queue,
    batches: &[Arc<Vec<Outgoing>>],
) -> Result<Vec<Receipt>> {
    let messages = || batches.iter().flat_map(|batch| batch.iter());
    let columns = Columns::of(queue, messages());
    let _permit = permit(shared).await?;
    let rows = shared
        .rows(
            "publish",
            "SELECT depth, sequences FROM resonant_queue.publish($1, $2, $3, $4, $5, $6)",
            params![
                queue.id,
                signed(queue.spec.max_depth),
                columns.partitions,
                columns.keys,
                columns.headers,
                columns.bodies
            ],
        )
        .await?;
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

/// Stores messages with delays or unique ids in one transaction.
pub(super) async fn each(
    shared: &Shared,
    queue: &Queue,
    batch: &[Outgoing],
) -> Result<Vec<Receipt>> {
    let columns = Columns::of(queue, batch.iter());
    let delays = numbers(
        batch.iter().map(|message| message.delay.map(|delay| signed(clock::as_millis(delay)))),
    );
    let unique_ids = texts(batch.iter().map(|message| message.unique_id.as_deref()));
    let _permit = permit(shared).await?;
    let rows = shared
        .rows(
            "publish",
            "SELECT depth, part, sequence, duplicate FROM resonant_queue.publish_each($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            params![
                queue.id,
                signed(queue.spec.max_depth),
                signed(clock::as_millis(queue.spec.dedup_window)),
                columns.partitions,
                columns.keys,
                columns.headers,
                columns.bodies,
                delays,
                unique_ids
            ],
        )
        .await?;
    let mut receipts = Vec::with_capacity(batch.len());
    for row in rows.iter() {
        let Some(id) = get::<Option<i32>>("publish", &row, 1)? else {
            return Err(full(queue, get("publish", &row, 0)?));
        };
        let sequence = get::<Option<i64>>("publish", &row, 2)?.map(unsigned);
        let receipt = Receipt::new(queue.number_of(id), sequence);
        let duplicate: bool = get("publish", &row, 3)?;
        receipts.push(if duplicate { receipt.of_duplicate() } else { receipt });
    }
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
