//! The suite of every engine, on a broker of one node.

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
