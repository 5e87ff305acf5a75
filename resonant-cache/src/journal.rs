//! What was to be removed while the store did not answer, to be made up for when it does. A pure core; `replay` is its shell.
//!
//! Entries are invalidations alone, so doing one twice, or late, costs a miss and no more. The newest entry of a key stands for
//! all of them. When room runs out, the namespace with the most entries is cleared as a whole instead; a clear of each namespace
//! is the least there is, and is kept however little room there may be. A clear cannot stand for
//! a fence, which keeps out reads that come behind it, nor for anything of a plain namespace, whose values carry no epoch: when
//! nothing else is left to give up, the oldest of these are lost, and counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Bump, FenceAt, Key};

/// One thing to make up for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    Remove(Key, Option<FenceAt>),
    Bump(Arc<str>, Bump),
}

impl Deed {
    fn namespace(&self) -> &Arc<str> {
        match self {
            Self::Remove(key, _) => key.namespace(),
            Self::Bump(namespace, _) => namespace,
        }
    }
}

/// What became of a request to remember something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// It is remembered; somebody makes up for it already.
    Remembered,
    /// It is remembered, and nobody makes up for anything yet: the caller must see to it.
    Begin,
    /// The journal is off.
    Off,
}

#[derive(Debug)]
pub(crate) struct Journal {
    most: usize,
    /// A copy of the pages' length, so that who reads takes no lock while nothing is wrong.
    length: AtomicUsize,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    deeds: BTreeMap<u64, Deed>,
    removals: HashMap<Key, u64>,
    /// Of each namespace, how many of its entries are bumps.
    bumps: HashMap<Arc<str>, usize>,
    /// The pending clear of a namespace.
    clears: HashMap<Arc<str>, u64>,
    /// Namespaces that no clear reaches.
    plain: HashSet<Arc<str>>,
    /// Entries given up since the journal was empty last.
    lost: usize,
    /// Whether that was said.
    said: bool,
    /// Whether somebody makes up for what stands here.
    at_work: bool,
}

impl Journal {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, length: AtomicUsize::new(0), pages: Mutex::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    /// Remembers to remove a key, of a `plain` namespace or not. One position keeps older reads out; of two the later call's.
    pub(crate) fn remove(&self, key: Key, fence: Option<FenceAt>, plain: bool) -> Noted {
        self.note(|pages| {
            let held = pages.forget(&key);
            let fence = fence.or(match held {
                Some(Deed::Remove(_, fence)) => fence,
                _ => None,
            });
            if plain && !pages.plain.contains(key.namespace()) {
                pages.plain.insert(Arc::clone(key.namespace()));
            }
            // A clear that comes later than it was asked for removes this key too. It may be under way now, so it comes again.
            if fence.is_none()
                && let Some(number) = pages.clears.get(key.namespace()).copied()
            {
                pages.drop_entry(number);
                return Deed::Bump(Arc::clone(key.namespace()), Bump::All);
            }
            Deed::Remove(key, fence)
        })
    }

    /// Remembers to invalidate tags, or everything.
    pub(crate) fn bump(&self, namespace: &Arc<str>, what: Bump) -> Noted {
        self.note(|pages| {
            if what == Bump::All {
                pages.retain(|deed| !matches!(deed, Deed::Bump(of, _) if of == namespace));
            }
            Deed::Bump(Arc::clone(namespace), what)
        })
    }

    /// Entries that were given up for want of room since there was nothing to make up for last.
    pub(crate) fn lost(&self) -> usize {
        if self.len() == 0 { 0 } else { self.pages().lost }
    }

    /// Whether entries were given up for the first time since there was nothing to make up for; says so once.
    pub(crate) fn begins_to_lose(&self) -> bool {
        let mut pages = self.pages();
        pages.lost > 0 && !std::mem::replace(&mut pages.said, true)
    }

    fn note(&self, deed: impl FnOnce(&mut Pages) -> Deed) -> Noted {
        if self.most == 0 {
            return Noted::Off;
        }
        let mut pages = self.pages();
        let deed = deed(&mut pages);
        pages.enter(deed);
        if pages.deeds.len() > self.most {
            pages.spill(self.most);
        }
        self.length.store(pages.deeds.len(), Ordering::Release);
        if std::mem::replace(&mut pages.at_work, true) { Noted::Remembered } else { Noted::Begin }
    }

    /// A newer value of the key is stored: what was to be removed is gone. A position stays: it is to keep older reads out.
    pub(crate) fn superseded(&self, key: &Key) {
        if self.len() > 0 {
            let mut pages = self.pages();
            let held = pages.removals.get(key).and_then(|number| pages.deeds.get(number));
            if matches!(held, Some(Deed::Remove(_, None))) {
                pages.forget(key);
            }
            self.length.store(pages.deeds.len(), Ordering::Release);
        }
    }

    /// Whether what the store holds for a key may be what should have been removed.
    pub(crate) fn concerns(&self, key: &Key) -> bool {
        if self.len() == 0 {
            return false;
        }
        let pages = self.pages();
        pages.removals.contains_key(key) || pages.bumps.contains_key(key.namespace())
    }

    /// The next entries behind `from`, in order; the store's answer is told with [`done`](Journal::done).
    pub(crate) fn from(&self, from: u64, count: usize) -> Vec<(u64, Deed)> {
        let pages = self.pages();
        pages.deeds.range(from..).take(count).map(|(at, deed)| (*at, deed.clone())).collect()
    }

    /// An entry was made up for.
    pub(crate) fn done(&self, number: u64) {
        let mut pages = self.pages();
        pages.drop_entry(number);
        self.length.store(pages.deeds.len(), Ordering::Release);
    }

    /// Whether nothing is left; then whoever made up for it goes, and the next entry needs somebody new.
    pub(crate) fn rest(&self) -> bool {
        let mut pages = self.pages();
        let over = pages.deeds.is_empty();
        pages.at_work = !over;
        if over {
            (pages.lost, pages.said) = (0, false);
        }
        over
    }

    /// Nothing inside these sections can panic halfway, so a poisoned lock guards whole data.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn forget(&mut self, key: &Key) -> Option<Deed> {
        let number = self.removals.remove(key)?;
        self.deeds.remove(&number)
    }

    fn enter(&mut self, deed: Deed) {
        let number = self.next;
        self.next += 1;
        match &deed {
            Deed::Remove(key, _) => {
                self.removals.insert(key.clone(), number);
            }
            Deed::Bump(namespace, what) => {
                *self.bumps.entry(Arc::clone(namespace)).or_default() += 1;
                if *what == Bump::All {
                    self.clears.insert(Arc::clone(namespace), number);
                }
            }
        }
        self.deeds.insert(number, deed);
    }

    fn drop_entry(&mut self, number: u64) {
        let Some(deed) = self.deeds.remove(&number) else { return };
        match &deed {
            Deed::Remove(key, _) => {
                if self.removals.get(key) == Some(&number) {
                    self.removals.remove(key);
                }
            }
            Deed::Bump(namespace, _) => {
                if self.clears.get(namespace) == Some(&number) {
                    self.clears.remove(namespace);
                }
                if let Some(count) = self.bumps.get_mut(namespace) {
                    *count -= 1;
                    if *count == 0 {
                        self.bumps.remove(namespace);
                    }
                }
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&Deed) -> bool) {
        let gone: Vec<_> =
            self.deeds.iter().filter(|(_, deed)| !keep(deed)).map(|(at, _)| *at).collect();
        for number in gone {
            self.drop_entry(number);
        }
    }

    /// Whether a clear of its namespace can stand for it.
    fn is_covered(&self, deed: &Deed) -> bool {
        match deed {
            Deed::Remove(key, fence) => fence.is_none() && !self.plain.contains(key.namespace()),
            Deed::Bump(..) => true,
        }
    }

    /// Clears the namespace with the most entries as a whole. Where that makes no room, the oldest removals are lost: a
    /// sixteenth at a time, so that who comes next need not look for room again.
    fn spill(&mut self, most: usize) {
        let mut counts: HashMap<&Arc<str>, usize> = HashMap::new();
        for deed in self.deeds.values().filter(|deed| self.is_covered(deed)) {
            *counts.entry(deed.namespace()).or_default() += 1;
        }
        let largest = counts.into_iter().max_by_key(|(_, count)| *count);
        if let Some((namespace, 2..)) = largest {
            let namespace = Arc::clone(namespace);
            let covered: Vec<_> = self
                .deeds
                .iter()
                .filter(|(_, deed)| *deed.namespace() == namespace && self.is_covered(deed))
                .map(|(number, _)| *number)
                .collect();
            covered.into_iter().for_each(|number| self.drop_entry(number));
            return self.enter(Deed::Bump(namespace, Bump::All));
        }
        let is_removal = |deed: &Deed| matches!(deed, Deed::Remove(..));
        let removals = self.deeds.iter().filter(|(_, deed)| is_removal(deed));
        let oldest: Vec<_> = removals.map(|(at, _)| *at).take((most / 16).max(1)).collect();
        self.lost += oldest.len();
        oldest.into_iter().for_each(|number| self.drop_entry(number));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use resonant_common::join::Position;

    use super::*;
    use crate::backend::TagId;

    fn key(namespace: &str, n: usize) -> Key {
        Key::new(namespace, n.to_string())
    }

    fn all(journal: &Journal) -> Vec<Deed> {
        journal.from(0, usize::MAX).into_iter().map(|(_, deed)| deed).collect()
    }

    #[test]
    fn the_newest_entry_of_a_key_stands_for_all_in_its_order() {
        let journal = Journal::new(10);
        assert_eq!(journal.remove(key("a", 1), None, false), Noted::Begin);
        assert_eq!(journal.remove(key("a", 2), None, false), Noted::Remembered);
        journal.remove(key("a", 1), None, false);
        let expected = [Deed::Remove(key("a", 2), None), Deed::Remove(key("a", 1), None)];
        assert_eq!(all(&journal), expected);
        assert!(journal.concerns(&key("a", 1)) && !journal.concerns(&key("a", 3)));
        journal.superseded(&key("a", 1));
        assert!(!journal.concerns(&key("a", 1)), "a newer value is stored");
        assert!(!journal.rest());
        let entries = journal.from(0, 10);
        journal.done(entries[0].0);
        assert!(journal.rest() && journal.len() == 0);
        assert_eq!(
            journal.remove(key("a", 1), None, false),
            Noted::Begin,
            "somebody new is needed"
        );
    }

    #[test]
    fn an_entry_noted_while_an_older_one_is_made_up_for_stays() {
        let journal = Journal::new(10);
        journal.remove(key("a", 1), None, false);
        let under_way = journal.from(0, 10);
        journal.remove(key("a", 1), None, false);
        journal.done(under_way[0].0);
        assert!(journal.concerns(&key("a", 1)), "it was removed again since");
    }

    #[test]
    fn a_pending_bump_concerns_its_namespace_and_a_clear_stands_for_tags() {
        let journal = Journal::new(10);
        let namespace: Arc<str> = "a".into();
        journal.bump(&namespace, Bump::Tags(vec![TagId(1)]));
        journal.bump(&namespace, Bump::Tags(vec![TagId(2)]));
        assert!(journal.concerns(&key("a", 1)) && !journal.concerns(&key("b", 1)));
        journal.bump(&namespace, Bump::All);
        assert_eq!(all(&journal), [Deed::Bump(Arc::clone(&namespace), Bump::All)]);
        let entries = journal.from(0, 10);
        journal.done(entries[0].0);
        assert!(!journal.concerns(&key("a", 1)));
    }

    #[test]
    fn more_than_there_is_room_for_clears_the_namespace() {
        let journal = Journal::new(100);
        journal.remove(key("few", 1), None, false);
        for n in 0..100_000 {
            journal.remove(key("many", n), None, false);
            assert!(journal.len() <= 100);
        }
        assert!(all(&journal).contains(&Deed::Bump("many".into(), Bump::All)));
        assert!(all(&journal).contains(&Deed::Remove(key("few", 1), None)));
        assert!(journal.concerns(&key("many", 0)) && !journal.concerns(&key("few", 2)));
        assert_eq!(Journal::new(0).remove(key("a", 1), None, false), Noted::Off);
    }

    fn fence(offset: u64) -> Option<FenceAt> {
        let position = Position { system: 1, timeline: 1, offset };
        Some(FenceAt { position, ttl: Duration::from_secs(60) })
    }

    #[test]
    fn a_clear_stands_for_no_fence_and_for_nothing_of_a_plain_namespace() {
        let journal = Journal::new(100);
        for n in 0..20 {
            journal.remove(key("mixed", n), fence(n as u64), false);
            journal.remove(key("plain", n), None, true);
        }
        for n in 100..1000 {
            journal.remove(key("mixed", n), None, false);
        }
        let left = all(&journal);
        assert_eq!(journal.lost(), 0);
        assert!(left.contains(&Deed::Bump("mixed".into(), Bump::All)));
        for n in 0..20 {
            assert!(left.contains(&Deed::Remove(key("mixed", n), fence(n as u64))), "fence {n}");
            assert!(left.contains(&Deed::Remove(key("plain", n), None)), "plain {n}");
        }
    }

    #[test]
    fn what_nothing_can_stand_for_is_lost_from_the_oldest_on_and_counted() {
        let journal = Journal::new(64);
        for n in 0..1000 {
            journal.remove(key("plain", n), None, true);
            assert!(journal.len() <= 64);
        }
        assert!(journal.lost() >= 1000 - 64 && journal.lost() < 1000, "{}", journal.lost());
        assert!(journal.concerns(&key("plain", 999)) && !journal.concerns(&key("plain", 0)));
        assert_eq!(journal.lost() + journal.len(), 1000);
        for (number, _) in journal.from(0, usize::MAX) {
            journal.done(number);
        }
        assert!(journal.rest());
        assert_eq!(journal.lost(), 0, "that outage is over");
    }

    #[test]
    fn a_removal_behind_a_clear_that_is_under_way_makes_it_come_again() {
        let journal = Journal::new(10);
        journal.bump(&"a".into(), Bump::All);
        let under_way = journal.from(0, 10);
        journal.remove(key("a", 1), None, false);
        assert_eq!(journal.len(), 1, "the clear stands for it");
        journal.done(under_way[0].0);
        assert!(journal.concerns(&key("a", 1)), "the clear may have come before the removal");
        assert_eq!(all(&journal), [Deed::Bump("a".into(), Bump::All)]);
    }
}
