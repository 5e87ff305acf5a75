//! Reading with a loader, one key.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::duration::after;
use resonant_common::error::BoxError;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Namespace;
use super::kit::{Held, Kit, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Flight, Landed, Pilot, Seat};
use crate::inflight::{Entered, Ticket};
use crate::key::LocalKey;
use crate::l1::Entry;
use crate::load::{Load, Loader};
use crate::metrics::{How, Op};
use crate::options::{Loaded, Served, Tier};
use crate::trace::{self, Call};

impl<V: Send + Sync + 'static> Namespace<V> {
    /// The value under `key`; if it is missing, loads it once, however many ask for it at the same time in this
    /// process and, as far as the store's leases reach, in others.
    ///
    /// The load runs in a task of its own: a caller that goes away does not stop it for the others. Its error or panic
    /// reaches all who waited, and the next call loads anew. A change of the key while the load runs (a `set`, a
    /// `delete`, an invalidation) keeps its result out of the cache; only those who asked before get it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> resonant_cache::Result<()> {
    /// use resonant_cache::DistributedCache;
    ///
    /// let cache = DistributedCache::memory(1 << 20);
    /// let lengths = cache.namespace::<usize>("length");
    /// let length = lengths.get_or_load("word", async || Ok::<_, std::io::Error>(4)).await?;
    /// assert_eq!(*length, 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `Load` with the loader's error as source; `TimedOut` past `hard_load_timeout`; `NotFound` for a negative entry;
    /// `Overloaded` past the limits of loads or callers; `KeyTooLong`, `Codec`, `Closed`. A store that is down is no
    /// error here: the value comes from the loader.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the load goes on and its value is stored.
    pub async fn get_or_load<F, Fut, E>(&self, key: &str, load: F) -> Result<Arc<V>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        if let Some(Held { entry, verdict: Verdict::Fresh }) = self.kit.look(key) {
            self.kit.count_local(Op::GetOrLoad, &entry, false);
            return self.kit.present(self.kit.serve(entry, Tier::Local, false)?);
        }
        let load = async move || load().await.map(Loaded::new);
        let served = self.load_with(key, load).await?;
        self.kit.present(served)
    }

    /// The same for a loader that says more about what it found: that there is no value, how long it is good, its
    /// tags, or the position it was read at.
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Namespace::get_or_load), without `NotFound`; `Rejected` if the loader gives more than 16
    /// tags or a time to live of zero.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_load`](Namespace::get_or_load).
    pub async fn get_or_load_with<F, Fut, E>(&self, key: &str, load: F) -> Result<Served<V>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        if let Some(Held { entry, verdict: Verdict::Fresh }) = self.kit.look(key) {
            self.kit.count_local(Op::GetOrLoad, &entry, false);
            return self.kit.serve(entry, Tier::Local, false);
        }
        self.load_with(key, load).await
    }

    async fn load_with<F, Fut, E>(&self, key: &str, load: F) -> Result<Served<V>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let kit = &self.kit;
        let held = kit.look(key);
        let local = kit.admit(key, "get_or_load")?;
        let mut loader: Option<Box<dyn Loader<V>>> = Some(Box::new(Once(Some(load))));
        let mut stale = None;
        match held {
            Some(Held { entry, verdict: Verdict::Fresh }) => {
                return kit.serve(entry, Tier::Local, false);
            }
            Some(Held { entry, verdict: Verdict::Settled }) => {
                kit.count_local(Op::GetOrLoad, &entry, true);
                return kit.serve(entry, Tier::Local, true);
            }
            Some(Held { entry, verdict: Verdict::Revalidate }) => {
                kit.enter(&local, Some(entry.clone()), &mut loader)?;
                kit.count_local(Op::GetOrLoad, &entry, true);
                return kit.serve(entry, Tier::Local, true);
            }
            Some(Held { entry, verdict: Verdict::IfError }) => stale = Some(entry),
            None => {}
        }
        let call = kit.call("get_or_load", 1);
        let landed = kit.fly(&local, stale, &mut loader, &call).instrument(call.span()).await;
        kit.report(&landed, Some(&call));
        let Landed { entry, tier, stale } = landed?;
        kit.serve(entry, tier, stale)
    }
}

impl<V: Send + Sync + 'static> Kit<V> {
    /// Joins or starts the key's load and waits for it.
    async fn fly(
        self: &Arc<Self>,
        key: &LocalKey,
        stale: Option<Entry>,
        loader: &mut Option<Box<dyn Loader<V>>>,
        call: &Call,
    ) -> Result<Landed> {
        let soft = self.soft_deadline();
        let (mut flight, joined) = self.enter(key, stale.clone(), loader)?;
        let landed = flight.wait(stale.clone(), self.ns.windows(), soft).await;
        if joined && let Some(load) = flight.span() {
            call.joined(&load);
        }
        drop(flight);
        let landed = landed?;
        if !joined || self.stands(&landed) {
            return Ok(landed);
        }
        // The load that was joined began before an invalidation that came before this call. The next one did not.
        let (mut flight, _) = self.enter(key, stale.clone(), loader)?;
        flight.wait(stale, self.ns.windows(), soft).await
    }

    pub(super) fn soft_deadline(&self) -> Option<Instant> {
        self.ns.config.soft_load_timeout.map(|soft| after(Instant::now(), soft))
    }

    pub(super) fn stands(&self, landed: &Landed) -> bool {
        self.ns.judge(landed.entry.epoch, landed.entry.tags()) == crate::epochs::Standing::Valid
    }

    /// Joins the key's load, or starts it with `loader`; answers whether it joined.
    fn enter(
        self: &Arc<Self>,
        key: &LocalKey,
        stale: Option<Entry>,
        loader: &mut Option<Box<dyn Loader<V>>>,
    ) -> Result<(Flight, bool)> {
        let mut pilot = None;
        match self.board(key, &mut pilot)? {
            Entered::Joined(flight) => Ok((flight, true)),
            Entered::Started(flight, ticket) => {
                let seat = self.seat(key, ticket, pilot, stale);
                if let (Some(seat), Some(loader)) = (seat, loader.take()) {
                    self.begin(loader, vec![seat], [&flight]);
                }
                Ok((flight, false))
            }
        }
    }

    /// Begins a load, in a task of its own and a span of its own.
    pub(super) fn begin<'a>(
        self: &Arc<Self>,
        loader: Box<dyn Loader<V>>,
        seats: Vec<Seat>,
        flights: impl IntoIterator<Item = &'a Flight>,
    ) {
        let span = trace::load(&self.core.config.name, self.ns.name(), seats.len());
        flights.into_iter().for_each(|flight| flight.begun(&span));
        self.core.spawn(Load::new(Arc::clone(self)).run(loader, seats).instrument(span));
    }

    pub(super) fn board(
        &self,
        key: &LocalKey,
        pilot: &mut Option<Pilot>,
    ) -> Result<Entered<Flight>> {
        let entered = self.core.local.join_or_start(key, || {
            let (flight, made) = Flight::new();
            *pilot = Some(made);
            flight
        });
        if let Entered::Joined(flight) = &entered {
            let most = self.ns.config.max_waiters_per_load;
            if flight.crowd() > most {
                let message = format!("more than {most} callers wait for one load");
                return Err(Error::new(ErrorKind::Overloaded, "get_or_load", message));
            }
            self.core.metrics.coalesced.increment(1);
        }
        Ok(entered)
    }

    /// The place of a key whose load is started; `None` if there is nothing to load: another load ended after this
    /// caller had looked and before it started its own.
    pub(super) fn seat(
        &self,
        key: &LocalKey,
        ticket: Ticket,
        pilot: Option<Pilot>,
        stale: Option<Entry>,
    ) -> Option<Seat> {
        let seat = Seat::new(Arc::clone(&self.core.local), key.clone(), ticket, pilot?, stale);
        match self.look(&key.key) {
            Some(Held { entry, verdict: Verdict::Fresh }) => {
                seat.land(Ok(Landed { entry, tier: Tier::Local, stale: false }));
                None
            }
            _ => Some(seat),
        }
    }

    pub(super) fn report(&self, landed: &Result<Landed>, call: Option<&Call>) {
        let how = match landed {
            Err(_) => How::Error,
            Ok(Landed { stale: true, .. }) => How::Stale,
            Ok(Landed { entry, .. }) if entry.value.is_none() => How::Negative,
            Ok(Landed { tier: Tier::Loaded, .. }) => How::Loaded,
            Ok(Landed { tier: Tier::Shared, .. }) => How::HitShared,
            Ok(Landed { tier: Tier::Local, .. }) => How::HitLocal,
        };
        self.core.metrics.count(Op::GetOrLoad, how);
        match (call, landed) {
            (Some(call), Ok(_)) => call.ended(how),
            (Some(call), Err(error)) => call.failed(error),
            (None, _) => {}
        }
    }

    fn present(&self, served: Served<V>) -> Result<Arc<V>> {
        served.value.ok_or_else(|| {
            let message = format!("namespace {:?} is known to have no such value", self.ns.name());
            Error::new(ErrorKind::NotFound, "get_or_load", message)
        })
    }
}

/// A loader of one key, called once.
struct Once<F>(Option<F>);

#[async_trait]
impl<V, F, Fut, E> Loader<V> for Once<F>
where
    V: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    async fn load(&mut self, keys: Vec<String>) -> Result<HashMap<String, Loaded<V>>, BoxError> {
        let load = self.0.take().ok_or("a loader of one key is called once")?;
        let loaded = load().await.map_err(Into::into)?;
        Ok(keys.into_iter().next().map(|key| (key, loaded)).into_iter().collect())
    }
}
