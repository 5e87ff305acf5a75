//! The statements that were met, and what each lane has prepared of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio_postgres::Statement;

use super::standing::Standing;
use crate::backend::postgres::rows::Layout;

/// How many statements are known. The one that was not met for longest is forgotten; of those that were met since the last
/// new one came, any.
const CAPACITY: usize = 512;

/// A statement.
pub(super) struct Known {
    pub(super) sql: Box<str>,
    /// What it names; nothing where it never shares a connection.
    pub(super) names: Option<String>,
    trusted: AtomicBool,
    watched: AtomicBool,
    standing: Mutex<Standing>,
    /// How late it was when it was last met.
    used: AtomicU64,
    prepared: RwLock<Vec<Arc<Prepared>>>,
}

/// A statement as a lane keeps it prepared.
pub(super) struct Prepared {
    pub(super) lane: u64,
    pub(super) statement: Statement,
    pub(super) layout: Layout,
}

impl Known {
    fn new(sql: &str) -> Self {
        Self {
            sql: sql.into(),
            names: super::plain::names(sql),
            trusted: AtomicBool::new(false),
            watched: AtomicBool::new(true),
            standing: Mutex::new(Standing::new()),
            used: AtomicU64::new(0),
            prepared: RwLock::default(),
        }
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// Whether it is of interest what it takes on a connection of its own.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// Looks at what is thought of it, or changes that.
    pub(super) fn judge<T>(&self, judge: impl FnOnce(&mut Standing) -> T) -> T {
        let mut standing = lock(&self.standing);
        let judged = judge(&mut standing);
        self.publish(&standing);
        judged
    }

    fn publish(&self, standing: &Standing) {
        self.trusted.store(standing.is_trusted(), Ordering::Release);
        self.watched.store(standing.is_watched(), Ordering::Release);
    }

    /// The same, unless somebody else does that just now.
    pub(super) fn judge_if_free(&self, judge: impl FnOnce(&mut Standing) -> bool) {
        let Ok(mut standing) = self.standing.try_lock() else { return };
        if !judge(&mut standing) {
            self.publish(&standing);
        }
    }

    pub(super) fn prepared(&self, lane: u64) -> Option<Arc<Prepared>> {
        let prepared = self.prepared.read().unwrap_or_else(PoisonError::into_inner);
        prepared.iter().find(|prepared| prepared.lane == lane).cloned()
    }

    pub(super) fn keep(&self, lane: u64, statement: Statement) -> Arc<Prepared> {
        let layout = Layout::of(statement.columns());
        let kept = Arc::new(Prepared { lane, statement, layout });
        let mut prepared = self.prepared.write().unwrap_or_else(PoisonError::into_inner);
        prepared.retain(|prepared| prepared.lane != lane);
        prepared.push(Arc::clone(&kept));
        kept
    }

    pub(super) fn forget(&self, lane: u64) {
        let mut prepared = self.prepared.write().unwrap_or_else(PoisonError::into_inner);
        prepared.retain(|prepared| prepared.lane != lane);
    }
}

/// The statements that were met.
#[derive(Default)]
pub(super) struct Statements {
    known: RwLock<HashMap<Box<str>, Arc<Known>>>,
    /// Counts the statements that were new.
    clock: AtomicU64,
}

impl Statements {
    /// What is known of a statement, from now on at the latest.
    pub(super) fn meet(&self, sql: &str) -> Arc<Known> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(sql) {
            // Nothing is written that all read, as long as nobody comes with a new one.
            let clock = self.clock.load(Ordering::Relaxed);
            if known.used.load(Ordering::Relaxed) != clock {
                known.used.store(clock, Ordering::Relaxed);
            }
            return Arc::clone(known);
        }
        let met = Arc::new(Known::new(sql));
        met.used.store(self.clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            let oldest = known.values().min_by_key(|known| known.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|known| known.sql.clone()) {
                known.remove(&oldest);
            }
        }
        Arc::clone(known.entry(sql.into()).or_insert(met))
    }

    /// A lane is gone.
    pub(super) fn forget_lane(&self, lane: u64) {
        for known in self.known.read().unwrap_or_else(PoisonError::into_inner).values() {
            known.forget(lane);
        }
    }
}

fn lock(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_a_statement_takes_is_of_interest_until_the_catalogue_is_asked_and_when_it_was_barred()
     {
        let (known, now) = (Known::new("SELECT 1"), Instant::now());
        let seen = || (known.is_watched(), known.is_trusted());
        assert_eq!(seen(), (true, false));
        assert!(known.judge(|standing| standing.ran(Duration::ZERO, Duration::ZERO, now)));
        assert_eq!(seen(), (false, false), "however long nobody answers for the catalogue");
        known.judge(|standing| standing.checked(Some(true), now));
        assert_eq!(seen(), (false, true));
        let later = now + Duration::from_secs(60);
        known.judge_if_free(|standing| standing.served(Duration::ZERO, Duration::ZERO, later));
        assert_eq!(seen(), (true, false), "it is judged anew");
        known.judge(|standing| standing.stumbled(now));
        assert_eq!(seen(), (true, false));
    }

    #[test]
    fn as_many_are_known_as_may_be_and_the_one_met_last_stays() {
        let statements = Statements::default();
        let kept = statements.meet("SELECT 0");
        for n in 1..(CAPACITY as u64 * 2) {
            statements.meet(&format!("SELECT {n}"));
            assert!(Arc::ptr_eq(&kept, &statements.meet("SELECT 0")));
        }
        assert_eq!(statements.known.read().expect("unpoisoned").len(), CAPACITY);
    }
}
