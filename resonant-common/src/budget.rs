//! A retry budget: retries may be at most a share of the calls, so that a struggling server is not finished off.
//!
//! Each call deposits a fraction of a token, each retry withdraws a whole one; a small reserve keeps quiet clients able
//! to retry. The idea is Finagle's `RetryBudget`.

use std::sync::atomic::{AtomicU64, Ordering};

const TOKEN: u64 = 1000;

/// Bounds the retries of one primitive. Shared by all its calls; lock-free.
#[derive(Debug)]
pub struct RetryBudget {
    milli_tokens: AtomicU64,
    deposit: u64,
    capacity: u64,
}

impl Default for RetryBudget {
    /// Retries may be 20 % of the calls; ten are in reserve, at most a hundred are saved up.
    fn default() -> Self {
        Self::new(0.2, 10, 100)
    }
}

impl RetryBudget {
    /// A budget of `ratio` retries a call (0 to 1), that starts with `reserve` and saves up at most `capacity`.
    pub fn new(ratio: f64, reserve: u32, capacity: u32) -> Self {
        let capacity = u64::from(capacity) * TOKEN;
        // Between 0 and TOKEN, so the cast is exact enough and cannot wrap.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let deposit = (ratio.clamp(0.0, 1.0) * TOKEN as f64) as u64;
        Self {
            milli_tokens: AtomicU64::new((u64::from(reserve) * TOKEN).min(capacity)),
            deposit,
            capacity,
        }
    }

    /// Counts a first attempt.
    pub fn deposit(&self) {
        // Mostly it is full, and then nothing is written that all calls share.
        if self.milli_tokens.load(Ordering::Relaxed) < self.capacity {
            self.update(|tokens| Some((tokens + self.deposit).min(self.capacity)));
        }
    }

    /// Asks for a retry; false when the budget is spent.
    pub fn withdraw(&self) -> bool {
        self.update(|tokens| tokens.checked_sub(TOKEN))
    }

    fn update(&self, change: impl FnMut(u64) -> Option<u64>) -> bool {
        self.milli_tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spends_the_reserve_then_a_share_of_the_calls() {
        let budget = RetryBudget::new(0.1, 2, 5);
        assert!(budget.withdraw() && budget.withdraw());
        assert!(!budget.withdraw());
        for _ in 0..10 {
            budget.deposit();
        }
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }

    #[test]
    fn saves_up_no_more_than_its_capacity() {
        let budget = RetryBudget::new(1.0, 0, 3);
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 3);
    }
}
