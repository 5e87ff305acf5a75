//! Compiled routes by text, bounded in bytes, read without a lock all threads share.
//!
//! The cache is striped by *thread*, not by text: each thread has a stripe of its own (as long as there are not more
//! threads than stripes), so two threads that run the same statement do not even touch the same cache line. The price is
//! that a statement is compiled once for each stripe, and that the limit is divided among them.
//!
//! Refusals are remembered too, so that a program that repeats a refused statement does not parse it each time. The hash
//! is keyed by chance: text may come from outside.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Program;
use crate::sharding::refusal::Refusal;

/// A compiled statement, or why there is none.
pub(crate) type Compiled = Result<Program, Refusal>;

/// Statements longer than this share of a stripe are not kept.
const LARGEST_SHARE: usize = 8;
/// What the maps and the counts around an entry take.
const OVERHEAD: usize = 160;

#[derive(Debug)]
pub(crate) struct RouteCache {
    stripes: Box<[Mutex<Stripe>]>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Stripe {
    routes: HashMap<Arc<str>, Slot>,
    /// In the order of the clock that looks for what was not used since it last passed.
    clock: VecDeque<Arc<str>>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    route: Arc<Compiled>,
    bytes: usize,
    used: bool,
}

impl RouteCache {
    /// A cache of at most `bytes` in all.
    pub(crate) fn new(bytes: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        let stripes = (threads * 2).clamp(2, 32);
        Self { stripes: (0..stripes).map(|_| Mutex::default()).collect(), limit: bytes / stripes }
    }

    pub(crate) fn get(&self, text: &str) -> Option<Arc<Compiled>> {
        let mut stripe = self.stripe();
        let slot = stripe.routes.get_mut(text)?;
        slot.used = true;
        Some(Arc::clone(&slot.route))
    }

    /// Keeps a route, making room first.
    pub(crate) fn insert(&self, text: &str, route: Arc<Compiled>) {
        let bytes = OVERHEAD
            + text.len()
            + match &*route {
                Ok(program) => program.heap_bytes(),
                Err(refusal) => refusal.heap_bytes(),
            };
        if bytes > self.limit / LARGEST_SHARE {
            return;
        }
        let mut stripe = self.stripe();
        while stripe.bytes + bytes > self.limit {
            if !stripe.evict() {
                break;
            }
        }
        let text: Arc<str> = text.into();
        let slot = Slot { route, bytes, used: false };
        // Two calls of one thread cannot cross here, but two threads may share a stripe.
        if let Some(before) = stripe.routes.insert(Arc::clone(&text), slot) {
            stripe.bytes -= before.bytes;
        } else {
            stripe.clock.push_back(text);
        }
        stripe.bytes += bytes;
    }

    /// The bytes held now, by the cache's own reckoning.
    pub(crate) fn bytes(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).bytes).sum()
    }

    fn stripe(&self) -> std::sync::MutexGuard<'_, Stripe> {
        let index = STRIPE.with(|stripe| *stripe) % self.stripes.len();
        // There is at least one stripe and the index is below their number.
        lock(&self.stripes[index])
    }
}

fn lock(stripe: &Mutex<Stripe>) -> std::sync::MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stripe {
    /// Drops one entry that was not used since the clock last passed it.
    fn evict(&mut self) -> bool {
        while let Some(text) = self.clock.pop_front() {
            match self.routes.get_mut(&text) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.clock.push_back(text);
                }
                Some(_) => {
                    if let Some(slot) = self.routes.remove(&text) {
                        self.bytes -= slot.bytes;
                    }
                    return true;
                }
                None => {}
            }
        }
        false
    }
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: &str) -> Arc<Compiled> {
        Arc::new(Err(Refusal::new(reason.to_owned(), "rewrite")))
    }

    #[test]
    fn it_keeps_to_its_bytes_and_to_what_is_used() {
        let cache = RouteCache::new(1 << 20);
        cache.insert("SELECT hot", refusal("hot"));
        for n in 0..20_000 {
            assert!(cache.get("SELECT hot").is_some(), "evicted at {n}");
            cache.insert(&format!("SELECT {n} {}", "x".repeat(200)), refusal("cold"));
            assert!(cache.bytes() <= 1 << 20);
        }
        assert!(cache.bytes() > 1 << 14);
        assert!(cache.get("SELECT 1").is_none());
    }

    #[test]
    fn what_is_too_large_for_it_is_not_kept() {
        let cache = RouteCache::new(64 << 10);
        let large = "x".repeat(32 << 10);
        cache.insert(&large, refusal("large"));
        assert!(cache.get(&large).is_none());
        assert_eq!(cache.bytes(), 0);
    }
}
