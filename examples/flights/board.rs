//! The delay board: each airport's sums are read from its shard once and then come from the cache.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use resonant_cache::{DistributedCache, Loaded, Namespace};
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, While};
use crate::flight::{Tally, Totals};
use crate::home::Engines;
use crate::patience::patiently;
use crate::say;
use crate::store::Store;

const SHOWN: usize = 10;
const FRESH: Duration = Duration::from_secs(1);
/// Between two looks of visitors.
const PAUSE: Duration = Duration::from_millis(20);
/// How far a replica may be behind.
const BEHIND: Duration = Duration::from_secs(10);

/// Airports by delay.
#[derive(Debug)]
pub(crate) struct Board {
    cache: DistributedCache,
    airports: Namespace<Tally>,
    store: Arc<Store>,
    looked: AtomicU64,
    unanswered: AtomicU64,
}

impl Board {
    /// A board over the store and the cache.
    pub(crate) fn new(engines: &Engines) -> Self {
        let cache = engines.cache.clone();
        let airports = cache.namespace("airport");
        let (store, looked, unanswered) = (Arc::clone(&engines.store), 0.into(), 0.into());
        Self { cache, airports, store, looked, unanswered }
    }

    /// Looks at one airport after the other, as visitors do while it changes. What they see is a second old at most, or older
    /// where it cannot be read anew.
    pub(crate) async fn looked_at(&self, visitors: bool, totals: &Totals) -> Infallible {
        while visitors && totals.airports() > 0 {
            for (origin, _) in totals.iter() {
                let (store, airport) = (Arc::clone(&self.store), origin.to_owned());
                let load = async move || {
                    let tally = store.airport(&airport).await?;
                    Ok::<_, resonant_db::Error>(Loaded::new(tally).ttl(FRESH))
                };
                let seen = self.airports.get_or_load_with(origin, load).await;
                self.looked.fetch_add(1, Ordering::Relaxed);
                self.unanswered.fetch_add(u64::from(seen.is_err()), Ordering::Relaxed);
                sleep(PAUSE).await;
            }
        }
        std::future::pending().await
    }

    /// How visitors fared, if there were any.
    pub(crate) fn visits(&self) -> Option<String> {
        let (looked, not) =
            (self.looked.load(Ordering::Relaxed), self.unanswered.load(Ordering::Relaxed));
        let line =
            format!("board: looked at {looked} times meanwhile, {not} times without an answer\n");
        (looked > 0).then_some(line)
    }

    /// The cache, to be watched.
    pub(crate) fn cache(&self) -> &DistributedCache {
        &self.cache
    }

    /// Prints the airports with most delay, and checks every one of them against `totals`.
    pub(crate) async fn show(&self, totals: &Totals) -> Result<(), Failure> {
        // What a cache of the fleet holds may be of an earlier moment.
        patiently(async || self.airports.clear().await).await.doing("clearing the board")?;
        let rows = try_join_all(totals.iter().map(async |(origin, tally)| {
            let read = self.right(origin, tally).await?;
            Ok::<_, Failure>((origin, read))
        }));
        let mut rows = rows.await?;
        rows.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.delay_minutes));
        let mut board = "\n  airport   flights   delay (min)   per flight\n".to_owned();
        for (origin, tally) in rows.iter().take(SHOWN) {
            let mean = tally.delay_minutes as f64 / tally.flights as f64;
            let (flights, delay) = (tally.flights, tally.delay_minutes);
            board.push_str(&format!("  {origin:<7} {flights:>9} {delay:>13} {mean:>12.1}\n"));
        }
        say::result(&board)
    }

    /// An airport's sums, which are to be these.
    async fn right(&self, origin: &str, tally: &Tally) -> Result<Arc<Tally>, Failure> {
        let until = Instant::now() + BEHIND;
        loop {
            let read = patiently(async || self.airport(origin).await);
            let read = read.await.doing("reading the board")?;
            if *read == *tally {
                return Ok(read);
            }
            if Instant::now() >= until {
                let message = format!("the board shows {read:?} for {origin}, stored is {tally:?}");
                return Err(Failure::Proof(message));
            }
            // It was read from a replica that is behind.
            self.airports.delete(origin).await.doing("correcting the board")?;
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn airport(&self, origin: &str) -> Result<Arc<Tally>, resonant_cache::Error> {
        let (store, airport) = (Arc::clone(&self.store), origin.to_owned());
        let load = async move || store.airport(&airport).await;
        self.airports.get_or_load(origin, load).await
    }
}
