//! Reads and checkouts on a real PostgreSQL, beside the driver alone and the pools over it.

use std::time::Duration;

use resonant_db::{Database, PoolConfig, params};
use resonant_testkit::PostgresCluster;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, Statement};

use super::Area;
use crate::Outcome;
use crate::harness::{Case, Dice, runtime, storm};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "db",
    about: "`Database` reads one row of 10,000 by its key, on a PostgreSQL that the bench starts on the same machine; 16 \
            connections each, statements prepared. deadpool-postgres prepares through its cache, bb8-postgres, which has none, \
            runs the statement unprepared in one trip and does not test at checkout, tokio-postgres is the driver alone: one \
            prepared connection for one task, four that all tasks share for many. `db.checkout` lends and gives back without \
            asking the server anything.",
    peers: &["tokio-postgres", "deadpool-postgres", "bb8-postgres"],
    run,
};

const SLOTS: u32 = 16;
const KEYS: usize = 10_000;
const SQL: &str = "SELECT id, name, score FROM item WHERE id = $1";

fn run(report: &mut Report) -> Outcome {
    let runtime = runtime()?;
    let peers = runtime.block_on(Peers::open())?;
    for (tasks, name, about) in [
        (1, "db.checkout.vs_best.1", "checkout, 1 task"),
        (16, "db.checkout.vs_best.16", "checkout, 16 tasks"),
        (64, "db.checkout.vs_best.64", "checkout, 64 tasks"),
        (256, "db.checkout.vs_best.256", "checkout, 256 tasks"),
    ] {
        Case::new(name, about, "checkouts")
            .goal(1.0)
            .run("ConnectionPool", || Ok(peers.lend_ours(&runtime, tasks)))
            .run("deadpool-postgres", || Ok(peers.lend_deadpool(&runtime, tasks)))
            .run("bb8-postgres", || Ok(peers.lend_bb8(&runtime, tasks)))
            .measure(report)?;
    }
    Case::new("db.one_task.vs_raw", "one row, 1 task", "reads")
        .goal_against("tokio-postgres", 0.9)
        .run("Database", || Ok(peers.read_ours(&runtime, 1)))
        .run("tokio-postgres", || Ok(peers.read_raw(&runtime, 1, 1)))
        .run("deadpool-postgres", || Ok(peers.read_deadpool(&runtime, 1)))
        .run("bb8-postgres", || Ok(peers.read_bb8(&runtime, 1)))
        .measure(report)?;
    for (tasks, name, about, goal) in [
        (64, "db.shared_read.vs_deadpool.64", "one row, 64 tasks", 1.6),
        (256, "db.shared_read.vs_deadpool.256", "one row, 256 tasks", 1.8),
    ] {
        Case::new(name, about, "reads")
            .goal_against("deadpool-postgres", goal)
            .run("Database", || Ok(peers.read_ours(&runtime, tasks)))
            .run("deadpool-postgres", || Ok(peers.read_deadpool(&runtime, tasks)))
            .run("bb8-postgres", || Ok(peers.read_bb8(&runtime, tasks)))
            .run("tokio-postgres, 4 shared", || Ok(peers.read_raw(&runtime, tasks, 4)))
            .measure(report)?;
    }
    Ok(())
}

type Bb8 = bb8_postgres::PostgresConnectionManager<NoTls>;

struct Peers {
    ours: Database,
    /// The pool alone, with connections that do nothing but exist.
    lent: resonant_db::ConnectionPool<Existing>,
    deadpool: deadpool_postgres::Pool,
    bb8: bb8::Pool<Bb8>,
    raw: Vec<(std::sync::Arc<Client>, Statement)>,
    _server: PostgresCluster,
}

impl Peers {
    async fn open() -> Outcome<Self> {
        let server = PostgresCluster::builder().setting("max_connections", "200").start().await?;
        let primary = server.primary();
        primary
            .sql(&format!(
                "CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL, score float8 NOT NULL); \
                 INSERT INTO item SELECT n, 'item ' || n, n / 7.0 FROM generate_series(0, {}) AS n; ANALYZE item",
                KEYS - 1
            ))
            .await?;
        let url = primary.url();
        let pool = PoolConfig::default().min_size(SLOTS).max_size(SLOTS);
        let ours = Database::builder().primary(&url).pool(pool.clone()).connect().await?;
        let lent = resonant_db::ConnectionPool::new("lent", Existing(url.clone()), pool)?;
        lent.warm_up().await?;
        let config: tokio_postgres::Config = url.parse()?;
        let manager = deadpool_postgres::Manager::from_config(
            config.clone(),
            NoTls,
            deadpool_postgres::ManagerConfig {
                recycling_method: deadpool_postgres::RecyclingMethod::Fast,
            },
        );
        let deadpool = deadpool_postgres::Pool::builder(manager)
            .max_size(SLOTS as usize)
            .wait_timeout(Some(Duration::from_secs(10)))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()?;
        let mut open = Vec::new();
        for _ in 0..SLOTS {
            let client = deadpool.get().await?;
            client.prepare_cached(SQL).await?;
            open.push(client);
        }
        drop(open);
        let bb8 = bb8::Pool::builder()
            .max_size(SLOTS)
            .min_idle(SLOTS)
            .test_on_check_out(false)
            .build(Bb8::new(config.clone(), NoTls))
            .await?;
        let mut raw = Vec::new();
        for _ in 0..4 {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            let statement = client.prepare(SQL).await?;
            raw.push((std::sync::Arc::new(client), statement));
        }
        Ok(Self { ours, lent, deadpool, bb8, raw, _server: server })
    }
}

/// Until the weather ends; each answer is looked at.
macro_rules! reads {
    ($runtime:ident, $tasks:ident, $handle:expr, $handle_name:ident, $key:ident => $read:expr) => {
        storm($runtime, $tasks, |task, weather| {
            let $handle_name = $handle(task);
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

impl Peers {
    fn read_ours(&self, runtime: &Runtime, tasks: usize) -> f64 {
        reads!(runtime, tasks, |_| self.ours.clone(), db, key => {
            let row = db.read().query_one(SQL, params![key]).await;
            row.ok().and_then(|row| row.get::<i64>(0).ok())
        })
    }

    fn read_raw(&self, runtime: &Runtime, tasks: usize, connections: usize) -> f64 {
        reads!(runtime, tasks, |task: usize| self.raw[task % connections].clone(), raw, key => {
            let row = raw.0.query_one(&raw.1, &[&key]).await;
            row.ok().and_then(|row| row.try_get(0).ok())
        })
    }

    fn read_deadpool(&self, runtime: &Runtime, tasks: usize) -> f64 {
        reads!(runtime, tasks, |_| self.deadpool.clone(), pool, key => {
            let read = async {
                let client = pool.get().await.ok()?;
                let statement = client.prepare_cached(SQL).await.ok()?;
                client.query_one(&statement, &[&key]).await.ok()?.try_get(0).ok()
            };
            read.await
        })
    }

    fn read_bb8(&self, runtime: &Runtime, tasks: usize) -> f64 {
        reads!(runtime, tasks, |_| self.bb8.clone(), pool, key => {
            let read = async {
                let client = pool.get().await.ok()?;
                let declared = tokio_postgres::types::Type::INT8;
                let rows = client.query_typed(SQL, &[(&key, declared)]).await.ok()?;
                rows.first()?.try_get(0).ok()
            };
            read.await
        })
    }
}

/// Lends and gives back until the weather ends.
macro_rules! lends {
    ($runtime:ident, $tasks:ident, $pool:expr) => {
        storm($runtime, $tasks, |_, weather| {
            let pool = $pool.clone();
            async move {
                let mut done = 0_u64;
                while weather.lasts() {
                    let Ok(connection) = pool.get().await else { continue };
                    std::hint::black_box(&*connection);
                    drop(connection);
                    done += 1;
                    // Nobody keeps a worker thread to himself.
                    if done % 64 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                done
            }
        })
    };
}

impl Peers {
    fn lend_ours(&self, runtime: &Runtime, tasks: usize) -> f64 {
        lends!(runtime, tasks, self.lent)
    }

    fn lend_deadpool(&self, runtime: &Runtime, tasks: usize) -> f64 {
        lends!(runtime, tasks, self.deadpool)
    }

    fn lend_bb8(&self, runtime: &Runtime, tasks: usize) -> f64 {
        lends!(runtime, tasks, self.bb8)
    }
}

/// A manager over the backend's own connections, as `Database` has one inside.
struct Existing(String);

impl resonant_db::pool::Manager for Existing {
    type Connection = Box<dyn resonant_db::backend::Connection>;

    async fn connect(&self) -> resonant_db::Result<Self::Connection> {
        use resonant_db::backend::{Access, Backend, Target, postgres::Postgres};
        let backend = Postgres::from_url(&self.0)?;
        backend.connect(&Target::new(&self.0, Access::ReadWrite, None)).await
    }

    async fn check(&self, connection: &mut Self::Connection) -> resonant_db::Result<()> {
        connection.ping().await
    }

    fn verdict(&self, connection: &mut Self::Connection) -> resonant_db::pool::Verdict {
        (**connection).verdict()
    }
}
