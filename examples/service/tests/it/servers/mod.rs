//! The same service on PostgreSQL, Redis and RabbitMQ. `cluster.toml` is used as it is shipped; the environment says where the
//! servers of a test are.

mod full_load;
mod outage;

use std::path::Path;

use resonant_testkit::rabbitmq::Vhost;
use resonant_testkit::{PgNode, PostgresCluster, RabbitMq, Redis};
use tokio::process::Command;

use crate::process::service;

/// All servers a service needs.
struct Servers {
    postgres: PostgresCluster,
    redis: Redis,
    vhost: Vhost,
    folder: tempfile::TempDir,
}

impl Servers {
    async fn start() -> Self {
        let (postgres, redis, rabbit) = tokio::join!(
            PostgresCluster::builder().replicas(1).start(),
            Redis::start(),
            RabbitMq::start()
        );
        let (postgres, redis, rabbit) = (postgres.unwrap(), redis.unwrap(), rabbit.unwrap());
        for shard in 0..4 {
            let sql = format!("CREATE DATABASE shard{shard}");
            postgres.primary().sql(&sql).await.unwrap();
        }
        let vhost = rabbit.vhost().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { postgres, redis, vhost, folder }
    }

    fn primary(&self) -> PgNode {
        self.postgres.primary()
    }

    fn role(&self, name: &str) -> Command {
        let primary = self.primary();
        let mut command = service(self.folder.path());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster.toml");
        command.arg(name).arg("--config").arg(file).env("DATABASE_URL", primary.url());
        for shard in 0..4 {
            let url = primary.url_for(&format!("shard{shard}"));
            command.env(format!("RESONANT__SHARDED_DATABASE__SHARDS__SHARD_{shard}"), url);
        }
        for (name, value) in [
            ("DATABASE__REPLICAS", self.postgres.replica(0).url()),
            ("DATABASE__POOL__MIN_SIZE", "1".into()),
            ("DATABASE__POOL__MAX_SIZE", "8".into()),
            ("SHARDED_DATABASE__POOL__MIN_SIZE", "1".into()),
            ("SHARDED_DATABASE__POOL__MAX_SIZE", "2".into()),
            ("CACHE__NODES", self.redis.url()),
            ("CACHE__CLUSTER_MODE", "false".into()),
            ("BROKER__URLS", self.vhost.url()),
            ("HTTP__TOKENS__OPERATOR", "a long secret of ours".into()),
            ("HEALTH__DRAIN_DELAY", "3s".into()),
            ("SERVICE__SHUTDOWN_DEADLINE", "60s".into()),
        ] {
            command.env(format!("RESONANT__{name}"), value);
        }
        command
    }
}
