//! Who is woken, by whom: bells of the partitions read here, rung from here and by `NOTIFY`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resonant_db::{Database, Event, params};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The channel of all queues of a database.
pub(super) const CHANNEL: &str = "resonant_queue";

/// How often partitions are looked at while notifications are heard, and while they are not.
const POLL: Duration = Duration::from_secs(1);
const POLL_DEAF: Duration = Duration::from_millis(200);

/// The pause between two notifications of a process that publishes all the time: what is published meanwhile is told
/// together.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// So many notifications follow each other at once before there are pauses: who publishes now and then waits for none.
const AT_ONCE: usize = 2;

/// More partitions than this are told as "all": a payload is limited to 8,000 bytes.
const TOLD: usize = 500;

/// The bell of a partition.
#[derive(Debug, Default)]
pub(super) struct Bell {
    pub(super) rung: Notify,
    /// Rises when there may be something to know besides messages.
    news: AtomicU64,
}

impl Bell {
    pub(super) fn ring(&self, news: bool) {
        if news {
            self.news.fetch_add(1, Ordering::AcqRel);
        }
        self.rung.notify_waiters();
    }

    pub(super) fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
pub(super) struct Wakes {
    bells: Mutex<HashMap<i32, (Arc<Bell>, usize)>>,
    pub(super) room: Notify,
    hearing: AtomicBool,
    listener: AtomicBool,
    untold: Mutex<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    /// Partitions to tell of, and whether there is news.
    partitions: BTreeSet<(i32, bool)>,
    telling: bool,
}

/// Keeps the bell of a partition.
#[derive(Debug)]
pub(super) struct Kept {
    wakes: Arc<Wakes>,
    partition: i32,
    pub(super) bell: Arc<Bell>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut bells = self.wakes.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, users)) = bells.get_mut(&self.partition) {
            *users -= 1;
            if *users == 0 {
                bells.remove(&self.partition);
            }
        }
    }
}

impl Wakes {
    pub(super) fn keep(self: &Arc<Self>, partition: i32) -> Kept {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let (bell, users) = bells.entry(partition).or_default();
        *users += 1;
        Kept { wakes: Arc::clone(self), partition, bell: Arc::clone(bell) }
    }

    /// How long a reader waits before it looks by itself.
    pub(super) fn poll(&self) -> Duration {
        if self.hearing.load(Ordering::Acquire) { POLL } else { POLL_DEAF }
    }

    fn ring(&self, partition: i32, news: bool) -> bool {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = bells.get(&partition);
        if let Some((bell, _)) = bell {
            bell.ring(news);
        }
        bell.is_some()
    }

    pub(super) fn ring_all(&self) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.values().for_each(|(bell, _)| bell.ring(true));
        self.room.notify_waiters();
    }

    /// Tells the owners of partitions that something was committed. Those read here are told at once, the others by a task
    /// that ends when all are told.
    pub(super) fn tell(
        self: &Arc<Self>,
        db: &Database,
        stop: &CancellationToken,
        partitions: impl Iterator<Item = i32>,
        news: bool,
    ) {
        let far: Vec<_> = partitions.filter(|partition| !self.ring(*partition, news)).collect();
        if far.is_empty() {
            return;
        }
        {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            untold.partitions.extend(far.into_iter().map(|partition| (partition, news)));
            if std::mem::replace(&mut untold.telling, true) {
                return;
            }
        }
        let (wakes, db, stop) = (Arc::clone(self), db.clone(), stop.clone());
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(wakes.tell_all(&db)).await;
        });
    }

    async fn tell_all(&self, db: &Database) {
        for round in 1.. {
            let told = {
                let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                if untold.partitions.is_empty() {
                    untold.telling = false;
                    return;
                }
                std::mem::take(&mut untold.partitions)
            };
            let payload = payload(&told);
            // Lost, it costs the owner's next look; nobody waits for it.
            let params = params![CHANNEL, payload];
            if let Err(error) = db.write().query("SELECT pg_notify($1, $2)", params).await {
                tracing::debug!(%error, "owners were not told; they look by themselves");
            }
            if round >= AT_ONCE {
                tokio::time::sleep(DEBOUNCE).await;
            }
        }
    }

    fn heard(&self, payload: &str) {
        for word in payload.split_ascii_whitespace() {
            let (news, number) = match word.strip_prefix('!') {
                Some(number) => (true, number),
                None => (false, word),
            };
            match number.parse() {
                Ok(partition) => drop(self.ring(partition, news)),
                Err(_) => self.ring_all(),
            }
        }
    }

    /// Begins to listen, if nobody does yet.
    pub(super) fn listen(self: &Arc<Self>, db: &Database, stop: &CancellationToken) {
        if self.listener.swap(true, Ordering::AcqRel) {
            return;
        }
        let (wakes, db, stop) = (Arc::clone(self), db.clone(), stop.clone());
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(wakes.hear(&db)).await;
        });
    }

    async fn hear(&self, db: &Database) {
        loop {
            match db.listen([CHANNEL]).await {
                Ok(mut listener) => {
                    self.hearing.store(true, Ordering::Release);
                    self.ring_all();
                    loop {
                        match listener.next().await {
                            Ok(Event::Notification(said)) => self.heard(&said.payload),
                            Ok(_) => self.ring_all(),
                            Err(_) => break,
                        }
                    }
                    self.hearing.store(false, Ordering::Release);
                }
                Err(error) if error.kind() == resonant_db::ErrorKind::Unsupported => {
                    tracing::info!(%error, "no notifications come through; partitions are looked at five times a second");
                    return;
                }
                Err(error) if error.kind() == resonant_db::ErrorKind::Closed => return,
                Err(_) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// `3 4 !7`, or `*` for all.
fn payload(told: &BTreeSet<(i32, bool)>) -> String {
    if told.len() > TOLD {
        return "*".into();
    }
    let words: Vec<_> = told
        .iter()
        .map(|(partition, news)| format!("{}{partition}", if *news { "!" } else { "" }))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let wakes = Arc::new(Wakes::default());
        let kept: Vec<_> = (1..4).map(|partition| wakes.keep(partition)).collect();
        let news = || kept.iter().map(|kept| kept.bell.news()).collect::<Vec<_>>();
        wakes.heard(&payload(&BTreeSet::from([(1, false), (3, true), (9, true)])));
        assert_eq!(news(), [0, 0, 1]);
        wakes.heard("what is this");
        assert_eq!(news(), [3, 3, 4], "what is not understood may mean anything");
        let many = (0..1000).map(|partition| (partition, false)).collect();
        assert_eq!(payload(&many), "*");
        drop(kept);
        assert!(wakes.bells.lock().unwrap_or_else(PoisonError::into_inner).is_empty());
    }
}
