//! Many messages with failures, delays and four workers, on real servers.

use std::sync::Arc;

use resonant_common::join::MemoryLeaseStore;
use resonant_queue::RabbitMq;

use super::{postgres, rabbitmq};
use crate::million::through;

async fn through_postgres(count: u64) {
    let database = postgres::database().await;
    through(postgres::postgres(&database.url()).await, count).await;
}

async fn through_rabbitmq(count: u64) {
    let vhost = rabbitmq::broker().await.vhost().await.unwrap();
    let rabbit = RabbitMq::connect(vhost.urls()).leases(Arc::new(MemoryLeaseStore::new()));
    through(rabbit.await.unwrap(), count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_come_in_order_from_postgres() {
    through_postgres(5000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_come_in_order_from_rabbitmq() {
    through_rabbitmq(5000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak --release queue"]
async fn a_million_messages_come_in_order_from_postgres() {
    through_postgres(1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/soak --release queue"]
async fn a_million_messages_come_in_order_from_rabbitmq() {
    through_rabbitmq(1_000_000).await;
}
