//! Redis and RabbitMQ take the settings their files give them.

use resonant_testkit::{RabbitMq, Redis};

use crate::deploy::Files;
use crate::deploy::files::{list, words};

#[tokio::test]
async fn redis_takes_its_settings() {
    let files = Files::load();
    let cluster = files.yaml("deploy/redis/redis-cluster.yaml").remove(0);
    let dynamic = list(&cluster, "spec.redisConfig.dynamicConfig").iter();
    let mut settings: Vec<(String, String)> = dynamic
        .map(|line| line.as_str().unwrap().split_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let compose = files.yaml("deploy/compose.yaml").remove(0);
    let told = list(&compose["services"]["cache-1"], "command")[1..].chunks(2);
    settings.extend(told.map(|pair| {
        let word = |index: usize| pair[index].as_str().unwrap().to_owned();
        (word(0).trim_start_matches("--").to_owned(), word(1))
    }));
    // The one that is decided at the start.
    settings.retain(|(name, _)| name != "cluster-enabled");
    assert!(settings.len() >= 8, "{settings:?}");

    let redis = Redis::start().await.unwrap();
    for (name, value) in &settings {
        redis.command(["CONFIG", "SET", name, value]).await.unwrap();
    }
    assert!(redis.command(["CONFIG", "SET", "maxmemory-policy", "allkeys-lra"]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_takes_its_settings() {
    let files = Files::load();
    let cluster = files.yaml("deploy/rabbitmq/rabbitmq-cluster.yaml").remove(0);
    let mut broker = RabbitMq::builder();
    let lines = words(&cluster, "spec.rabbitmq.additionalConfig").lines();
    let mut count = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(" = ")) {
        count += 1;
        // As much as the machine has memory would have to be free on this one's disk.
        if name != "disk_free_limit.relative" {
            broker = broker.setting(name, value);
        }
    }
    assert_eq!(count, 3);
    let broker = broker.start().await.unwrap();
    broker.settled().await.unwrap();
}
