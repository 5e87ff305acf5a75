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

/// A virtual host of its own, and leases that outlive the engine.
#[derive(Debug, Default)]
struct InRabbit {
    vhost: OnceCell<Vhost>,
    leases: Arc<MemoryLeaseStore>,
}

#[async_trait]
impl Place for InRabbit {
    async fn open(&self) -> Arc<dyn Backend> {
        let vhost = self.vhost.get_or_init(async || broker().await.vhost().await.unwrap()).await;
        let leases = Arc::clone(&self.leases);
        // Nobody kills this broker.
        let rabbit = RabbitMq::connect([vhost.url()]).creation_wait(Duration::ZERO);
        Arc::new(rabbit.leases(leases).await.unwrap())
    }
}

resonant_queue::conformance!(rabbitmq, InRabbit::default());

/// A cluster for all cases, so that they have only the messages of their own in common.
async fn cluster() -> &'static resonant_testkit::RabbitMq {
    static CLUSTER: OnceCell<resonant_testkit::RabbitMq> = OnceCell::const_new();
    let start = async || resonant_testkit::RabbitMq::builder().nodes(3).start().await.unwrap();
    CLUSTER.get_or_init(start).await
}

#[derive(Debug, Default)]
struct InCluster {
    vhost: OnceCell<Vhost>,
    leases: Arc<MemoryLeaseStore>,
}

#[async_trait]
impl Place for InCluster {
    async fn open(&self) -> Arc<dyn Backend> {
        let vhost = self.vhost.get_or_init(async || cluster().await.vhost().await.unwrap()).await;
        let leases = Arc::clone(&self.leases);
        let rabbit = RabbitMq::connect(vhost.urls()).creation_wait(Duration::ZERO);
        Arc::new(rabbit.leases(leases).await.unwrap())
    }
}

resonant_queue::conformance!(cluster_of_three, InCluster::default());
