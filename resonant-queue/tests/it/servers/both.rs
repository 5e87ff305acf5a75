//! What holds on every server alike.

use std::sync::Arc;

use resonant_common::join::MemoryLeaseStore;
use resonant_queue::RabbitMq;
use resonant_testkit::rabbitmq::Vhost;

use super::{postgres, rabbitmq};
use crate::telemetry::told_without_a_worker;
use crate::versions::both_versions;

/// The virtual host is gone when it is dropped.
async fn in_rabbitmq() -> (Vhost, RabbitMq) {
    let vhost = rabbitmq::broker().await.vhost().await.unwrap();
    let rabbit = RabbitMq::connect(vhost.urls()).leases(Arc::new(MemoryLeaseStore::new()));
    (vhost, rabbit.await.unwrap())
}

#[tokio::test]
async fn programs_of_both_versions_run_on_postgres() {
    let database = postgres::database().await;
    both_versions(postgres::postgres(&database.url()).await).await;
}

#[tokio::test]
async fn programs_of_both_versions_run_on_rabbitmq() {
    let (_vhost, rabbit) = in_rabbitmq().await;
    both_versions(rabbit).await;
}

#[tokio::test]
async fn an_autoscaler_is_told_by_postgres_without_a_worker() {
    let database = postgres::database().await;
    told_without_a_worker(postgres::postgres(&database.url()).await).await;
}

#[tokio::test]
async fn an_autoscaler_is_told_by_rabbitmq_without_a_worker() {
    let (_vhost, rabbit) = in_rabbitmq().await;
    told_without_a_worker(rabbit).await;
}
