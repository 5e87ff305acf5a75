//! Reads one partition by sequence.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resonant_db::{Row, params};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::sharing::{Load, Wait};
use super::store::{Open, Shared, get, one};
use super::text::{numbers, signed, unsigned};
use super::wakes::{Bell, Kept};
use crate::backend::{Feed, Fetch, Fetched};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::message::{Headers, Message};

/// How old what is known besides messages may be, in case nobody tells that it changed.
const STALE: Duration = Duration::from_secs(1);

/// From which age on it is looked up when there is nothing else to do, so that no message waits for that.
const RIPE: Duration = Duration::from_millis(500);

/// The pause after somebody held the partition, before it is asked again whether what fell due may have its place.
const HELD: Duration = Duration::from_millis(50);

/// The same after an error.
const FAILED: Duration = Duration::from_millis(500);

/// More messages than this are never asked for at once.
const MOST: u64 = 1 << 30;

pub(super) struct PostgresFeed {
    shared: Arc<Shared>,
    open: Arc<Open>,
    partition: i32,
    kept: Kept,
    /// The last resumption that was reported.
    resumed: AtomicI64,
    known: Mutex<Known>,
    promoting: Promoting,
}

/// What fell due is on its way to its place: beside the reading, as it waits in line with those that publish.
#[derive(Debug, Default)]
struct Promoting {
    under_way: Arc<AtomicBool>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What was known at the last look besides messages.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The bell's count of news before the look, and when it was.
    at: Option<(u64, Instant)>,
    /// When the next delayed message falls due.
    due: Option<Instant>,
}

/// What a look found.
#[derive(Debug, Default)]
struct News {
    resumed: Vec<(Key, u64)>,
    last: i64,
}

impl fmt::Debug for PostgresFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresFeed").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl PostgresFeed {
    pub(super) fn new(shared: &Arc<Shared>, open: &Arc<Open>, partition: i32) -> Self {
        Self {
            shared: Arc::clone(shared),
            open: Arc::clone(open),
            partition,
            kept: shared.wakes.keep(partition),
            resumed: AtomicI64::new(0),
            known: Mutex::default(),
            promoting: Promoting::default(),
        }
    }

    fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn know(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Whether what is known besides messages may have changed: somebody told so, or it is as old as this.
    fn may_have_changed(&self, age: Duration) -> bool {
        let count = self.kept.bell.news();
        let known = self.known().at;
        known.is_none_or(|(seen, at)| seen != count || Instant::now() >= at + age)
    }

    /// Looks for what is not a message.
    async fn look(&self) -> Result<News> {
        let (count, now) = (self.kept.bell.news(), Instant::now());
        let seen = self.resumed.load(Ordering::Acquire);
        let sql = "SELECT number, key, sequence FROM resonant_queue.news($1, $2)";
        let rows = self.shared.rows("fetch", sql, params![self.partition, seen]).await?;
        let mut news = News { resumed: Vec::new(), last: seen };
        let mut due = None;
        for row in rows.iter() {
            let number: Option<i64> = get("fetch", &row, 0)?;
            let value = unsigned(get("fetch", &row, 2)?);
            match number {
                None => due = Some(now + Duration::from_millis(value)),
                Some(number) => {
                    news.last = news.last.max(number);
                    news.resumed.push((Key::from(get::<&str>("fetch", &row, 1)?), value));
                }
            }
        }
        // Resumptions are looked for again until somebody got them.
        let at = news.resumed.is_empty().then_some((count, now));
        self.know(Known { at, due });
        Ok(news)
    }

    /// Begins to move what fell due to its place, unless that is under way. The bell tells when it is over.
    fn promote(&self) {
        let Promoting { under_way, task } = &self.promoting;
        if under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let over = Over { under_way: Arc::clone(under_way), bell: Arc::clone(&self.kept.bell) };
        let promoting = promote(Arc::clone(&self.shared), self.partition);
        let promoting = tokio::spawn(async move {
            let _over = over;
            promoting.await;
        });
        let promoting = AbortOnDropHandle::new(promoting);
        *task.lock().unwrap_or_else(PoisonError::into_inner) = Some(promoting);
    }

    async fn read(&self, fetch: Fetch) -> Result<Fetched> {
        self.shared.reading.carry(&self.shared, Read { partition: self.partition, fetch }).await
    }
}

/// Says that a promotion is over, however it ended. What there is to know besides messages is looked up then.
struct Over {
    under_way: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.under_way.store(false, Ordering::Release);
        self.bell.ring(true);
    }
}

/// Moves what fell due of a partition to its place, if it gets there soon. Whoever looks next asks again otherwise.
async fn promote(shared: Arc<Shared>, partition: i32) {
    let asked = async {
        let _permit = shared.promoting.acquire().await;
        let sql = "SELECT resonant_queue.promote($1)";
        let rows = shared.rows("fetch", sql, params![partition]).await?;
        get::<i64>("fetch", &one("fetch", &rows)?, 0)
    };
    match asked.await {
        Ok(moved) if moved >= 0 => {}
        Ok(_) => sleep(HELD).await,
        Err(error) => {
            tracing::debug!(%error, partition, "what fell due is moved to its place later");
            sleep(FAILED).await;
        }
    }
}

/// A look for messages of a partition.
#[derive(Debug)]
pub(super) struct Read {
    partition: i32,
    fetch: Fetch,
}

/// What those that read at once may get together, in bytes: each gets a part of it, and reads again.
const BYTES_TOGETHER: usize = 8 << 20;

impl Load for Read {
    type Answer = Fetched;

    const OPERATION: &'static str = "fetch";

    const REPEATABLE: bool = true;

    /// Each counts as one, whatever it finds.
    const MOST: (usize, usize) = (64, usize::MAX);

    fn size(&self) -> (usize, usize) {
        (1, 0)
    }

    fn is_about_one(error: &Error, _same: bool) -> bool {
        error.kind() != ErrorKind::Closed
    }

    fn partition(&self) -> Option<i32> {
        Some(self.partition)
    }

    async fn carry(shared: &Shared, loads: &[&Self], _wait: Wait) -> Result<Vec<Fetched>> {
        const FETCH: &str = "SELECT f.sequence, f.previous, f.failures, f.wait, f.published, f.key, f.headers, f.body, u.place
            FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                WITH ORDINALITY AS u (part, after, until, most, bytes, place)
            CROSS JOIN LATERAL resonant_queue.fetch(u.part, u.after, u.until, u.most, u.bytes) f";
        let share = if loads.len() > 1 { BYTES_TOGETHER / loads.len() } else { usize::MAX };
        let column = |value: fn(&Fetch) -> u64| {
            numbers(loads.iter().map(|load| Some(signed(value(&load.fetch)))))
        };
        let parts = numbers(loads.iter().map(|load| Some(i64::from(load.partition))));
        let after = column(|fetch| fetch.after);
        let until = column(|fetch| fetch.until.unwrap_or(u64::MAX));
        let most = column(|fetch| (fetch.limit as u64).min(MOST));
        let bytes =
            numbers(loads.iter().map(|load| Some(signed(load.fetch.bytes.min(share) as u64))));
        let rows = shared.rows("fetch", FETCH, params![parts, after, until, most, bytes]).await?;
        let mut fetched: Vec<_> = loads.iter().map(|_| Fetched::default()).collect();
        for row in rows.iter() {
            let place = unsigned(get("fetch", &row, 8)?).saturating_sub(1);
            let Some(fetched) = usize::try_from(place).ok().and_then(|at| fetched.get_mut(at))
            else {
                continue;
            };
            match message(&row)? {
                Some(message) => fetched.messages.push(message),
                None => fetched.more = true,
            }
        }
        Ok(fetched)
    }
}

#[async_trait]
impl Feed for PostgresFeed {
    async fn fetch(&self, fetch: Fetch) -> Result<Fetched> {
        self.open.check("fetch")?;
        if fetch.until.is_some() {
            // A refill runs beside the read forward: only that one tells of resumptions, so that none is told twice.
            return self.read(fetch).await;
        }
        loop {
            // Both are listened to before the look, so that nothing published after it is missed.
            let mut rung = std::pin::pin!(self.kept.bell.rung.notified());
            let mut closing = std::pin::pin!(self.open.closing.notified());
            rung.as_mut().enable();
            closing.as_mut().enable();
            self.open.check("fetch")?;
            let mut news = None;
            if self.may_have_changed(STALE) {
                news = Some(self.look().await?);
            }
            if self.known().due.is_some_and(|due| due <= Instant::now()) {
                self.promote();
            }
            let mut fetched = self.read(fetch).await?;
            if fetched.messages.is_empty() && self.may_have_changed(RIPE) {
                news = Some(self.look().await?);
            }
            let news = news.unwrap_or_default();
            if !fetched.messages.is_empty() || !news.resumed.is_empty() {
                // Nothing is awaited after this: who gets the result gets the resumptions.
                self.resumed.fetch_max(news.last, Ordering::AcqRel);
                fetched.resumed = news.resumed;
                return Ok(fetched);
            }
            let poll = Instant::now() + self.shared.wakes.poll();
            let under_way = self.promoting.under_way.load(Ordering::Acquire);
            let due = self.known().due.filter(|_| !under_way);
            let wake = due.map_or(poll, |due| due.min(poll));
            tokio::select! {
                () = rung => {}
                () = closing => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

/// A row as a message; `None` for the one that says that there are more.
fn message(row: &Row) -> Result<Option<Message>> {
    const OP: &str = "fetch";
    let Some(sequence) = get::<Option<i64>>(OP, row, 0)? else { return Ok(None) };
    let key = get::<Option<&str>>(OP, row, 5)?.map(Key::from);
    let body = Bytes::copy_from_slice(get::<&str>(OP, row, 7)?.as_bytes());
    let mut message = Message::new(unsigned(sequence), key, body);
    message.previous = get::<Option<i64>>(OP, row, 1)?.map(unsigned);
    message.failures = get(OP, row, 2)?;
    message.wait =
        get::<Option<i64>>(OP, row, 3)?.map(|wait| Duration::from_millis(unsigned(wait)));
    message.published = unsigned(get(OP, row, 4)?);
    // What another program wrote wrongly counts as none.
    message.headers = get::<Option<&str>>(OP, row, 6)?
        .and_then(|text| serde_json::from_str::<Headers>(text).ok())
        .map(Arc::new);
    Ok(Some(message))
}
