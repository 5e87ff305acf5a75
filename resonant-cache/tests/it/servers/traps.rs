//! What the driver fred does by itself, on real servers: the reasons why the store has connections of its own, and why it uses
//! the driver, where it is asked to, as a client of one connection and for nothing else. A test that fails after an update of the
//! driver says that a reason is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{
    ClientInterface, ClientLike, EventInterface, KeysInterface, TrackingInterface,
};
use fred::types::client::Invalidation;
use fred::types::config::{Config, Options, ReconnectPolicy};
use fred::types::{Builder, ClusterHash, CustomCommand, RespVersion, Value};
use resonant_testkit::{Redis, RedisCluster, RedisNode};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::{SOON, cluster, server, started};

async fn connect(mut config: Config, adjust: impl FnOnce(&mut Builder)) -> Client {
    config.version = RespVersion::RESP3;
    let mut builder = Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(0, 1000));
    adjust(&mut builder);
    let client = started(builder.build());
    started(client.init().await);
    client
}

fn one(node: &RedisNode) -> Config {
    Config { server: started(Config::from_url(&node.url())).server, ..Config::default() }
}

fn clustered(redis: &RedisCluster) -> Config {
    let seed = redis.node(0).address();
    started(Config::from_url_clustered(&format!("redis-cluster://{seed}")))
}

fn unique(name: &str) -> String {
    format!("trap-{:08x}-{name}", rand::random::<u32>())
}

/// The names announced until one that ends with `last`; the driver may say that it dropped some.
async fn until_heard(heard: &mut Receiver<Invalidation>, last: &str) -> (Vec<String>, bool) {
    let (mut names, mut lagged) = (Vec::new(), false);
    let hearing = async {
        loop {
            match heard.recv().await {
                Ok(invalidation) => {
                    let keys = invalidation.keys.iter().filter_map(|key| key.as_str());
                    names.extend(keys.map(str::to_owned));
                }
                Err(RecvError::Lagged(_)) => lagged = true,
                Err(RecvError::Closed) => return,
            }
            if names.iter().any(|name| name.ends_with(last)) {
                return;
            }
        }
    };
    let heard = tokio::time::timeout(SOON, hearing).await;
    assert!(heard.is_ok(), "{last} was not heard");
    (names, lagged)
}

#[tokio::test]
async fn tracking_in_a_cluster_listens_to_one_node_of_three() {
    let redis = cluster().await;
    let client = connect(clustered(redis), |_| ()).await;
    let prefix = unique("");
    started(client.start_tracking(prefix.clone(), true, false, false, false).await);
    let mut heard = client.invalidation_rx();
    for n in 0..60 {
        let key = format!("{prefix}{n}");
        let owner = started(redis.owner_of(&key).await);
        started(owner.command(["SET", &key, "x"]).await);
    }
    let mut nodes = BTreeSet::new();
    // Announcements come in milliseconds; a second of silence is their end.
    while let Ok(Ok(invalidation)) =
        tokio::time::timeout(Duration::from_secs(1), heard.recv()).await
    {
        for key in invalidation.keys.iter().filter_map(|key| key.as_str()) {
            nodes.insert(started(redis.owner_of(key).await).index());
        }
    }
    assert_eq!(nodes.len(), 1, "nodes whose changes were heard");
}

#[tokio::test]
async fn a_flush_is_not_announced() {
    let redis = started(Redis::start().await);
    let client = connect(one(&redis), |_| ()).await;
    started(client.start_tracking(Vec::<String>::new(), true, false, false, false).await);
    let mut heard = client.invalidation_rx();
    started(redis.command(["SET", "a", "1"]).await);
    until_heard(&mut heard, "a").await;
    started(redis.command(["FLUSHALL"]).await);
    started(redis.command(["SET", "after", "1"]).await);
    let (names, _) = until_heard(&mut heard, "after").await;
    assert_eq!(names, ["after"], "nothing was said of the flush");
}

#[tokio::test]
async fn the_option_to_track_a_read_does_nothing() {
    let redis = server().await;
    let client = connect(one(redis), |_| ()).await;
    let [by_option, by_command] = [unique("option"), unique("command")];
    started(client.start_tracking(Vec::<String>::new(), false, true, false, false).await);
    let mut heard = client.invalidation_rx();
    let options = Options { caching: Some(true), ..Options::default() };
    let _: Option<String> = started(client.with_options(&options).get(&by_option).await);
    let _: () = started(client.client_caching(true).await);
    let _: Option<String> = started(client.get(&by_command).await);
    for key in [&by_option, &by_command] {
        started(redis.command(["SET", key, "x"]).await);
    }
    let (names, _) = until_heard(&mut heard, "command").await;
    assert_eq!(names, [by_command]);
}

#[tokio::test]
async fn a_burst_drops_announcements() {
    let redis = server().await;
    let client = connect(one(redis), |_| ()).await;
    let prefix = unique("");
    started(client.start_tracking(prefix.clone(), true, false, false, false).await);
    let mut heard = client.invalidation_rx();
    let mut writer = started(redis.connection().await);
    for n in 0..200 {
        started(writer.command(["SET", &format!("{prefix}{n}"), "x"]).await);
    }
    // The reader is slow for a moment.
    tokio::time::sleep(Duration::from_millis(300)).await;
    started(writer.command(["SET", &format!("{prefix}last"), "x"]).await);
    let (names, lagged) = until_heard(&mut heard, "last").await;
    assert!(lagged && names.len() < 200, "{} were heard", names.len());
}

#[tokio::test]
async fn tracking_is_gone_after_a_reconnection() {
    let redis = started(Redis::start().await);
    let client = connect(one(&redis), |builder| {
        builder.set_policy(ReconnectPolicy::new_constant(0, 10));
    })
    .await;
    started(client.start_tracking(Vec::<String>::new(), true, false, false, false).await);
    let tracked = async || {
        let info = CustomCommand::new_static("CLIENT", ClusterHash::Random, false);
        let info: Value = started(client.custom(info, vec!["TRACKINGINFO"]).await);
        format!("{info:?}").contains("bcast")
    };
    assert!(tracked().await);
    let mut reconnected = client.reconnect_rx();
    started(redis.close_clients().await);
    assert!(matches!(tokio::time::timeout(SOON, reconnected.recv()).await, Ok(Ok(_))));
    assert!(!tracked().await);
}

#[tokio::test]
async fn keys_of_several_slots_are_not_split() {
    let client = connect(clustered(cluster().await), |_| ()).await;
    let keys: Vec<String> = (0..10).map(|n| unique(&n.to_string())).collect();
    let read = client.mget::<Vec<Option<String>>, _>(keys).await;
    let refused = read.err().map(|error| error.details().to_owned()).unwrap_or_default();
    assert!(refused.starts_with("CROSSSLOT"), "{refused}");
}

#[tokio::test]
async fn while_one_node_is_away_the_others_wait() {
    let builder = RedisCluster::builder().replicas_per_primary(0);
    let redis = started(builder.node_timeout(Duration::from_secs(60)).start().await);
    let client = connect(clustered(&redis), |_| ()).await;
    let mut keys = [const { None }; 3];
    for n in 0.. {
        let key = n.to_string();
        let owner = started(redis.owner_of(&key).await).index();
        keys[owner] = Some(key);
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    let healthy = keys[0].clone().unwrap_or_default();
    let _: Option<String> = started(client.get(&healthy).await);
    started(redis.node(1).kill().await);
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while slowest < Duration::from_millis(500) {
        assert!(begun.elapsed() < SOON, "no read of the other node took longer than {slowest:?}");
        let asked = Instant::now();
        let answer = client.get::<Option<String>, _>(&healthy);
        let _ = tokio::time::timeout(Duration::from_secs(2), answer).await;
        slowest = slowest.max(asked.elapsed());
    }
    println!(
        "FIGURE one node of three killed: the driver's clustered client made a read of another wait {slowest:?}"
    );
}

/// A key that lies on this node.
async fn key_on(redis: &RedisCluster, node: usize) -> String {
    for n in 0.. {
        let key = unique(&n.to_string());
        if started(redis.owner_of(&key).await).index() == node {
            return key;
        }
    }
    String::new()
}

#[tokio::test]
async fn arming_the_tracking_of_a_cluster_waits_for_a_node_that_hangs_and_so_do_all_others() {
    let builder = RedisCluster::builder().replicas_per_primary(0);
    let redis = started(builder.node_timeout(Duration::from_secs(60)).start().await);
    let client = connect(clustered(&redis), |_| ()).await;
    let [healthy, hanging] = [key_on(&redis, 0).await, key_on(&redis, 1).await];
    let _: Option<String> = started(client.get(&healthy).await);
    started(redis.node(1).freeze());
    let read = |key: &String| {
        let (client, key) = (client.clone(), key.clone());
        tokio::spawn(async move { client.get::<Option<String>, _>(key).await })
    };
    let waits = read(&hanging);
    let armed = tokio::spawn({
        let client = client.clone();
        async move { client.start_tracking(Vec::<String>::new(), false, true, false, false).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let other = tokio::time::timeout(Duration::from_secs(3), read(&healthy)).await;
    assert!(other.is_err(), "a read of a node that is well was answered: {other:?}");
    assert!(!armed.is_finished() && !waits.is_finished());
    started(redis.node(1).thaw());
}

#[tokio::test]
async fn each_redirected_read_asks_for_the_map_of_the_cluster() {
    let redis = started(RedisCluster::builder().replicas_per_primary(0).start().await);
    let client = connect(clustered(&redis), |_| ()).await;
    let key = key_on(&redis, 0).await;
    let _: Option<String> = started(client.get(&key).await);
    let slot = fred::util::redis_keyslot(key.as_bytes());
    started(redis.move_slot(slot, &redis.node(1)).await);
    let asked = async || {
        let mut sum = 0;
        for node in redis.nodes() {
            let stats = started(node.command(["INFO", "commandstats"]).await).text();
            let stats = stats.unwrap_or_default();
            let line = stats.lines().find_map(|it| it.strip_prefix("cmdstat_cluster|slots:calls="));
            sum += line.and_then(|it| it.split(',').next()?.parse::<u64>().ok()).unwrap_or(0);
        }
        sum
    };
    let before = asked().await;
    let reads = (0..50).map(|_| client.get::<Option<String>, _>(&key));
    for read in futures::future::join_all(reads).await {
        assert_eq!(started(read), None);
    }
    let asked = asked().await - before;
    println!(
        "FIGURE fifty reads of a slot that moved: the driver's clustered client asked for the map {asked} times"
    );
    assert!(asked >= 25, "it asked {asked} times");
}

#[tokio::test]
async fn a_slot_that_nobody_has_ends_the_connections_of_all() {
    let redis = started(RedisCluster::builder().replicas_per_primary(0).start().await);
    let client = connect(clustered(&redis), |builder| {
        builder.set_policy(ReconnectPolicy::new_constant(0, 10));
    })
    .await;
    let key = key_on(&redis, 0).await;
    let _: Option<String> = started(client.get(&key).await);
    let slot = fred::util::redis_keyslot(key.as_bytes()).to_string();
    for node in redis.nodes() {
        started(node.command(["CLUSTER", "DELSLOTS", &slot]).await);
    }
    let mut reconnected = client.reconnect_rx();
    let reading = tokio::spawn({
        let client = client.clone();
        async move { client.get::<Option<String>, _>(key).await }
    });
    // An error of one command, for the driver it is one of the connection.
    assert!(matches!(tokio::time::timeout(SOON, reconnected.recv()).await, Ok(Ok(_))));
    reading.abort();
}

#[tokio::test]
async fn a_server_that_hangs_under_traffic_is_not_noticed() {
    let redis = started(Redis::start().await);
    let client = connect(one(&redis), |builder| {
        builder.with_connection_config(|config| {
            config.unresponsive.max_timeout = Some(Duration::from_secs(1));
            config.unresponsive.interval = Duration::from_millis(100);
        });
        builder.with_performance_config(|config| {
            config.default_command_timeout = Duration::from_millis(300);
        });
    })
    .await;
    let mut reconnected = client.reconnect_rx();
    started(redis.freeze());
    for _ in 0..60 {
        let client = client.clone();
        tokio::spawn(async move { client.get::<Option<String>, _>("k").await });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(client.is_connected(), "three seconds of traffic without an answer");
    assert!(reconnected.try_recv().is_err());
    started(redis.thaw());
}

#[tokio::test]
async fn a_pipeline_is_sent_after_its_caller_was_told_that_it_timed_out() {
    let redis = started(Redis::start().await);
    let client = connect(one(&redis), |builder| {
        builder.with_performance_config(|config| {
            config.default_command_timeout = Duration::from_millis(300);
        });
    })
    .await;
    started(redis.kill().await);
    let pipeline = client.pipeline();
    for key in ["a", "b"] {
        let _: () = started(pipeline.set(key, "late", None, None, false).await);
    }
    let told: Result<Value, _> = pipeline.last().await;
    assert!(told.is_err());
    started(redis.start().await);
    let begun = Instant::now();
    while started(redis.command(["GET", "b"]).await).text().as_deref() != Some("late") {
        assert!(begun.elapsed() < SOON, "it was not sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_client_that_ended_takes_commands_that_nobody_answers() {
    let redis = started(Redis::start().await);
    let config = one(&redis);
    let client = started(Builder::from_config(config).build());
    let task = started(client.init().await);
    started(redis.kill().await);
    assert!(tokio::time::timeout(SOON, task).await.is_ok(), "without a policy it ends");
    let asked = client.get::<Option<String>, _>("k");
    assert!(tokio::time::timeout(Duration::from_millis(300), asked).await.is_err());
}

#[tokio::test]
async fn a_client_outlives_its_handle() {
    let redis = started(Redis::start().await);
    let mut other = started(redis.connection().await);
    let clients = async |other: &mut resonant_testkit::redis::RedisConnection| {
        let list = started(other.command(["CLIENT", "LIST"]).await).text();
        list.unwrap_or_default().lines().count()
    };
    let before = clients(&mut other).await;
    drop(connect(one(&redis), |_| ()).await);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(clients(&mut other).await, before + 1, "its connection stays");
    }
}
