//! The store's clock, as this process knows it: the median of the servers' clocks, carried on by the process's own between
//! two looks. Clients of one store agree as well as its servers do, whatever their own clocks say.
//!
//! It counts milliseconds from the beginning of 2024 (UTC), so that it fits into the 40 bits a value has for it until 2058.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::target::Address;

const START: Duration = Duration::from_secs(1_704_067_200);
/// Differences below it are the network's, not the clocks'.
const NOISE_MS: i64 = 5;

#[derive(Debug)]
pub(super) struct Clock {
    born: Instant,
    /// What to add to the time since `born`.
    offset: AtomicI64,
    /// Whether a server was asked, or need not be waited for any more.
    settled: watch::Sender<bool>,
    samples: Mutex<HashMap<Address, i64>>,
}

impl Clock {
    /// Begins with the machine's own clock, until a server has been asked.
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            offset: AtomicI64::new(own_clock()),
            settled: watch::Sender::new(false),
            samples: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        let now = millis(self.born.elapsed()) + self.offset.load(Ordering::Relaxed);
        u64::try_from(now).unwrap_or_default()
    }

    /// Waits once, and not for long, for the first server's answer: before it this machine's own clock is all there is.
    pub(super) async fn settled(&self, limit: Duration) {
        if !*self.settled.borrow() {
            let mut settled = self.settled.subscribe();
            let _ = tokio::time::timeout(limit, settled.wait_for(|settled| *settled)).await;
            self.settled.send_replace(true);
        }
    }

    /// A server said `time` (since 1970) when asked at `sent` and heard at `heard`.
    pub(super) fn sample(&self, server: &Address, time: Duration, sent: Instant, heard: Instant) {
        let middle = (sent - self.born) + (heard - sent) / 2;
        let offset = millis(time.saturating_sub(START)) - millis(middle);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.insert(server.clone(), offset);
        self.settle(&samples);
    }

    /// Forgets servers that are not used any more.
    pub(super) fn retain(&self, used: impl Fn(&Address) -> bool) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|server, _| used(server));
        self.settle(&samples);
    }

    fn settle(&self, samples: &HashMap<Address, i64>) {
        let mut offsets: Vec<_> = samples.values().copied().collect();
        offsets.sort_unstable();
        let Some(median) = offsets.get(offsets.len() / 2) else { return };
        if (median - self.offset.load(Ordering::Relaxed)).abs() > NOISE_MS {
            self.offset.store(*median, Ordering::Relaxed);
        }
        self.settled.send_replace(true);
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the first estimate of the servers' wall clocks")]
fn own_clock() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    millis(since_1970.saturating_sub(START))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_median_of_the_servers() {
        let clock = Clock::new();
        assert!(clock.now() > 0, "it begins with this machine's own");
        let begun = Instant::now();
        clock.settled(Duration::from_secs(1)).await;
        clock.settled(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "it is waited for once");
        let at = |port| Address { host: "h".into(), port };
        let now = Instant::now();
        for (port, seconds) in [(1, 1000), (2, 2000), (3, 900_000)] {
            clock.sample(&at(port), START + Duration::from_secs(seconds), now, now);
        }
        assert_eq!(clock.now(), 2_000_000);
        tokio::time::sleep(Duration::from_secs(500)).await;
        assert_eq!(clock.now(), 2_500_000);
        clock.retain(|server| server.port == 1);
        assert_eq!(clock.now(), 1_500_000);
        let later = Instant::now();
        let answer = START + Duration::from_millis(1_500_003);
        clock.sample(&at(1), answer, later, later);
        assert_eq!(clock.now(), 1_500_000, "so little is the network's");
    }
}
