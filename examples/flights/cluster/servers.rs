//! Servers for one job, started by the test kit in temporary folders on free ports. They end with the job.

use resonant_testkit::postgres::Synchronous;
use resonant_testkit::{Engine, ErrorKind, PostgresCluster, RabbitMq, RedisCluster};

use super::addresses::Addresses;
use crate::failure::{Failure, While};
use crate::say;

/// The shard that has replicas, first of all.
const REPLICAS: usize = 2;
const OTHER_SHARDS: usize = 3;
const BROKERS: usize = 3;

/// Handles to all of them.
#[derive(Debug)]
pub(super) struct Servers {
    /// The first has replicas.
    pub(super) shards: Vec<PostgresCluster>,
    pub(super) cache: RedisCluster,
    pub(super) broker: RabbitMq,
}

impl Servers {
    /// Starts them side by side.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`] that names all programs that are missing.
    pub(super) async fn start() -> Result<Self, Failure> {
        installed()?;
        say::note(
            "starting six PostgreSQL, six Redis and three RabbitMQ servers (about 15 s; RabbitMQ takes longest)",
        );
        // With one of them the other is sure to have every commit.
        let first = PostgresCluster::builder()
            .durable()
            .replicas(REPLICAS)
            .synchronous(Synchronous::First(1))
            .start();
        let others = PostgresCluster::builder().durable().start_shards(OTHER_SHARDS);
        let (first, others, cache, broker) = tokio::try_join!(
            first,
            others,
            RedisCluster::start(),
            RabbitMq::builder().nodes(BROKERS).start()
        )
        .doing("starting the servers")?;
        let shards = std::iter::once(first).chain(others).collect();
        Ok(Self { shards, cache, broker })
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> Addresses {
        let nodes = |shard: &PostgresCluster| {
            shard.nodes().iter().map(resonant_testkit::PgNode::url).collect()
        };
        Addresses {
            shards: self.shards.iter().map(nodes).collect(),
            cache: self.cache.urls(),
            broker: self.broker.urls(),
        }
    }
}

/// Says at once everything that is missing.
fn installed() -> Result<(), Failure> {
    let engines = [Engine::PostgreSql, Engine::Redis, Engine::RabbitMq];
    let programs = resonant_testkit::Servers::from_env();
    let missing: Vec<String> = engines
        .into_iter()
        .filter_map(|engine| programs.find(engine).err())
        .filter(|error| error.kind() == ErrorKind::MissingBinary)
        .map(|error| error.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Input(format!(
        "--cluster starts servers that are not installed here: {}. scripts/setup installs them all; or give servers of \
         yours with --shard, --cache and --broker",
        missing.join("; ")
    )))
}
