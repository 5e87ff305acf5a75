//! The delay board: each airport's sums are read from its shard once and then come from the cache.

use std::sync::Arc;

use futures::future::try_join_all;
use resonant_cache::{DistributedCache, Namespace};

use crate::failure::{Failure, While};
use crate::flight::{Tally, Totals};
use crate::say;
use crate::store::Store;

const CACHE_BYTES: u64 = 16 << 20;
const SHOWN: usize = 10;

/// Airports by delay.
#[derive(Debug)]
pub(crate) struct Board {
    cache: DistributedCache,
    airports: Namespace<Tally>,
    store: Arc<Store>,
}

impl Board {
    /// An empty board over the store.
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        let cache = DistributedCache::memory(CACHE_BYTES);
        let airports = cache.namespace("airport");
        Self { cache, airports, store: Arc::clone(store) }
    }

    /// The cache, to be watched.
    pub(crate) fn cache(&self) -> &DistributedCache {
        &self.cache
    }

    /// Prints the airports with most delay, and checks every one of them against `totals`.
    pub(crate) async fn show(&self, totals: &Totals) -> Result<(), Failure> {
        let rows = try_join_all(totals.iter().map(async |(origin, tally)| {
            let read = self.airport(origin).await?;
            if *read == *tally {
                Ok((origin, read))
            } else {
                Err(Failure::Proof(format!(
                    "the board shows {read:?} for {origin}, stored is {tally:?}"
                )))
            }
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

    async fn airport(&self, origin: &str) -> Result<Arc<Tally>, Failure> {
        let (store, airport) = (Arc::clone(&self.store), origin.to_owned());
        let load = async move || store.airport(&airport).await;
        self.airports.get_or_load(origin, load).await.doing("reading the board")
    }
}
