//! A Redis Cluster that loses nodes and moves slots. The tests that only look share one.

use std::time::Duration;

use resonant_testkit::redis::Reply;
use resonant_testkit::{ErrorKind, RedisCluster, Result};
use tokio::time::{Instant, timeout};

use crate::support::{SOON, failure};

#[tokio::test]
async fn a_killed_primary_is_replaced_by_election_and_comes_back_as_a_replica() -> Result<()> {
    let started = Instant::now();
    let redis = RedisCluster::start().await?;
    println!("FIGURE Redis Cluster of 3 + 3: {:?}", started.elapsed());
    assert_eq!(redis.urls().len(), 6);
    // A frozen node is not asked.
    redis.node(0).freeze()?;
    let slot = timeout(SOON / 2, redis.slot_of("user:7")).await.expect("no waiting for it")?;
    timeout(SOON / 2, redis.owner_of_slot(slot)).await.expect("nor here")?;
    redis.node(0).thaw()?;
    redis.settled().await?;
    let old = redis.owner_of("user:7").await?;
    let mut writer = old.connection().await?;
    writer.command(["SET", "user:7", "Ada"]).await?;
    assert_eq!(writer.command(["WAIT", "1", "5000"]).await?, Reply::Integer(1), "a replica has it");

    let killed = Instant::now();
    old.kill().await?;
    failure(old.command(["GET", "user:7"]).await, ErrorKind::Lost);
    let heir = redis.new_owner_of("user:7", &old).await?;
    println!("FIGURE election after kill -9: {:?}", killed.elapsed());
    assert_ne!(heir.index(), old.index());
    assert_eq!(heir.command(["GET", "user:7"]).await?, Reply::Text("Ada".into()));
    heir.command(["SET", "user:7", "Grace"]).await?;

    old.start().await?;
    redis.settled().await?;
    assert_eq!(old.info("replication", "role").await?, "slave");
    assert_eq!(redis.replicas_of("user:7").await?[0].index(), old.index());

    // The heir freezes, and the first one is elected: it has not won an election yet.
    heir.freeze()?;
    assert_eq!(redis.new_owner_of("user:7", &heir).await?.index(), old.index());
    heir.thaw()?;
    let thawed = Instant::now();
    while heir.info("replication", "role").await? != "slave" {
        assert!(thawed.elapsed() < SOON, "the thawed node still thinks it is a primary");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    redis.settled().await?;
    assert_eq!(old.command(["GET", "user:7"]).await?, Reply::Text("Grace".into()));
    Ok(())
}

#[tokio::test]
async fn a_replica_takes_over_in_order_and_loses_nothing() -> Result<()> {
    let redis = RedisCluster::start().await?;
    let (old, replica) = (redis.owner_of("k").await?, redis.replicas_of("k").await?[0].clone());
    old.command(["SET", "k", "v"]).await?;
    redis.fail_over_to(&replica).await?;
    assert_eq!(redis.new_owner_of("k", &old).await?.index(), replica.index());
    assert_eq!(replica.command(["GET", "k"]).await?, Reply::Text("v".into()));
    assert_eq!(old.info("replication", "role").await?, "slave");
    failure(redis.fail_over_to(&replica).await, ErrorKind::Rejected);
    Ok(())
}

#[tokio::test]
async fn a_slot_moves_with_its_keys_and_clients_are_told_where() -> Result<()> {
    let redis = RedisCluster::builder().replicas_per_primary(0).start().await?;
    let slot = redis.slot_of("{t}1").await?;
    let source = redis.owner_of_slot(slot).await?;
    let target = redis
        .nodes()
        .iter()
        .find(|node| node.index() != source.index())
        .expect("three of them")
        .clone();
    for key in ["{t}1", "{t}2"] {
        source.command(["SET", key, "v"]).await?;
    }
    failure(redis.begin_move(slot, &source).await, ErrorKind::Config);

    let moving = redis.begin_move(slot, &target).await?;
    moving.migrate(&["{t}1"]).await?;
    let answer = |words: &[&str]| {
        let (source, words) =
            (source.clone(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        async move { source.command(words).await }
    };
    assert_eq!(failure(answer(&["GET", "{t}1"]).await, ErrorKind::Rejected).code(), Some("ASK"));
    assert_eq!(answer(&["GET", "{t}2"]).await?, Reply::Text("v".into()));
    assert_eq!(
        failure(answer(&["MGET", "{t}1", "{t}2"]).await, ErrorKind::Rejected).code(),
        Some("TRYAGAIN")
    );
    assert_eq!(
        failure(target.command(["GET", "{t}1"]).await, ErrorKind::Rejected).code(),
        Some("MOVED")
    );
    moving.move_keys().await?;
    moving.finish().await?;

    assert_eq!(redis.owner_of("{t}1").await?.index(), target.index());
    assert_eq!(failure(answer(&["GET", "{t}1"]).await, ErrorKind::Rejected).code(), Some("MOVED"));
    assert_eq!(target.command(["MGET", "{t}1", "{t}2"]).await?.items().len(), 2);
    redis.move_slot(slot, &source).await?;
    assert_eq!(source.command(["GET", "{t}2"]).await?, Reply::Text("v".into()));
    failure(RedisCluster::builder().primaries(0).start().await, ErrorKind::Config);
    Ok(())
}

#[tokio::test]
async fn a_cluster_with_tls_and_logins_forms_and_moves_slots_too() -> Result<()> {
    let redis = RedisCluster::builder()
        .tls()
        .login("app", "s3cret", "~* +@all")
        .without_tracking()
        .start()
        .await?;
    let slot = redis.slot_of("k").await?;
    let source = redis.owner_of_slot(slot).await?;
    source.command(["SET", "k", "v"]).await?;
    let target = redis.nodes()[..3]
        .iter()
        .find(|node| node.index() != source.index())
        .expect("a primary")
        .clone();
    redis.move_slot(slot, &target).await?;
    assert_eq!(target.command(["GET", "k"]).await?, Reply::Text("v".into()));
    Ok(())
}
