//! What the process knows: the in-process tier, what is under way, and the namespaces' epochs; and how news from the
//! store changes it.
//!
//! Order of locks: a stripe, then the tier's own. A namespace's epochs are never taken together with either.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::time::Instant;

use crate::backend::{Event, Listener};
use crate::flight::Flight;
use crate::inflight::{Entered, InFlight, Ticket};
use crate::key::{LocalKey, LocalRef};
use crate::l1::{Entry, L1};
use crate::metrics::{Metrics, News};
use crate::namespace::NamespaceCore;
use crate::switches::{Panel, Switches};

const STRIPES: usize = 64;

pub(crate) struct Local {
    pub(crate) l1: L1,
    pub(crate) panel: Panel,
    news: News,
    stripes: Box<[Mutex<InFlight<Flight>>]>,
    hasher: RandomState,
    pub(crate) namespaces: RwLock<HashMap<Arc<str>, Arc<NamespaceCore>>>,
}

impl Local {
    pub(crate) fn new(max_bytes: u64, cache: &str) -> Self {
        Self {
            l1: L1::new(max_bytes),
            panel: Panel::default(),
            news: Metrics::news(cache),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            namespaces: RwLock::default(),
        }
    }

    /// Begins a read of the shared tier; ends when the answer is dropped.
    pub(crate) fn begin(&self, key: LocalKey) -> Reading<'_> {
        let ticket = self.stripe(&key).begin(key.clone());
        Reading { local: self, key, ticket }
    }

    pub(crate) fn join_or_start(
        &self,
        key: &LocalKey,
        make: impl FnOnce() -> Flight,
    ) -> Entered<Flight> {
        self.stripe(key).join_or_start(key.clone(), make)
    }

    /// Keeps `entry` if the key did not change since the ticket was given. Under the stripe's lock, so that no change
    /// comes between the check and the insert.
    pub(crate) fn fill(&self, key: &LocalKey, ticket: Ticket, entry: Entry) -> bool {
        let stripe = self.stripe(key);
        let valid = stripe.is_valid(key, ticket);
        if valid && !self.panel.bypasses_local() {
            self.l1.insert(key.clone(), entry);
        }
        valid
    }

    pub(crate) fn switch(&self, switches: Switches) {
        self.panel.set(switches);
        if self.panel.bypasses_local() {
            // Whoever fills has seen the switch, or has filled before.
            self.stripes.iter().for_each(|stripe| drop(lock(stripe)));
            self.l1.clear();
        }
    }

    pub(crate) fn end(&self, key: &LocalKey, ticket: Ticket, load: bool) {
        self.stripe(key).end(key, ticket, load);
    }

    /// The key changed.
    pub(crate) fn changed(&self, key: &LocalKey) {
        let mut stripe = self.stripe(key);
        stripe.invalidate(key);
        self.l1.remove(LocalRef { namespace: key.namespace, key: &key.key });
    }

    /// Everything of a namespace changed: what is under way may not be kept. What is kept goes by its epoch.
    pub(crate) fn cleared(&self, namespace: u32) {
        for stripe in &self.stripes {
            lock(stripe).invalidate_all(|key| key.namespace == namespace);
        }
    }

    /// Nothing held can be trusted. Namespaces that serve stale values keep theirs, whose life ends now.
    pub(crate) fn lost(&self) {
        let mut stale_is_of_use = false;
        for namespace in self.namespaces.read().unwrap_or_else(PoisonError::into_inner).values() {
            namespace.forget_epochs();
            stale_is_of_use |= !namespace.windows().longest().is_zero();
        }
        for stripe in &self.stripes {
            let mut stripe = lock(stripe);
            stripe.invalidate_all(|_| true);
        }
        if stale_is_of_use {
            self.l1.distrust(Instant::now());
        } else {
            self.l1.clear();
        }
    }

    fn namespace(&self, name: &str) -> Option<Arc<NamespaceCore>> {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        namespaces.get(name).cloned()
    }

    fn stripe(&self, key: &LocalKey) -> MutexGuard<'_, InFlight<Flight>> {
        // The remainder is an index, so it fits.
        let index = self.hasher.hash_one(key) % STRIPES as u64;
        lock(&self.stripes[usize::try_from(index).unwrap_or_default()])
    }

    /// Keys that are read or loaded now.
    fn under_way(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("l1", &self.l1)
            .field("under_way", &self.under_way())
            .finish_non_exhaustive()
    }
}

/// Nothing inside these sections can panic halfway, so a poisoned lock guards whole data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener for Local {
    fn apply(&self, event: &Event) {
        self.news.count(event);
        match event {
            Event::Changed(key) => {
                if let Some(namespace) = self.namespace(key.namespace()) {
                    self.changed(&namespace.local_key(key.key()));
                }
            }
            Event::TagsInvalidated { namespace, tags, epoch } => {
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.note_tags(tags, *epoch);
                }
            }
            Event::Cleared { namespace, epoch } => {
                if let Some(namespace) = self.namespace(namespace) {
                    namespace.note_clear(*epoch);
                    self.cleared(namespace.id());
                }
            }
            Event::Lost => self.lost(),
        }
    }
}

/// A read under way.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    local: &'a Local,
    key: LocalKey,
    ticket: Ticket,
}

impl Reading<'_> {
    /// Keeps what was read, unless the key changed meanwhile.
    pub(crate) fn fill(&self, entry: Entry) {
        self.local.fill(&self.key, self.ticket, entry);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.local.end(&self.key, self.ticket, false);
    }
}

/// Drops the in-process copy of keys when it is dropped itself: after the store's answer, or when the caller's future
/// is dropped and nobody knows whether the store acted.
#[derive(Debug)]
pub(crate) struct Forget<'a> {
    pub(crate) local: &'a Local,
    pub(crate) keys: Vec<LocalKey>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            self.local.changed(key);
        }
    }
}
