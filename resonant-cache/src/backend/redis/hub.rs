//! From what servers announce to what the cache is told; and whether announcements can be relied on.
//!
//! Every primary has an *ear*: a connection of its own on which the server announces each change under our prefix. While one
//! of them is missing, [`Hub::is_announced`] is false, and what the process keeps it keeps only for a moment. Both when an ear
//! is lost and when it is back everything held counts as lost: the first for what was held, the second for reads under way,
//! which may have read before it was back.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use tokio::time::Instant;

use super::lag::Lag;
use super::target::Address;
use crate::backend::{Event, Key, Listener, Origin, TagId};
use crate::key::unescape;

#[derive(Debug)]
pub(super) struct Hub {
    names: Names,
    listeners: RwLock<Vec<Weak<dyn Listener>>>,
    next_origin: AtomicU64,
    announced: AtomicBool,
    ears: Mutex<Ears>,
    lag: Option<Mutex<Lag>>,
}

#[derive(Debug, Default)]
struct Ears {
    /// Of each primary, whether it is heard.
    heard: HashMap<Address, bool>,
    refused: BTreeSet<Address>,
}

/// The beginnings of stored names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) prefix: String,
    /// Of values.
    pub(super) values: String,
    /// Of messages of bumps.
    pub(super) bumps: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            values: format!("{prefix}:{{"),
            bumps: format!("{prefix}:b{{"),
        }
    }
}

impl Hub {
    /// `replicas` says whether it must be remembered what changed lately.
    pub(super) fn new(prefix: &str, replicas: bool) -> Self {
        Self {
            names: Names::new(prefix),
            listeners: RwLock::default(),
            next_origin: AtomicU64::new(1),
            announced: AtomicBool::new(false),
            ears: Mutex::default(),
            lag: replicas.then(Mutex::default),
        }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn attach(&self, listener: Weak<dyn Listener>) -> Origin {
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
        Origin(self.next_origin.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether every change anywhere is announced.
    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// Whether a server refuses to announce.
    pub(super) fn is_refused(&self) -> bool {
        !lock(&self.ears).refused.is_empty()
    }

    /// What changed lately, where replicas are read from.
    pub(super) fn lag(&self) -> Option<MutexGuard<'_, Lag>> {
        self.lag.as_ref().map(lock)
    }

    /// From now on these servers' announcements are needed. `moved` says that slots have other owners than before.
    pub(super) fn require(&self, primaries: &BTreeSet<Address>, moved: bool) {
        let mut ears = lock(&self.ears);
        ears.heard.retain(|address, _| primaries.contains(address));
        ears.refused.retain(|address| primaries.contains(address));
        for address in primaries {
            ears.heard.entry(address.clone()).or_insert(false);
        }
        self.settle(ears, moved);
    }

    /// A server announces everything from now on.
    pub(super) fn heard(&self, address: &Address) {
        self.set(address, true, false);
    }

    /// A server's announcements may be missing from now on.
    pub(super) fn unheard(&self, address: &Address, refused: bool) {
        self.set(address, false, refused);
    }

    fn set(&self, address: &Address, heard: bool, refused: bool) {
        let mut ears = lock(&self.ears);
        let Some(entry) = ears.heard.get_mut(address) else { return };
        let before = std::mem::replace(entry, heard);
        if refused {
            ears.refused.insert(address.clone());
        } else {
            ears.refused.remove(address);
        }
        self.settle(ears, before != heard);
    }

    /// Under the lock, so that two changes are told in their order.
    fn settle(&self, ears: MutexGuard<'_, Ears>, changed: bool) {
        let announced = !ears.heard.is_empty() && ears.heard.values().all(|heard| *heard);
        let before = self.announced.swap(announced, Ordering::AcqRel);
        if changed && (before || announced) {
            self.tell(&Event::Lost);
            if let Some(mut lag) = self.lag() {
                lag.all_changed(Instant::now());
            }
        }
        drop(ears);
    }

    /// Servers are in use of which nobody knows yet whether they announce.
    pub(super) fn suspend(&self) {
        let ears = lock(&self.ears);
        if self.announced.swap(false, Ordering::AcqRel) {
            self.tell(&Event::Lost);
        }
        drop(ears);
    }

    /// A server forgot everything.
    pub(super) fn flushed(&self) {
        self.tell(&Event::Lost);
        if let Some(mut lag) = self.lag() {
            lag.all_changed(Instant::now());
        }
    }

    /// The name of a changed key, or of a message.
    pub(super) fn changed(&self, name: &[u8]) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        if let Some(key) = Key::decode(&self.names.prefix, name) {
            if let Some(mut lag) = self.lag() {
                lag.changed(fingerprint(name.as_bytes()), Instant::now());
            }
            self.tell(&Event::Changed(key));
        } else if let Some(event) = name.strip_prefix(&self.names.bumps).and_then(bump) {
            self.tell(&event);
        }
    }

    fn tell(&self, event: &Event) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.apply(event);
        }
    }
}

/// `namespace}epoch:tags`, of a message's name.
fn bump(rest: &str) -> Option<Event> {
    let (namespace, rest) = rest.split_once('}')?;
    let (epoch, what) = rest.split_once(':')?;
    let (namespace, epoch): (Arc<str>, u64) = (unescape(namespace)?.into(), epoch.parse().ok()?);
    if what == "*" {
        return Some(Event::Cleared { namespace, epoch });
    }
    let tags = what.split(',').map(|tag| u64::from_str_radix(tag, 16).map(TagId));
    Some(Event::TagsInvalidated { namespace, tags: tags.collect::<Result<_, _>>().ok()?, epoch })
}

/// Of a stored name, to remember that it changed.
pub(super) fn fingerprint(name: &[u8]) -> u64 {
    resonant_common::hash::key_hash(name)
}

/// Nothing inside these sections can panic halfway, so a poisoned lock guards whole data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Ear(Mutex<Vec<Event>>);

    impl Listener for Ear {
        fn apply(&self, event: &Event) {
            lock(&self.0).push(event.clone());
        }
    }

    fn hub() -> (Hub, Arc<Ear>) {
        let (hub, ear) = (Hub::new("p", true), Arc::new(Ear::default()));
        let weak = Arc::downgrade(&ear);
        hub.attach(weak);
        (hub, ear)
    }

    fn at(port: u16) -> Address {
        Address { host: "h".into(), port }
    }

    #[test]
    fn names_become_events() {
        let (hub, ear) = hub();
        let namespace: Arc<str> = "a:b".into();
        for name in [
            "p:{a%3Ab:k}",
            "p:b{a%3Ab}7:*",
            "p:b{a%3Ab}8:00000000000000ff,1",
            "p:l{a:k}",
            "q:{a:k}",
        ] {
            hub.changed(name.as_bytes());
        }
        hub.changed(b"p:{\xff:k}");
        let expected = [
            Event::Changed(Key::new("a:b", "k")),
            Event::Cleared { namespace: Arc::clone(&namespace), epoch: 7 },
            Event::TagsInvalidated { namespace, tags: vec![TagId(255), TagId(1)], epoch: 8 },
        ];
        assert_eq!(*lock(&ear.0), expected);
    }

    #[test]
    fn all_primaries_must_be_heard_and_every_gap_is_told() {
        let (hub, ear) = hub();
        let heard = |hub: &Hub| (hub.is_announced(), std::mem::take(&mut *lock(&ear.0)).len());
        hub.require(&BTreeSet::from([at(1), at(2)]), true);
        hub.heard(&at(1));
        assert_eq!(heard(&hub), (false, 0), "nothing is relied on yet");
        hub.heard(&at(2));
        assert_eq!(heard(&hub), (true, 1), "reads under way are void");
        hub.unheard(&at(2), false);
        assert_eq!(heard(&hub), (false, 1));
        hub.unheard(&at(2), true);
        assert!(hub.is_refused());
        hub.require(&BTreeSet::from([at(1)]), true);
        assert_eq!(heard(&hub), (true, 1));
        hub.require(&BTreeSet::from([at(1)]), false);
        assert_eq!(heard(&hub), (true, 0), "the same servers have the same slots");
        assert!(!hub.is_refused());
        hub.suspend();
        assert_eq!(heard(&hub), (false, 1));
        hub.heard(&at(9));
        assert_eq!(heard(&hub), (false, 0), "nobody needs that one");
    }
}
