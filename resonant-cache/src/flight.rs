//! A load under way, as those who wait for it see it.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Span;

use crate::error::{Error, ErrorKind, Result};
use crate::freshness::{Freshness, Windows, judge};
use crate::inflight::Ticket;
use crate::key::LocalKey;
use crate::l1::Entry;
use crate::local::Local;
use crate::options::Tier;

/// A load others can wait for.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    progress: watch::Receiver<Progress>,
    /// Counts those who hold a flight.
    crowd: Arc<Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    /// The load's, once it has begun.
    span: OnceLock<Span>,
}

#[derive(Debug, Default)]
struct Progress {
    /// What can be served if the load fails or takes too long.
    stale: Option<Entry>,
    done: Option<Result<Landed>>,
}

/// What a load came to.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    pub(crate) entry: Entry,
    pub(crate) tier: Tier,
    pub(crate) stale: bool,
}

impl Flight {
    pub(crate) fn new() -> (Self, Pilot) {
        let (progress, watched) = watch::channel(Progress::default());
        (Self { progress: watched, crowd: Arc::default() }, Pilot { progress })
    }

    /// The load has begun, in this span.
    pub(crate) fn begun(&self, span: &Span) {
        if !span.is_disabled() {
            let _ = self.crowd.span.set(span.clone());
        }
    }

    /// The load's span, for who has waited for it.
    pub(crate) fn span(&self) -> Option<Span> {
        self.crowd.span.get().cloned()
    }

    /// How many wait, about.
    pub(crate) fn crowd(&self) -> usize {
        Arc::strong_count(&self.crowd)
    }

    /// Waits for the load's end; or serves a stale value as soon as the windows and `soft` allow.
    ///
    /// Dropping this future leaves the load as it is.
    pub(crate) async fn wait(
        &mut self,
        mut stale: Option<Entry>,
        windows: Windows,
        soft: Option<Instant>,
    ) -> Result<Landed> {
        loop {
            {
                let progress = self.progress.borrow_and_update();
                if let Some(done) = &progress.done {
                    return done.clone();
                }
                stale = progress.stale.clone().or(stale);
            }
            let now = Instant::now();
            let usable = stale.as_ref().map_or(Freshness::Expired, |entry| {
                judge(entry.fresh_until, entry.value.is_none(), windows, now)
            });
            let serve_now = match usable {
                Freshness::Fresh | Freshness::Revalidate => true,
                Freshness::IfError => soft.is_some_and(|soft| soft <= now),
                Freshness::Expired => {
                    stale = None;
                    false
                }
            };
            if serve_now && let Some(entry) = stale {
                return Ok(Landed { entry, tier: Tier::Local, stale: true });
            }
            let changed = self.progress.changed();
            let alive = match soft.filter(|_| stale.is_some()) {
                // Past the deadline the next round serves the stale value.
                Some(soft) => tokio::time::timeout_at(soft, changed).await.unwrap_or(Ok(())),
                None => changed.await,
            };
            if alive.is_err() {
                let message = "the load was stopped: the cache is closed or its runtime shut down";
                return Err(Error::new(ErrorKind::Closed, "get_or_load", message));
            }
        }
    }
}

/// The load's own end of a flight.
#[derive(Debug)]
pub(crate) struct Pilot {
    progress: watch::Sender<Progress>,
}

/// One key of a load under way. However it ends, also by a panic or when its task is aborted, the key is free again
/// and nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) key: LocalKey,
    local: Arc<Local>,
    ticket: Ticket,
    pilot: Pilot,
    /// What can be served if the load fails.
    pub(crate) stale: Option<Entry>,
    ended: bool,
}

impl Seat {
    pub(crate) fn new(
        local: Arc<Local>,
        key: LocalKey,
        ticket: Ticket,
        pilot: Pilot,
        stale: Option<Entry>,
    ) -> Self {
        Self { key, local, ticket, pilot, stale, ended: false }
    }

    /// Lets those who wait have `entry` if they accept a stale one.
    pub(crate) fn offer_stale(&mut self, entry: Entry) {
        self.stale = Some(entry.clone());
        self.pilot.progress.send_modify(|progress| progress.stale = Some(entry));
    }

    /// Keeps an entry in the process, unless the key changed since the load began.
    pub(crate) fn keep(&self, entry: Entry) {
        self.local.fill(&self.key, self.ticket, entry);
    }

    /// Ends the load. The key is free before anybody learns of the end, so that whoever asks again starts anew.
    pub(crate) fn land(mut self, end: Result<Landed>) {
        self.end();
        self.pilot.progress.send_modify(|progress| progress.done = Some(end));
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.local.end(&self.key, self.ticket, true);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::inflight::Entered;

    const NO_WINDOWS: Windows = Windows { revalidate: Duration::ZERO, if_error: Duration::ZERO };

    /// A load of a key that has just been started.
    fn started(local: &Arc<Local>, key: &LocalKey) -> (Flight, Seat) {
        let (flight, pilot) = Flight::new();
        let Entered::Started(flight, ticket) = local.join_or_start(key, || flight) else {
            panic!("nothing was under way")
        };
        (flight, Seat::new(Arc::clone(local), key.clone(), ticket, pilot, None))
    }

    fn key() -> LocalKey {
        LocalKey { namespace: 1, key: "k".into() }
    }

    /// Looks, at the moment it is woken, whether the key is free.
    struct Probe {
        local: Arc<Local>,
        free: AtomicBool,
    }

    impl Wake for Probe {
        fn wake(self: Arc<Self>) {
            let (next, _pilot) = Flight::new();
            let free = matches!(self.local.join_or_start(&key(), || next), Entered::Started(..));
            self.free.store(free, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_key_is_free_when_the_end_is_told() {
        let local = Arc::new(Local::new(1 << 20, "cache"));
        let (mut flight, seat) = started(&local, &key());
        let probe = Arc::new(Probe { local, free: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&probe));
        let mut wait = Box::pin(flight.wait(None, NO_WINDOWS, None));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        seat.land(Err(Error::new(ErrorKind::Load, "load", "no")));
        assert!(probe.free.load(Ordering::SeqCst), "whoever is woken would join what has ended");
    }

    #[tokio::test]
    async fn a_load_that_vanishes_frees_the_key_and_tells_who_waits() {
        let local = Arc::new(Local::new(1 << 20, "cache"));
        let (mut flight, seat) = started(&local, &key());
        drop(seat);
        let end = flight.wait(None, NO_WINDOWS, None).await;
        assert_eq!(end.err().map(|error| error.kind()), Some(ErrorKind::Closed));
        drop(started(&local, &key()));
    }
}
