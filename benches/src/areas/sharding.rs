//! Three PostgreSQL shards behind one handle, beside the same three without it.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::try_join_all;
use futures::stream;
use resonant_db::sharding::ShardRouter;
use resonant_db::{Database, KeyType, PoolConfig, ShardedDatabase, params};
use resonant_testkit::PostgresCluster;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Statement};

use super::Area;
use crate::Outcome;
use crate::harness::{Case, Dice, now, percentiles, runtime, storm};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "sharding",
    about: "`ShardedDatabase` over three PostgreSQL servers that the bench starts on the same machine, beside those who know \
            without asking where each key lives: three `Database`s and three prepared connections of the driver. One row of \
            30,000 is read by its key; COPY deals 400,000 rows of 70 bytes to all shards at once, against three COPYs at once \
            whose data were dealt before the clock started. `sharding.route_ns` is what a known statement's route costs, the \
            hash of its key included, each call timed by itself.",
    peers: &["tokio-postgres"],
    run,
};

const KEYS: usize = 30_000;
const ROWS: usize = 400_000;
const SQL: &str = "SELECT id, name, score FROM item WHERE id = $1";
const COPY: &str = "COPY row (id, at, note) FROM STDIN";
/// What one piece of the data of a COPY has.
const PIECE: usize = 64 << 10;

fn run(report: &mut Report) -> Outcome {
    let runtime = runtime()?;
    let shards = runtime.block_on(Shards::open())?;
    for (tasks, database, raw, about) in [
        (1, "sharding.single_key.vs_database", "sharding.single_key.vs_raw", "one row, 1 task"),
        (
            16,
            "sharding.single_key.vs_database.16",
            "sharding.single_key.vs_raw.16",
            "one row, 16 tasks",
        ),
    ] {
        Case::new(database, about, "reads")
            .goal(0.97)
            .run("ShardedDatabase", || Ok(shards.read_ours(&runtime, tasks)))
            .run("three Databases", || Ok(shards.read_alone(&runtime, tasks)))
            .measure(report)?;
        if tasks == 1 {
            Case::new(raw, about, "reads")
                .goal(0.9)
                .run("ShardedDatabase", || Ok(shards.read_ours(&runtime, tasks)))
                .run("tokio-postgres", || Ok(shards.read_raw(&runtime, tasks)))
                .measure(report)?;
        }
    }
    Case::new("sharding.copy.vs_direct", "COPY into three shards", "rows")
        .goal(0.8)
        .turns(9)
        .run("ShardedDatabase", || shards.copy_ours(&runtime))
        .run("three COPYs", || shards.copy_alone(&runtime))
        .measure(report)?;
    let router = shards.ours.router();
    Case::of_time("sharding.route_ns", "a route, half of the calls are faster")
        .run("ShardRouter", || Ok(routes(router).0))
        .measure(report)?;
    Case::of_time("sharding.route_ns.p99", "a route, 99 of 100 calls are faster")
        .run("ShardRouter", || Ok(routes(router).1))
        .measure(report)?;
    Case::new("sharding.route.two_threads", "routes by 2 threads, against 1", "times as many")
        .turns(9)
        .run("ShardRouter", || Ok(routed(router, 2) / routed(router, 1)))
        .measure(report)
}

/// The time of a route, in nanoseconds: half of them and 99 of 100 are below.
fn routes(router: &ShardRouter) -> (f64, f64) {
    let mut dice = Dice::new(7);
    let mut samples: Vec<_> = (0..20_000)
        .map(|_| {
            let key = dice.below(KEYS) as i64;
            let begun = now();
            std::hint::black_box(router.route(SQL, params![key]).is_ok());
            begun.elapsed()
        })
        .collect();
    percentiles(&mut samples)
}

/// Routes in a second by so many threads together.
fn routed(router: &ShardRouter, threads: usize) -> f64 {
    const EACH: usize = 300_000;
    let begun = now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut dice = Dice::new(thread);
                for _ in 0..EACH {
                    let key = dice.below(KEYS) as i64;
                    std::hint::black_box(router.route(SQL, params![key]).is_ok());
                }
            });
        }
    });
    (threads * EACH) as f64 / begun.elapsed().as_secs_f64()
}

struct Shards {
    ours: ShardedDatabase,
    alone: Vec<Database>,
    raw: Vec<Arc<(Client, Statement)>>,
    /// Where each key lives.
    homes: Arc<[u8]>,
    /// The data of a COPY in pieces: as they come, and as each shard gets them.
    data: Vec<Arc<str>>,
    dealt: Vec<Vec<Arc<str>>>,
    _servers: Vec<PostgresCluster>,
}

impl Shards {
    async fn open() -> Outcome<Self> {
        let servers = PostgresCluster::builder().start_shards(3).await?;
        let pool = PoolConfig::default().min_size(4).max_size(8);
        let mut builder = ShardedDatabase::builder()
            .table("item", "id", KeyType::Int)
            .table("row", "id", KeyType::Int)
            .pool(pool.clone());
        let (mut alone, mut raw) = (Vec::new(), Vec::new());
        for (shard, server) in servers.iter().enumerate() {
            let url = server.primary().url();
            server
                .primary()
                .sql(
                    "CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL, score float8 NOT NULL); \
                     CREATE TABLE row (id int8 NOT NULL, at timestamptz NOT NULL, note text NOT NULL)",
                )
                .await?;
            builder = builder.shard(format!("shard_{shard}"), &url);
            alone.push(Database::builder().primary(&url).pool(pool.clone()).connect().await?);
            let config: tokio_postgres::Config = url.parse()?;
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            let statement = client.prepare(SQL).await?;
            raw.push(Arc::new((client, statement)));
        }
        let ours = builder.connect().await?;
        let items = (0..KEYS).map(|n| format!("{n}\titem {n}\t{}\n", n as f64 / 7.0));
        let items = stream::iter(items.map(Ok::<_, Infallible>));
        ours.copy_in("COPY item (id, name, score) FROM STDIN", items).await?;
        for server in &servers {
            server.primary().sql("ANALYZE item").await?;
        }
        let home = |key: usize| -> Outcome<u8> {
            let name = ours.shard_for(key as i64)?;
            let at = ours.shards().position(|(shard, _)| shard == name);
            Ok(at.and_then(|at| u8::try_from(at).ok()).unwrap_or_default())
        };
        let homes = (0..KEYS.max(ROWS)).map(home).collect::<Outcome<Arc<[u8]>>>()?;
        let row = |n: usize| {
            format!("{n}\t2026-01-02 03:04:05.{:06}+00\tthe note of row {n:07}\n", n % 1_000_000)
        };
        let pieces = |rows: &mut dyn Iterator<Item = usize>| {
            let (mut pieces, mut piece) = (Vec::new(), String::new());
            for n in rows {
                piece.push_str(&row(n));
                if piece.len() >= PIECE {
                    pieces.push(Arc::from(std::mem::take(&mut piece)));
                }
            }
            pieces.push(Arc::from(piece));
            pieces
        };
        let data = pieces(&mut (0..ROWS));
        let dealt = (0..3_u8).map(|shard| pieces(&mut (0..ROWS).filter(|n| homes[*n] == shard)));
        let dealt = dealt.collect();
        Ok(Self { ours, alone, raw, homes, data, dealt, _servers: servers })
    }

    async fn emptied(&self) -> Outcome {
        for database in &self.alone {
            database.write().batch("TRUNCATE row").await?;
        }
        Ok(())
    }

    fn copy_ours(&self, runtime: &Runtime) -> Outcome<f64> {
        runtime.block_on(async {
            self.emptied().await?;
            let data = self.data.iter().map(|piece| Ok::<_, Infallible>(Text(Arc::clone(piece))));
            let begun = now();
            let report = self.ours.copy_in(COPY, stream::iter(data)).await?;
            counted(report.rows)?;
            Ok(ROWS as f64 / begun.elapsed().as_secs_f64())
        })
    }

    fn copy_alone(&self, runtime: &Runtime) -> Outcome<f64> {
        runtime.block_on(async {
            self.emptied().await?;
            let begun = now();
            let copies = self.alone.iter().zip(&self.dealt).map(|(database, data)| {
                let data = data.iter().map(|piece| Ok::<_, Infallible>(Text(Arc::clone(piece))));
                database.write().copy_in(COPY, stream::iter(data))
            });
            counted(try_join_all(copies).await?.iter().sum())?;
            Ok(ROWS as f64 / begun.elapsed().as_secs_f64())
        })
    }
}

fn counted(rows: u64) -> Outcome {
    if rows == ROWS as u64 { Ok(()) } else { Err(format!("{rows} rows were copied").into()) }
}

/// A piece of data that is shared between the turns.
struct Text(Arc<str>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Until the weather ends; each answer is looked at.
macro_rules! reads {
    ($runtime:ident, $tasks:ident, $handle:expr, $handle_name:ident, $key:ident => $read:expr) => {
        storm($runtime, $tasks, |task, weather| {
            let $handle_name = $handle;
            async move {
                let (mut dice, mut done) = (Dice::new(task), 0_u64);
                while weather.lasts() {
                    let $key = dice.below(KEYS) as i64;
                    let found: Option<i64> = $read;
                    done += u64::from(found == Some($key));
                }
                done
            }
        })
    };
}

impl Shards {
    fn read_ours(&self, runtime: &Runtime, tasks: usize) -> f64 {
        reads!(runtime, tasks, self.ours.clone(), db, key => {
            let rows = db.query(SQL, params![key]).await;
            rows.ok().and_then(|rows| rows.first()?.get::<i64>(0).ok())
        })
    }

    fn read_alone(&self, runtime: &Runtime, tasks: usize) -> f64 {
        reads!(runtime, tasks, (self.alone.clone(), Arc::clone(&self.homes)), shards, key => {
            let home = &shards.0[usize::from(shards.1[key as usize])];
            let rows = home.read().query(SQL, params![key]).await;
            rows.ok().and_then(|rows| rows.first()?.get::<i64>(0).ok())
        })
    }

    fn read_raw(&self, runtime: &Runtime, tasks: usize) -> f64 {
        reads!(runtime, tasks, (self.raw.clone(), Arc::clone(&self.homes)), shards, key => {
            let home = &shards.0[usize::from(shards.1[key as usize])];
            let rows = home.0.query(&home.1, &[&key]).await;
            rows.ok().and_then(|rows| rows.first()?.try_get(0).ok())
        })
    }
}
