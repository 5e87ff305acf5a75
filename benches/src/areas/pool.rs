//! What lending and taking back costs, with connections that cost nothing.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use resonant_db::pool::{ConnectionPool, Manager, PoolConfig};
use tokio::runtime::Runtime;
use tokio::task::yield_now;

use super::Area;
use crate::Outcome;
use crate::harness::{Case, runtime, storm};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "pool",
    about: "`ConnectionPool` lends and takes back connections that cost nothing; 16 slots, all open. Idle: a connection goes straight \
            back. Held: its task yields once while it holds it, so that from 64 tasks on there is a queue. bb8 does not test connections \
            at checkout, though by default it does. Deadpool comes twice: as it is by default, where a caller may wait for ever, and with \
            a limit to the wait, as ours and bb8 have.",
    peers: &["bb8", "deadpool"],
    run,
};

const SLOTS: u32 = 16;
/// The longest wait, where there is a limit: what `PoolConfig` has by default.
const LIMIT: Option<Duration> = Some(Duration::from_secs(10));

/// Tasks, and the names of the two cases.
const LOADS: [(usize, [&str; 4], f64); 4] = [
    (1, ["pool.idle.1", "1 task, idle", "pool.held.1", "1 task, held"], 1.0),
    (16, ["pool.idle.16", "16 tasks, idle", "pool.held.16", "16 tasks, held"], 1.0),
    (64, ["pool.idle.64", "64 tasks, idle", "pool.held.64", "64 tasks, held"], 1.0),
    (256, ["pool.idle.256", "256 tasks, idle", "pool.held.256", "256 tasks, held"], 1.2),
];

fn run(report: &mut Report) -> Outcome {
    let runtime = runtime()?;
    let pools = Pools::open(&runtime)?;
    for (tasks, [idle, about_idle, held, about_held], goal) in LOADS {
        for (name, about, hold) in [(idle, about_idle, false), (held, about_held, true)] {
            Case::new(name, about, "checkouts")
                .goal(goal)
                .run("ConnectionPool", || Ok(pools.ours(&runtime, tasks, hold)))
                .run("bb8", || Ok(pools.bb8(&runtime, tasks, hold)))
                .run("deadpool", || Ok(deadpool(&pools.limited, &runtime, tasks, hold)))
                .run("deadpool, no limit", || Ok(deadpool(&pools.deadpool, &runtime, tasks, hold)))
                .measure(report)?;
        }
    }
    Ok(())
}

struct Pools {
    ours: ConnectionPool<Free>,
    bb8: bb8::Pool<Free>,
    deadpool: deadpool::managed::Pool<Free>,
    /// The same with a limit to a wait.
    limited: deadpool::managed::Pool<Free>,
}

/// What a task does with a connection.
macro_rules! borrow {
    ($runtime:ident, $tasks:ident, $hold:ident, $pool:expr) => {
        storm($runtime, $tasks, |_, weather| {
            let pool = $pool.clone();
            async move {
                let mut done = 0;
                while weather.lasts() {
                    let Ok(connection) = pool.get().await else { continue };
                    black_box(&*connection);
                    if $hold {
                        yield_now().await;
                    }
                    drop(connection);
                    done += 1;
                    // Nobody keeps a worker thread to himself.
                    if done % 64 == 0 {
                        yield_now().await;
                    }
                }
                done
            }
        })
    };
}

impl Pools {
    fn open(runtime: &Runtime) -> Outcome<Self> {
        runtime.block_on(async {
            let config = PoolConfig::default().min_size(SLOTS).max_size(SLOTS);
            let ours = ConnectionPool::new("bench", Free, config)?;
            ours.warm_up().await?;
            let bb8 = bb8::Pool::builder().max_size(SLOTS).min_idle(SLOTS).test_on_check_out(false);
            let bb8 = bb8.build(Free).await?;
            let (deadpool, limited) = (open_deadpool(None).await?, open_deadpool(LIMIT).await?);
            Ok(Self { ours, bb8, deadpool, limited })
        })
    }

    fn ours(&self, runtime: &Runtime, tasks: usize, hold: bool) -> f64 {
        borrow!(runtime, tasks, hold, self.ours)
    }

    fn bb8(&self, runtime: &Runtime, tasks: usize, hold: bool) -> f64 {
        borrow!(runtime, tasks, hold, self.bb8)
    }
}

fn deadpool(
    pool: &deadpool::managed::Pool<Free>,
    runtime: &Runtime,
    tasks: usize,
    hold: bool,
) -> f64 {
    borrow!(runtime, tasks, hold, pool)
}

async fn open_deadpool(limit: Option<Duration>) -> Outcome<deadpool::managed::Pool<Free>> {
    let pool = deadpool::managed::Pool::builder(Free)
        .max_size(SLOTS as usize)
        .wait_timeout(limit)
        .runtime(deadpool::Runtime::Tokio1)
        .build()?;
    let mut open = Vec::new();
    for _ in 0..SLOTS {
        open.push(pool.get().await.map_err(|error| error.to_string())?);
    }
    Ok(pool)
}

/// The manager of all three.
#[derive(Debug, Clone, Copy)]
struct Free;

impl Manager for Free {
    type Connection = u64;

    async fn connect(&self) -> resonant_db::Result<u64> {
        Ok(7)
    }

    async fn check(&self, _: &mut u64) -> resonant_db::Result<()> {
        Ok(())
    }
}

impl bb8::ManageConnection for Free {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

impl deadpool::managed::Manager for Free {
    type Type = u64;
    type Error = Infallible;

    async fn create(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn recycle(
        &self,
        _: &mut u64,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}
