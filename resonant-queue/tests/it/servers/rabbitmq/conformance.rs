//! The suite of every engine, on a broker of one node and on a cluster of three.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::MemoryLeaseStore;
use resonant_queue::RabbitMq;
use resonant_queue::backend::Backend;
use resonant_queue::testing::Place;
use resonant_testkit::rabbitmq::Vhost;
use tokio::sync::OnceCell;

use super::broker;

/// A cluster for all cases; each has a virtual host of its own.
async fn cluster() -> &'static resonant_testkit::RabbitMq {
    static CLUSTER: OnceCell<resonant_testkit::RabbitMq> = OnceCell::const_new();
    let start = async || resonant_testkit::RabbitMq::builder().nodes(3).start().await.unwrap();
    CLUSTER.get_or_init(start).await
}

#[derive(Debug, Default)]
enum Server {
    #[default]
    Alone,
    Cluster,
}

/// A virtual host of its own, and leases that outlive the engine.
#[derive(Debug, Default)]
struct InRabbit {
    server: Server,
    vhost: OnceCell<Vhost>,
    leases: Arc<MemoryLeaseStore>,
}

impl InRabbit {
    fn cluster() -> Self {
        Self { server: Server::Cluster, ..Self::default() }
    }

    async fn vhost(&self) -> Vhost {
        let server = match self.server {
            Server::Alone => broker().await,
            Server::Cluster => cluster().await,
        };
        server.vhost().await.unwrap()
    }
}

#[async_trait]
impl Place for InRabbit {
    async fn open(&self) -> Arc<dyn Backend> {
        let vhost = self.vhost.get_or_init(|| self.vhost()).await;
        let leases = Arc::clone(&self.leases);
        // Nobody kills these brokers.
        let rabbit = RabbitMq::connect(vhost.urls()).creation_wait(Duration::ZERO);
        Arc::new(rabbit.leases(leases).await.unwrap())
    }
}

resonant_queue::conformance!(rabbitmq, InRabbit::default());
resonant_queue::conformance!(cluster_of_three, InRabbit::cluster());
