//! A load from beginning to end, for one key or many, in a task of its own.
//!
//! Per key: look into the shared tier; ask for the fleet's lease; whoever gets it looks again, for the value may have come
//! in between, and runs the loader, within its namespace's turn and deadline, and stores what came under the lease; whoever does not looks again until the value
//! is there or the lease is free. Where the store is down, loaders run without leases and what they find is kept in
//! this process for a short while only.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use resonant_common::backoff::Backoff;
use resonant_common::duration::after;
use resonant_common::error::BoxError;
use tokio::time::Instant;

use crate::backend::{Guard, Key, LeaseAsk, LeaseToken, Leased, ReadFrom, Write, WriteOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::{Landed, Seat};
use crate::freshness::{Freshness, judge};
use crate::l1::{Entry, Value};
use crate::metrics::Outcome;
use crate::namespace::kit::Kit;
use crate::options::{Kept, Loaded, Tier};
use crate::switches::Place;
use crate::trace;

/// Calls the user's loader for some keys. What is not in the answer has no value.
#[async_trait]
pub(crate) trait Loader<V>: Send {
    async fn load(&mut self, keys: Vec<String>) -> Result<HashMap<String, Loaded<V>>, BoxError>;
}

/// How often another process's lease is looked at.
const LOOK_AGAIN: Backoff =
    Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(100), factor: 2.0 };

/// The longest lease of a plain value.
const PLAIN_LEASE: Duration = Duration::from_secs(240);

pub(crate) struct Load<V> {
    kit: Arc<Kit<V>>,
    token: LeaseToken,
}

/// A key the loader is to be called for.
struct Chosen {
    seat: Seat,
    hold: Hold,
}

/// Whether the fleet's lease is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Leased,
    /// The store's answer was lost: it may have granted the lease.
    Unsure,
    /// The store is down.
    None,
}

impl<V: Send + Sync + 'static> Load<V> {
    pub(crate) fn new(kit: Arc<Kit<V>>) -> Self {
        Self { kit, token: LeaseToken(rand::random()) }
    }

    pub(crate) async fn run(self, mut loader: Box<dyn Loader<V>>, mut seats: Vec<Seat>) {
        let ns = Arc::clone(&self.kit.ns);
        let command = self.kit.core.config.command_timeout;
        // Long enough for everything that may happen under it, so that it lapses only if this process is gone.
        let lease_ttl = (ns.config.hard_load_timeout)
            .saturating_add(ns.config.load_queue_timeout)
            .saturating_add(command.saturating_mul(4));
        // A lease that lasts longer may leave a mark in place of the value, which other programs would see.
        let lease_ttl = if ns.config.plain { lease_ttl.min(PLAIN_LEASE) } else { lease_ttl };
        let deadline = after(Instant::now(), lease_ttl.saturating_mul(2));
        for round in 0u32.. {
            let (missing, down) = self.look(seats, ReadFrom::Any).await;
            let (chosen, held) = self.lease(missing, lease_ttl).await;
            let mut chosen = self.look_again(chosen).await;
            chosen.extend(down.into_iter().map(|seat| Chosen { seat, hold: Hold::None }));
            if !chosen.is_empty() {
                self.call(&mut *loader, chosen).await;
            }
            seats = held.into_iter().filter_map(|seat| self.land_revalidated(seat)).collect();
            if seats.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                break;
            }
            let wait = LOOK_AGAIN.wait(round, &mut rand::rng()).max(Duration::from_millis(1));
            tokio::time::sleep(wait).await;
        }
        let message = "another process held the lease for this key and never stored a value";
        let error = Error::new(ErrorKind::TimedOut, "load", message);
        seats.into_iter().for_each(|seat| self.land_failed(seat, &error));
    }

    /// Lands what the shared tier has; the rest is missing, or the store did not answer.
    async fn look(&self, seats: Vec<Seat>, from: ReadFrom) -> (Vec<Seat>, Vec<Seat>) {
        let keys: Vec<_> = seats.iter().map(|seat| seat.key.clone()).collect();
        let found = self.kit.fetch(&keys, from).await;
        let (mut missing, mut down) = (Vec::new(), Vec::new());
        for (mut seat, found) in seats.into_iter().zip(found) {
            match found.map(|found| found.entry) {
                Ok(Some((entry, Freshness::Fresh))) => {
                    seat.keep(entry.clone());
                    seat.land(Ok(Landed { entry, tier: Tier::Shared, stale: false }));
                }
                Ok(Some((entry, _))) => {
                    seat.offer_stale(entry);
                    missing.push(seat);
                }
                Ok(None) => missing.push(seat),
                Err(_) => down.push(seat),
            }
        }
        (missing, down)
    }

    /// Those whose lease is ours, and those held by others.
    async fn lease(&self, seats: Vec<Seat>, ttl: Duration) -> (Vec<Chosen>, Vec<Seat>) {
        let (mut chosen, mut held) = (Vec::new(), Vec::new());
        if seats.is_empty() {
            return (chosen, held);
        }
        if self.kit.core.local.panel.bypasses() {
            chosen.extend(seats.into_iter().map(|seat| Chosen { seat, hold: Hold::None }));
            return (chosen, held);
        }
        let (cleared, plain) = (self.kit.ns.cleared(), self.kit.ns.config.plain);
        let ask = LeaseAsk { token: self.token, cleared, ttl, plain };
        let leases = self.kit.core.gate.lease(&self.names(&seats), ask).await;
        for (seat, lease) in seats.into_iter().zip(leases) {
            match lease {
                Ok(Leased::Granted) => chosen.push(Chosen { seat, hold: Hold::Leased }),
                Ok(Leased::Held { .. }) => {
                    self.kit.core.metrics.lease_waits.increment(1);
                    held.push(seat);
                }
                Err(error) if error.may_have_applied() => {
                    chosen.push(Chosen { seat, hold: Hold::Unsure });
                }
                Err(_) => chosen.push(Chosen { seat, hold: Hold::None }),
            }
        }
        (chosen, held)
    }

    /// Between the look and the lease another process may have stored the value and given its lease back.
    async fn look_again(&self, chosen: Vec<Chosen>) -> Vec<Chosen> {
        let (leased, mut rest): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|chosen| chosen.hold == Hold::Leased);
        if leased.is_empty() {
            return rest;
        }
        let mut landed: HashSet<_> = leased.iter().map(|chosen| chosen.seat.key.clone()).collect();
        let seats = leased.into_iter().map(|chosen| chosen.seat).collect();
        let (missing, down) = self.look(seats, ReadFrom::Primary).await;
        for seat in missing.into_iter().chain(down) {
            landed.remove(&seat.key);
            rest.push(Chosen { seat, hold: Hold::Leased });
        }
        let names: Vec<_> = landed.iter().map(|key| self.kit.ns.stored_key(key)).collect();
        if !names.is_empty() {
            let _ = self.kit.core.gate.release(&names, self.token).await;
        }
        rest
    }

    fn names<'a>(&self, seats: impl IntoIterator<Item = &'a Seat>) -> Vec<Key> {
        seats.into_iter().map(|seat| self.kit.ns.stored_key(&seat.key)).collect()
    }

    async fn call(&self, loader: &mut dyn Loader<V>, chosen: Vec<Chosen>) {
        // Before the loader starts, so that an invalidation from here on concerns what it finds.
        let epoch = self.kit.ns.epoch();
        let keys = chosen.iter().map(|chosen| chosen.seat.key.key.to_string()).collect();
        let unsure = chosen.iter().filter(|chosen| chosen.hold == Hold::Unsure);
        let unsure = self.names(unsure.map(|chosen| &chosen.seat));
        match self.call_loader(loader, keys).await {
            Ok(loaded) => self.store(chosen, loaded, epoch).await,
            Err(error) => self.fail(chosen, &error).await,
        }
        // Nobody waits for this any more; left alone, such a lease would keep the key from everybody until it lapses.
        self.release_names(&unsure).await;
    }

    /// A place among the loads that the switches allow.
    async fn place(&self, deadline: Instant) -> Result<Place<'_>> {
        let panel = &self.kit.core.local.panel;
        if let Some(place) = panel.try_place() {
            return Ok(place);
        }
        let capped = || {
            let message = "the switch max_loads holds loads back; slow down, or raise it";
            Error::new(ErrorKind::Overloaded, "load", message)
        };
        if panel.get().max_loads == Some(0) {
            return Err(capped());
        }
        tokio::time::timeout_at(deadline, panel.place()).await.map_err(|_| capped())
    }

    /// The loader's answer, within its turn and its deadline, with panics caught.
    async fn call_loader(
        &self,
        loader: &mut dyn Loader<V>,
        keys: Vec<String>,
    ) -> Result<HashMap<String, Loaded<V>>> {
        let ns = Arc::clone(&self.kit.ns);
        let deadline = after(Instant::now(), ns.config.load_queue_timeout);
        let _turn = ns.turn().await?;
        let _place = self.place(deadline).await?;
        let hard = ns.config.hard_load_timeout;
        let began = Instant::now();
        let count = keys.len();
        let load = AssertUnwindSafe(loader.load(keys)).catch_unwind();
        let (outcome, answer) = match tokio::time::timeout(hard, load).await {
            Ok(Ok(Ok(loaded))) => (Outcome::Ok, Ok(loaded)),
            Ok(Ok(Err(source))) => {
                let message = format!("the loader of namespace {:?} failed", ns.name());
                (
                    Outcome::Error,
                    Err(Error::new(ErrorKind::Load, "load", message).with_source(source)),
                )
            }
            Ok(Err(panic)) => (Outcome::Panic, Err(panicked(ns.name(), &*panic))),
            Err(_) => {
                let message =
                    format!("the loader of namespace {:?} took longer than {hard:?}", ns.name());
                (Outcome::Timeout, Err(Error::new(ErrorKind::TimedOut, "load", message)))
            }
        };
        self.kit.core.metrics.load(outcome, began.elapsed());
        trace::loaded(count, outcome, answer.as_ref().err());
        answer
    }

    /// Stores what was loaded under its leases and lands it.
    async fn store(&self, chosen: Vec<Chosen>, mut loaded: HashMap<String, Loaded<V>>, epoch: u64) {
        let mut ready = Vec::new();
        let mut unkept = Vec::new();
        for chosen in chosen {
            let value = loaded.remove(&*chosen.seat.key.key).unwrap_or_else(Loaded::missing);
            match self.prepare(&chosen, value, epoch) {
                Ok(Prepared { landed, write: Some(write), .. }) => {
                    ready.push((chosen, landed, write));
                }
                unwritten => unkept.push((chosen, unwritten)),
            }
        }
        self.land_unkept(unkept).await;
        let writes = ready.iter().map(|(_, _, write)| write.clone()).collect::<Vec<_>>();
        if writes.is_empty() {
            return;
        }
        let outcomes = self.kit.core.gate.write(writes).await;
        // The key changed since the load began, or something newer is known. A write that is refused leaves the lease,
        // if it still lives, and nobody should have to wait for that.
        let refused = ready.iter().zip(&outcomes);
        let refused = refused.filter(|(_, outcome)| matches!(outcome, Ok(WriteOutcome::Refused)));
        self.release(refused.map(|((chosen, _, _), _)| chosen)).await;
        for ((chosen, landed, _), outcome) in ready.into_iter().zip(outcomes) {
            match outcome {
                Ok(WriteOutcome::Stored) => chosen.seat.keep(landed.entry.clone()),
                // Those who waited get what was loaded; nobody else does.
                Ok(WriteOutcome::Refused) => {}
                Err(_) => chosen.seat.keep(self.short_lived(landed.entry.clone())),
            }
            chosen.seat.land(Ok(landed));
        }
        self.kit.core.note_size();
    }

    /// Lands what is not to be stored: it is too large, a negative entry nobody wants remembered, or the store is down.
    async fn land_unkept(&self, unkept: Vec<(Chosen, Result<Prepared>)>) {
        // The store may still hold an older value, which the loader has just shown to be over.
        let leased = |chosen: &Chosen| chosen.hold == Hold::Leased;
        let over = unkept.iter().filter(|(chosen, end)| leased(chosen) && end.is_ok());
        let names = self.names(over.map(|(chosen, _)| &chosen.seat));
        if !names.is_empty() {
            let _ = self.kit.core.gate.remove(&names, None).await;
        }
        let failed = unkept.iter().filter(|(_, end)| end.is_err());
        self.release(failed.map(|(chosen, _)| chosen)).await;
        for (chosen, end) in unkept {
            let seat = &chosen.seat;
            match &end {
                Ok(_) if leased(&chosen) => self.kit.core.local.changed(&seat.key),
                Ok(end) if end.fits => seat.keep(self.short_lived(end.landed.entry.clone())),
                _ => {}
            }
            chosen.seat.land(end.map(|end| end.landed));
        }
    }

    /// What to land, and what to write if it is to be kept.
    fn prepare(&self, chosen: &Chosen, loaded: Loaded<V>, epoch: u64) -> Result<Prepared> {
        let kit = &self.kit;
        let kept = loaded.resolve(&kit.ns.config, "load")?;
        kit.needs_head(!kept.tags.is_empty(), "load")?;
        let value = loaded.into_value();
        let negative = value.is_none();
        let sealed = match kit.seal(value.as_ref(), &kept, epoch, "load") {
            Ok((sealed, _)) => Some(sealed),
            // Too large to keep is no reason to withhold it.
            Err(error) if error.kind() == ErrorKind::ValueTooLarge => None,
            Err(error) => return Err(error),
        };
        let payload = sealed.as_ref().map_or(0, |sealed| sealed.payload);
        let weight = value.as_ref().map_or(0, |value| kit.codec.weight(value, payload));
        let entry = self.entry(value, &kept, epoch, weight + chosen.seat.key.key.len());
        let unremembered = negative && (kit.ns.config.plain || kept.life == Some(Duration::ZERO));
        let fits = sealed.is_some();
        let writes = chosen.hold == Hold::Leased && !unremembered;
        let write = sealed.filter(|_| writes).map(|sealed| Write {
            key: kit.ns.stored_key(&chosen.seat.key),
            value: sealed.bytes,
            ttl: kit.stored_for(&kept, negative),
            guard: Guard::Lease(self.token),
            fence: kit.fence(&kept),
        });
        Ok(Prepared { landed: Landed { entry, tier: Tier::Loaded, stale: false }, write, fits })
    }

    fn entry(&self, value: Option<V>, kept: &Kept, epoch: u64, weight: usize) -> Entry {
        let now = Instant::now();
        let fresh_until = kept.life.and_then(|life| now.checked_add(life));
        Entry {
            value: value.map(|value| Arc::new(value) as Value),
            fresh_until,
            settled_until: self.kit.settled(fresh_until, now),
            epoch,
            tags: (!kept.tags.is_empty()).then(|| kept.tags.as_slice().into()),
            weight: weight as u64,
            trust: 0,
        }
    }

    /// For what could not be stored: kept here for a moment, so that a store that is down does not send every call to
    /// the source.
    fn short_lived(&self, mut entry: Entry) -> Entry {
        let end = after(Instant::now(), self.kit.core.config.degraded_ttl);
        entry.fresh_until = Some(entry.fresh_until.map_or(end, |fresh| fresh.min(end)));
        entry.settled_until = entry.fresh_until;
        entry
    }

    async fn fail(&self, chosen: Vec<Chosen>, error: &Error) {
        self.release(&chosen).await;
        chosen.into_iter().for_each(|chosen| self.land_failed(chosen.seat, error));
    }

    /// Another process loads this key: a value that may be served while it does so is landed. Others wait on.
    fn land_revalidated(&self, seat: Seat) -> Option<Seat> {
        if self.stale_freshness(&seat) == Freshness::Revalidate {
            self.land_stale(seat);
            return None;
        }
        Some(seat)
    }

    fn land_failed(&self, seat: Seat, error: &Error) {
        if self.stale_freshness(&seat) == Freshness::Expired {
            seat.land(Err(error.clone()));
        } else {
            self.land_stale(seat);
        }
    }

    fn stale_freshness(&self, seat: &Seat) -> Freshness {
        let windows = self.kit.ns.windows();
        seat.stale.as_ref().map_or(Freshness::Expired, |entry| {
            judge(entry.fresh_until, entry.value.is_none(), windows, Instant::now())
        })
    }

    /// Lands a key's stale value and keeps it for a moment, so that a source that fails is not asked by every call.
    fn land_stale(&self, mut seat: Seat) {
        let Some(mut entry) = seat.stale.take() else { return };
        // Not past the windows, however long the delay.
        let gone = entry.fresh_until.map(|end| after(end, self.kit.ns.windows().longest()));
        let again = after(Instant::now(), self.kit.ns.config.load_retry_delay);
        entry.settled_until = Some(gone.map_or(again, |gone| gone.min(again)));
        seat.keep(entry.clone());
        seat.land(Ok(Landed { entry, tier: Tier::Local, stale: true }));
    }

    /// Gives back leases that nothing will be stored under. If the store does not hear it, they lapse.
    async fn release<'a>(&self, chosen: impl IntoIterator<Item = &'a Chosen>) {
        let leased = chosen.into_iter().filter(|chosen| chosen.hold == Hold::Leased);
        self.release_names(&self.names(leased.map(|chosen| &chosen.seat))).await;
    }

    async fn release_names(&self, names: &[Key]) {
        if !names.is_empty() {
            let _ = self.kit.core.gate.release(names, self.token).await;
        }
    }
}

struct Prepared {
    landed: Landed,
    write: Option<Write>,
    /// Whether the value is within `max_value_bytes`. What is not is handed out and kept nowhere.
    fits: bool,
}

fn panicked(namespace: &str, panic: &(dyn Any + Send)) -> Error {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let source = BoxError::from(format!("panic: {said}"));
    Error::new(ErrorKind::Load, "load", format!("the loader of namespace {namespace:?} panicked"))
        .with_source(source)
}
