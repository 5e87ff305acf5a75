//! The shared tier: the same commands on the same six nodes by us and by the drivers themselves.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike as _, KeysInterface as _};
use fred::types::config::Config;
use fred::types::{Builder, Expiration};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use resonant_cache::{CacheConfig, DistributedCache, Namespace, Raw, RedisDriver};
use resonant_testkit::RedisCluster;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::harness::{Case, Dice, storm};
use crate::report::Report;

const KEYS: usize = 10_000;
const BATCH: usize = 1000;
const LIFE: Duration = Duration::from_secs(300);
/// Of each of bb8's three pools.
const POOLED: u32 = 16;

/// Operations on drawn keys in a second, by 64 tasks.
macro_rules! drawn {
    ($bench:expr, $tasks:expr, |$it:ident, $at:ident| $work:expr) => {
        storm(&$bench.runtime, $tasks, |task, weather| {
            let $it = Arc::clone(&$bench.tier);
            async move {
                let (mut done, mut dice) = (0, Dice::new(task + 1));
                while weather.lasts() {
                    let $at = dice.below(KEYS);
                    done += u64::from($work);
                }
                done
            }
        })
    };
}

/// Keys read a second, in batches of a thousand that follow each other.
macro_rules! batches {
    ($bench:expr, |$it:ident, $from:ident| $work:expr) => {
        storm(&$bench.runtime, 1, |_, weather| {
            let $it = Arc::clone(&$bench.tier);
            async move {
                let (mut done, mut dice) = (0u64, Dice::new(7));
                while weather.lasts() {
                    let $from = dice.below(KEYS - BATCH);
                    let found: usize = $work;
                    done += found as u64;
                }
                done
            }
        })
    };
}

struct Bench {
    runtime: Runtime,
    tier: Arc<Tier>,
    _cluster: RedisCluster,
}

struct Tier {
    keys: Vec<String>,
    ours: Namespace<Bytes>,
    /// The same keys, with the other driver.
    by_fred: Namespace<Bytes>,
    raw: Client,
    /// The clustered client of redis-rs, whose clones share its connections.
    routed: ClusterConnection,
    /// A client of one connection for each primary, and a pool.
    nodes: Vec<(Client, bb8::Pool<RedisConnectionManager>)>,
    /// Whose each key is.
    owners: Vec<usize>,
}

pub(super) fn run(report: &mut Report, runtime: Runtime) -> Outcome {
    let bench = Bench::start(runtime)?;
    let it = &bench;
    let get =
        || Ok(drawn!(it, 64, |it, at| matches!(it.ours.get(&it.keys[at]).await, Ok(Some(_)))));
    Case::new("cache.l2_get.vs_fred.64", "Redis, get, 64 tasks", "gets")
        .run("DistributedCache", get)
        .run("fred", || Ok(drawn!(it, 64, |it, at| it.raw_get(at).await)))
        .run("redis-rs", || Ok(drawn!(it, 64, |it, at| it.routed_get(at).await)))
        .goal_against("fred", 0.95)
        .measure(report)?;
    Case::new("cache.l2_get.fred_driver_vs_fred.64", "Redis, get, 64 tasks", "gets")
        .run("DistributedCache, driver fred", || {
            Ok(drawn!(it, 64, |it, at| matches!(it.by_fred.get(&it.keys[at]).await, Ok(Some(_)))))
        })
        .run("fred", || Ok(drawn!(it, 64, |it, at| it.raw_get(at).await)))
        .measure(report)?;
    Case::new("cache.l2_get.vs_bb8_redis.64", "Redis, get, 64 tasks", "gets")
        .run("DistributedCache", get)
        .run("bb8-redis", || Ok(drawn!(it, 64, |it, at| it.pooled_get(at).await)))
        .goal_against("bb8-redis", 3.0)
        .measure(report)?;
    Case::new("cache.l2_get.vs_fred.1", "Redis, get, 1 task", "gets")
        .run("DistributedCache", || {
            Ok(drawn!(it, 1, |it, at| matches!(it.ours.get(&it.keys[at]).await, Ok(Some(_)))))
        })
        .run("fred", || Ok(drawn!(it, 1, |it, at| it.raw_get(at).await)))
        .measure(report)?;
    Case::new("cache.l2_set.vs_fred.64", "Redis, set, 64 tasks", "sets")
        .run("DistributedCache", || {
            Ok(drawn!(it, 64, |it, at| it.ours.set(&it.keys[at], &value()).await.is_ok()))
        })
        .run("fred", || Ok(drawn!(it, 64, |it, at| it.raw_set(at).await)))
        .goal_against("fred", 0.95)
        .measure(report)?;
    Case::new("cache.get_many.vs_sequential.1000", "Redis, get_many of 1,000", "keys")
        .run("DistributedCache", || Ok(batches!(it, |it, from| it.many(from).await)))
        .run("get, one after another", || Ok(batches!(it, |it, from| it.sequential(from).await)))
        .turns(9)
        .goal(8.0)
        .measure(report)?;
    Case::new("cache.get_many.vs_pipeline.1000", "Redis, get_many of 1,000", "keys")
        .run("DistributedCache", || Ok(batches!(it, |it, from| it.many(from).await)))
        .run("fred, a pipeline for each primary", || {
            Ok(batches!(it, |it, from| it.pipelined(from).await))
        })
        .goal(0.87)
        .measure(report)
}

impl Bench {
    fn start(runtime: Runtime) -> Outcome<Self> {
        let cluster = runtime.block_on(RedisCluster::start())?;
        let tier = Arc::new(runtime.block_on(Tier::open(&cluster))?);
        Ok(Self { runtime, tier, _cluster: cluster })
    }
}

impl Tier {
    async fn open(cluster: &RedisCluster) -> Outcome<Self> {
        let config = CacheConfig {
            nodes: cluster.urls(),
            // As good as no tier in the process: the shared one is measured.
            max_bytes: 4096,
            max_batch: 1024,
            command_timeout: Duration::from_secs(10),
            ..CacheConfig::default()
        };
        let open = async |config| {
            let cache = DistributedCache::builder().config(config).connect().await?;
            cache.namespace_builder("bench").open_with(Raw)
        };
        let ours = open(config.clone()).await?;
        let by_fred = open(CacheConfig { driver: RedisDriver::Fred, ..config }).await?;
        let seed = cluster.node(0).address();
        let raw = connect(&format!("redis-cluster://{seed}")).await?;
        let routed = ClusterClient::new(cluster.urls())?.get_async_connection().await?;
        let mut nodes = Vec::new();
        let mut slots = Vec::new();
        for (index, node) in cluster.nodes().iter().enumerate().take(3) {
            let client = connect(&node.url()).await?;
            let manager = RedisConnectionManager::new(node.url())?;
            nodes.push((client, bb8::Pool::builder().max_size(POOLED).build(manager).await?));
            slots.push((index, node.address()));
        }
        let keys: Vec<_> = (0..KEYS).map(|key| format!("user:{key}")).collect();
        let mut owners = Vec::new();
        let mut by_slot = std::collections::HashMap::new();
        for key in &keys {
            let slot = redis_protocol::redis_keyslot(key.as_bytes());
            // The kit gives each primary one range of slots.
            let range = slot / 64;
            let owner = match by_slot.get(&range) {
                Some(owner) if !slot.is_multiple_of(64) => *owner,
                _ => {
                    let owner = cluster.owner_of_slot(slot).await?.address();
                    let found = slots.iter().find(|(_, address)| *address == owner);
                    found.map(|(index, _)| *index).ok_or("the first three are the primaries")?
                }
            };
            by_slot.insert(range, owner);
            owners.push(owner);
        }
        let tier = Self { keys, ours, by_fred, raw, routed, nodes, owners };
        for at in 0..KEYS {
            tier.ours.set(&tier.keys[at], &value()).await?;
            tier.raw.set::<(), _, _>(&tier.keys[at], value(), None, None, false).await?;
        }
        Ok(tier)
    }

    async fn raw_get(&self, at: usize) -> bool {
        let got: Result<Option<Bytes>, _> = self.raw.get(self.keys[at].as_str()).await;
        matches!(got, Ok(Some(_)))
    }

    async fn routed_get(&self, at: usize) -> bool {
        let mut connection = self.routed.clone();
        let mut command = redis::cmd("GET");
        let got = command.arg(&self.keys[at]).query_async::<Option<Vec<u8>>>(&mut connection);
        matches!(got.await, Ok(Some(_)))
    }

    async fn raw_set(&self, at: usize) -> bool {
        let life = Some(Expiration::PX(i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX)));
        self.raw.set::<(), _, _>(self.keys[at].as_str(), value(), life, None, false).await.is_ok()
    }

    async fn pooled_get(&self, at: usize) -> bool {
        let Ok(mut connection) = self.nodes[self.owners[at]].1.get().await else { return false };
        let mut command = redis::cmd("GET");
        let got = command.arg(&self.keys[at]).query_async::<Option<Vec<u8>>>(&mut *connection);
        matches!(got.await, Ok(Some(_)))
    }

    async fn many(&self, from: usize) -> usize {
        let found = self.ours.get_many(&self.keys[from..from + BATCH]).await;
        found.iter().filter(|found| matches!(found, Ok(Some(_)))).count()
    }

    async fn sequential(&self, from: usize) -> usize {
        let mut found = 0;
        for key in &self.keys[from..from + BATCH] {
            found += usize::from(matches!(self.ours.get(key).await, Ok(Some(_))));
        }
        found
    }

    /// As one would write it by hand: keys by primary, a pipeline to each, all at once.
    async fn pipelined(&self, from: usize) -> usize {
        let pipelines: Vec<_> = self.nodes.iter().map(|(node, _)| node.pipeline()).collect();
        for at in from..from + BATCH {
            let pipeline = &pipelines[self.owners[at]];
            if pipeline.get::<(), _>(self.keys[at].as_str()).await.is_err() {
                return 0;
            }
        }
        let answers = pipelines.iter().map(|pipeline| pipeline.try_all::<Option<Bytes>>());
        let answers = futures::future::join_all(answers).await;
        answers.iter().flatten().filter(|found| matches!(found, Ok(Some(_)))).count()
    }
}

async fn connect(url: &str) -> Outcome<Client> {
    let client = Builder::from_config(Config::from_url(url)?).build()?;
    client.init().await?;
    Ok(client)
}

fn value() -> Bytes {
    Bytes::from_static(&[b'v'; 64])
}
