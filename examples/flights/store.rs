//! Where flights end up: four SQLite shards, and a journal of what has been published.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use resonant_db::{KeyType, PoolConfig, ShardFunction, ShardedDatabase, params, row};
use serde::Deserialize;

use crate::failure::{Failure, While};
use crate::flight::{Flight, Tally};
use crate::proof::{Audit, Stored};

const SHARDS: usize = 4;
const PAGE: i64 = 5_000;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS flights (
    origin TEXT NOT NULL,
    number BIGINT NOT NULL,
    arrival BIGINT NOT NULL,
    departed_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    distance_miles BIGINT NOT NULL,
    delay_minutes BIGINT NOT NULL,
    PRIMARY KEY (origin, number)
) WITHOUT ROWID";

/// A flight that is delivered twice is stored once.
const INSERT: &str = "INSERT INTO flights
    (origin, number, arrival, departed_at, destination, distance_miles, delay_minutes)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (origin, number) DO NOTHING";

const NEXT_PAGE: &str = "SELECT origin, number, arrival, distance_miles, delay_minutes FROM flights
    WHERE (origin, number) > ($1, $2) ORDER BY origin, number LIMIT $3";

const ONE_AIRPORT: &str =
    "SELECT count(*) AS flights, coalesce(sum(delay_minutes), 0) AS delay_minutes,
    coalesce(sum(distance_miles), 0) AS distance_miles FROM flights WHERE origin = $1";

/// The four shards.
#[derive(Debug)]
pub(crate) struct Store {
    shards: ShardedDatabase,
    /// Rises with every flight stored, across runs: the proof of order.
    arrivals: AtomicU64,
}

impl Store {
    /// Opens or makes the shards in `folder`.
    pub(crate) async fn open(folder: &Path) -> Result<Self, Failure> {
        let mut builder = ShardedDatabase::builder()
            .shard_key("origin")
            .shard_function(ShardFunction::HashMod)
            .table("flights", "origin", KeyType::Text)
            // Every connection has a page cache; two readers a shard are as fast as eight and hold less.
            .pool(PoolConfig::default().min_size(1u32).max_size(2u32));
        for shard in 0..SHARDS {
            let name = format!("shard_{shard}");
            builder = builder
                .shard(&name, format!("sqlite:{}", folder.join(format!("{name}.db")).display()));
        }
        let shards = builder.connect().await.doing("opening the shards")?;
        shards.on_all(TABLE).await.doing("making the table of flights")?;
        let mut last = 0;
        for (_, shard) in shards.shards() {
            let newest =
                shard.read().query_one_as("SELECT max(arrival) FROM flights", params![]).await;
            let newest: Option<u64> = newest.doing("reading the newest arrival")?;
            last = last.max(newest.unwrap_or_default());
        }
        Ok(Self { shards, arrivals: AtomicU64::new(last) })
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
        let rows = flights.iter().zip(last + 1..).map(|(flight, arrival)| {
            row![
                &flight.origin,
                flight.number as i64,
                arrival as i64,
                &flight.departed_at,
                &flight.destination,
                flight.distance_miles,
                flight.delay_minutes
            ]
        });
        let rows: Vec<_> = rows.collect();
        self.shards.execute_many(INSERT, rows).await?;
        Ok(())
    }

    /// One airport's sums, read from its shard.
    pub(crate) async fn airport(&self, origin: &str) -> Result<Tally, resonant_db::Error> {
        self.shards.query_one_as(ONE_AIRPORT, params![origin]).await
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
                let page = shard.read().query_as(NEXT_PAGE, params![after.0, after.1, PAGE]).await;
                let page: Vec<Row> = page.doing("reading the stored flights")?;
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
