//! What was to be removed while the store did not answer, to be made up for when it does. A pure core; `replay` is its shell.
//!
//! Entries are invalidations alone, so doing one twice, or late, costs a miss and no more. The newest entry of a key stands for
//! all of them. When room runs out, the namespace with the most entries is cleared as a whole instead.

use std::collections::{BTreeMap, HashMap};
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

    /// Remembers to remove a key. One position keeps older reads out; of two the later call's.
    pub(crate) fn remove(&self, key: Key, fence: Option<FenceAt>) -> Noted {
        self.note(|pages| {
            let held = pages.forget(&key);
            let fence = fence.or(match held {
                Some(Deed::Remove(_, fence)) => fence,
                _ => None,
            });
            pages.removals.insert(key.clone(), pages.next);
            Deed::Remove(key, fence)
        })
    }

    /// Remembers to invalidate tags, or everything.
    pub(crate) fn bump(&self, namespace: &Arc<str>, what: Bump) -> Noted {
        self.note(|pages| {
            if what == Bump::All {
                pages.retain(|deed| !matches!(deed, Deed::Bump(of, _) if of == namespace));
            }
            *pages.bumps.entry(Arc::clone(namespace)).or_default() += 1;
            Deed::Bump(Arc::clone(namespace), what)
        })
    }

    fn note(&self, deed: impl FnOnce(&mut Pages) -> Deed) -> Noted {
        if self.most == 0 {
            return Noted::Off;
        }
        let mut pages = self.pages();
        let deed = deed(&mut pages);
        let number = pages.next;
        pages.next += 1;
        pages.deeds.insert(number, deed);
        if pages.deeds.len() > self.most {
            pages.spill();
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
        if let Some(deed) = pages.deeds.remove(&number) {
            pages.unlist(number, &deed);
        }
        self.length.store(pages.deeds.len(), Ordering::Release);
    }

    /// Whether nothing is left; then whoever made up for it goes, and the next entry needs somebody new.
    pub(crate) fn rest(&self) -> bool {
        let mut pages = self.pages();
        let over = pages.deeds.is_empty();
        pages.at_work = !over;
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

    fn unlist(&mut self, number: u64, deed: &Deed) {
        match deed {
            Deed::Remove(key, _) => {
                if self.removals.get(key) == Some(&number) {
                    self.removals.remove(key);
                }
            }
            Deed::Bump(namespace, _) => {
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
            if let Some(deed) = self.deeds.remove(&number) {
                self.unlist(number, &deed);
            }
        }
    }

    /// Clears the namespace with the most entries as a whole.
    fn spill(&mut self) {
        let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
        for deed in self.deeds.values() {
            *counts.entry(Arc::clone(deed.namespace())).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let Some((namespace, _)) = most else { return };
        self.retain(|deed| *deed.namespace() != namespace);
        self.deeds.insert(self.next, Deed::Bump(Arc::clone(&namespace), Bump::All));
        self.next += 1;
        self.bumps.insert(namespace, 1);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(journal.remove(key("a", 1), None), Noted::Begin);
        assert_eq!(journal.remove(key("a", 2), None), Noted::Remembered);
        journal.remove(key("a", 1), None);
        let expected = [Deed::Remove(key("a", 2), None), Deed::Remove(key("a", 1), None)];
        assert_eq!(all(&journal), expected);
        assert!(journal.concerns(&key("a", 1)) && !journal.concerns(&key("a", 3)));
        journal.superseded(&key("a", 1));
        assert!(!journal.concerns(&key("a", 1)), "a newer value is stored");
        assert!(!journal.rest());
        let entries = journal.from(0, 10);
        journal.done(entries[0].0);
        assert!(journal.rest() && journal.len() == 0);
        assert_eq!(journal.remove(key("a", 1), None), Noted::Begin, "somebody new is needed");
    }

    #[test]
    fn an_entry_noted_while_an_older_one_is_made_up_for_stays() {
        let journal = Journal::new(10);
        journal.remove(key("a", 1), None);
        let under_way = journal.from(0, 10);
        journal.remove(key("a", 1), None);
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
        journal.remove(key("few", 1), None);
        for n in 0..100_000 {
            journal.remove(key("many", n), None);
            assert!(journal.len() <= 100);
        }
        assert!(all(&journal).contains(&Deed::Bump("many".into(), Bump::All)));
        assert!(all(&journal).contains(&Deed::Remove(key("few", 1), None)));
        assert!(journal.concerns(&key("many", 0)) && !journal.concerns(&key("few", 2)));
        assert_eq!(Journal::new(0).remove(key("a", 1), None), Noted::Off);
    }
}
