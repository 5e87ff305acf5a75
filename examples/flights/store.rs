//! Where flights end up: shards of one table.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join_all;
use resonant_db::{KeyType, PoolConfig, ShardFunction, ShardedDatabase, params};
use serde::Deserialize;

use crate::failure::{Failure, While};
use crate::flight::{Flight, Tally};
use crate::patience::patiently;
use crate::proof::{Audit, Stored};
use crate::table::Table;

const PAGE: i64 = 5_000;

const NEXT_PAGE: &str = "SELECT origin, number, arrival, distance_miles, delay_minutes FROM flights
    WHERE (origin, number) > ($1, $2) ORDER BY origin, number LIMIT $3";

const ONE_AIRPORT: &str =
    "SELECT count(*) AS flights, CAST(coalesce(sum(delay_minutes), 0) AS BIGINT) AS delay_minutes,
    CAST(coalesce(sum(distance_miles), 0) AS BIGINT) AS distance_miles FROM flights WHERE origin = $1";

/// The shards.
#[derive(Debug)]
pub(crate) struct Store {
    shards: ShardedDatabase,
    table: Table,
    /// What this process has counted.
    arrivals: AtomicU64,
}

impl Store {
    /// Opens these shards, and makes the table where it is missing.
    pub(crate) async fn make(shards: &[Vec<String>], table: Table) -> Result<Self, Failure> {
        let mut store = Self::open(shards, table).await?;
        store.shards.on_all(table.create()).await.doing("making the table of flights")?;
        let mut last = 0;
        for (_, shard) in store.shards.shards() {
            let newest =
                shard.write().query_one_as("SELECT max(arrival) FROM flights", params![]).await;
            let newest: Option<u64> = newest.doing("reading the newest arrival")?;
            last = last.max(newest.unwrap_or_default());
        }
        store.arrivals = AtomicU64::new(last);
        Ok(store)
    }

    /// Opens these shards, which have the table. Of each there is its primary's URL, then those of its replicas.
    pub(crate) async fn open(shards: &[Vec<String>], table: Table) -> Result<Self, Failure> {
        let mut builder = ShardedDatabase::builder();
        for (place, nodes) in shards.iter().enumerate() {
            let Some((primary, replicas)) = nodes.split_first() else { continue };
            builder = builder.shard_with_replicas(format!("shard_{place}"), primary, replicas);
        }
        let builder = builder
            .shard_key("origin")
            .shard_function(ShardFunction::HashMod)
            .table("flights", "origin", KeyType::Text)
            // A connection costs memory on both sides; two a shard are as fast as eight.
            .pool(PoolConfig::default().min_size(1u32).max_size(2u32));
        let shards = builder.connect().await.doing("opening the shards")?;
        Ok(Self { shards, table, arrivals: AtomicU64::default() })
    }

    /// The shards themselves, to be watched and closed.
    pub(crate) fn shards(&self) -> &ShardedDatabase {
        &self.shards
    }

    /// The shard an airport's flights belong to.
    pub(crate) fn shard_for(&self, origin: &str) -> Result<String, resonant_db::Error> {
        Ok(self.shards.shard_for(origin)?.to_owned())
    }

    /// Stores flights of one shard in one transaction, in their order.
    pub(crate) async fn insert(&self, flights: Vec<Flight>) -> Result<(), resonant_db::Error> {
        let last = self.arrivals.fetch_add(flights.len() as u64, Ordering::Relaxed);
        let rows = flights.iter().zip(last + 1..);
        let rows: Vec<_> = rows.map(|(flight, arrival)| self.table.row(flight, arrival)).collect();
        self.shards.execute_many(self.table.insert(), rows).await?;
        Ok(())
    }

    /// One airport's sums, read from its shard.
    pub(crate) async fn airport(&self, origin: &str) -> Result<Tally, resonant_db::Error> {
        self.shards.query_one_as(ONE_AIRPORT, params![origin]).await
    }

    /// How many flights are stored, by whomever.
    pub(crate) async fn count(&self) -> Result<u64, resonant_db::Error> {
        let counts = self.shards.shards().map(async |(_, shard)| {
            shard.write().query_one_as::<u64>("SELECT count(*) FROM flights", params![]).await
        });
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    /// Closes the shards.
    pub(crate) async fn close(&self) {
        let _ = self.shards.close(crate::job::GRACE).await;
    }

    /// Shows everything stored to the audit, page by page.
    pub(crate) async fn audit(
        &self,
        audit: &mut Audit,
        mut progress: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let mut done = 0;
        for (name, shard) in self.shards.shards() {
            let mut after = (String::new(), -1);
            loop {
                // From the primary: a replica may be behind.
                let page = patiently(async || {
                    shard.write().query_as(NEXT_PAGE, params![after.0, after.1, PAGE]).await
                });
                let page: Vec<Row> = page.await.doing("reading the stored flights")?;
                let Some(last) = page.last() else { break };
                after = (last.origin.clone(), last.number as i64);
                for row in &page {
                    let home =
                        self.shards.shard_for(row.origin.as_str()).doing("finding a shard")?;
                    audit.look_at(&row.stored(home == name));
                }
                done += page.len() as u64;
                progress(done);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
struct Row {
    origin: String,
    number: u64,
    arrival: u64,
    distance_miles: u64,
    delay_minutes: i64,
}

impl Row {
    fn stored(&self, at_home: bool) -> Stored<'_> {
        let tally = Tally {
            flights: 1,
            delay_minutes: self.delay_minutes,
            distance_miles: self.distance_miles,
        };
        Stored { origin: &self.origin, number: self.number, arrival: self.arrival, tally, at_home }
    }
}
