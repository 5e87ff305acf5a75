//! What a value costs that is in the process, one that is in the shared tier, and loading one that is nowhere.

mod redis;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use resonant_cache::{DistributedCache, Namespace};
use tokio::task::yield_now;

use super::Area;
use crate::Outcome;
use crate::harness::{Case, Dice, runtime, storm};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "cache",
    about: "`DistributedCache` on its memory store beside caches that are nothing but a map in the process: 10,000 keys, all present, \
            values of 64 bytes, keys drawn evenly. A hit of ours also looks at the value's life and at the epochs of its tags and its \
            namespace, and counts. A miss of ours also runs the load in a task of its own, encodes the value, stores it in the second \
            tier and fences it against changes meanwhile; a peer only fills its map. \
            `Redis` is six nodes, three of them primaries, on the same machine, and no value is kept in the process: 10,000 keys, \
            values of 64 bytes, which ours wrap in 28 more. The peers fred and redis-rs are their clustered clients with their defaults; the driver fred \
            of ours is a client of its for each server. bb8-redis has a pool of 16 connections for each primary and is told whose a key is.",
    peers: &["moka", "quick_cache", "fred", "redis", "bb8-redis"],
    run,
};

const KEYS: usize = 10_000;
/// More than are ever present at once in the cases of hits.
const ROOM: usize = 20_000;
/// The goal for a hit: at most 1.5 times what moka takes.
const OF_MOKA: f64 = 0.67;

/// Tasks, and the names of the two cases.
const LOADS: [(usize, [&str; 4]); 2] = [
    (1, ["cache.get.1", "get, 1 task", "cache.get_or_load.1", "get_or_load, present, 1 task"]),
    (
        64,
        ["cache.get.64", "get, 64 tasks", "cache.get_or_load.64", "get_or_load, present, 64 tasks"],
    ),
];

/// Gets of drawn keys in a second.
macro_rules! hits {
    ($runtime:expr, $tasks:expr, $caches:expr, |$cache:ident, $key:ident| $get:expr) => {
        storm($runtime, $tasks, |task, weather| {
            let $cache = $caches.clone();
            async move {
                let (mut done, mut dice) = (0, Dice::new(task + 1));
                while weather.lasts() {
                    for _ in 0..100 {
                        let $key: &str = &$cache.keys[dice.below(KEYS)];
                        done += u64::from($get);
                    }
                    // Nobody keeps a worker thread to himself.
                    yield_now().await;
                }
                done
            }
        })
    };
}

/// Loads of keys that were never seen, in a second.
macro_rules! misses {
    ($runtime:expr, $caches:expr, |$cache:ident, $key:ident| $load:expr) => {
        storm($runtime, 64, |_, weather| {
            let $cache = $caches.clone();
            async move {
                let mut done = 0;
                while weather.lasts() {
                    let $key = $cache.fresh_key();
                    done += u64::from($load);
                }
                done
            }
        })
    };
}

fn run(report: &mut Report) -> Outcome {
    let runtime = &runtime()?;
    let caches = &Arc::new(runtime.block_on(Caches::open())?);
    for (tasks, [get, about_get, load, about_load]) in LOADS {
        let case = Case::new(get, about_get, "gets").run("DistributedCache", || {
            Ok(hits!(runtime, tasks, caches, |it, key| matches!(
                it.ours.get(key).await,
                Ok(Some(_))
            )))
        });
        let case = case.run("moka", || {
            Ok(hits!(runtime, tasks, caches, |it, key| black_box(it.moka.get(key).await).is_some()))
        });
        let case = case.run("quick_cache", || {
            Ok(hits!(runtime, tasks, caches, |it, key| black_box(it.quick.get(key)).is_some()))
        });
        case.goal_against("moka", OF_MOKA).measure(report)?;

        let case = Case::new(load, about_load, "gets").run("DistributedCache", || {
            Ok(hits!(runtime, tasks, caches, |it, key| {
                it.ours.get_or_load(key, load_value).await.is_ok()
            }))
        });
        let case = case.run("moka", || {
            Ok(hits!(runtime, tasks, caches, |it, key| {
                it.moka.try_get_with_by_ref(key, load_shared()).await.is_ok()
            }))
        });
        let case = case.run("quick_cache", || {
            Ok(hits!(runtime, tasks, caches, |it, key| {
                it.quick.get_or_insert_async(key, load_shared()).await.is_ok()
            }))
        });
        case.goal_against("moka", OF_MOKA).measure(report)?;
    }

    Case::new("cache.l1_hit.vs_moka", "get, 1 task, against moka alone", "gets")
        .run("DistributedCache", || {
            Ok(hits!(runtime, 1, caches, |it, key| matches!(it.ours.get(key).await, Ok(Some(_)))))
        })
        .run("moka", || {
            Ok(hits!(runtime, 1, caches, |it, key| black_box(it.moka.get(key).await).is_some()))
        })
        .goal_against("moka", OF_MOKA)
        .measure(report)?;

    Case::new("cache.miss.64", "get_or_load, absent, 64 tasks", "loads")
        .run("DistributedCache", || {
            Ok(misses!(runtime, caches, |it, key| {
                it.ours.get_or_load(&key, load_value).await.is_ok()
            }))
        })
        .run("moka", || {
            Ok(misses!(runtime, caches, |it, key| {
                it.moka.try_get_with(key, load_shared()).await.is_ok()
            }))
        })
        .run("quick_cache", || {
            Ok(misses!(runtime, caches, |it, key| {
                it.quick.get_or_insert_async(&key, load_shared()).await.is_ok()
            }))
        })
        .measure(report)?;
    redis::run(report, crate::harness::runtime()?)
}

struct Caches {
    keys: Vec<String>,
    next: AtomicU64,
    ours: Namespace<String>,
    moka: moka::future::Cache<String, Arc<String>>,
    quick: quick_cache::sync::Cache<String, Arc<String>>,
}

impl Caches {
    async fn open() -> Outcome<Self> {
        let keys: Vec<_> = (0..KEYS).map(|key| format!("user:{key}")).collect();
        let ours = DistributedCache::memory(64 << 20).namespace::<String>("bench");
        let moka = moka::future::Cache::new(ROOM as u64);
        let quick = quick_cache::sync::Cache::new(ROOM);
        for key in &keys {
            ours.set(key, &value()).await?;
            moka.insert(key.clone(), Arc::new(value())).await;
            quick.insert(key.clone(), Arc::new(value()));
        }
        Ok(Self { keys, next: AtomicU64::new(0), ours, moka, quick })
    }

    /// A key that no cache has.
    fn fresh_key(&self) -> String {
        format!("new:{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

fn value() -> String {
    "v".repeat(64)
}

async fn load_value() -> Result<String, Infallible> {
    Ok(value())
}

async fn load_shared() -> Result<Arc<String>, Infallible> {
    Ok(Arc::new(value()))
}
