//! How far behind a read may be, who answers while a node hangs, and the settings of the routing.

use std::time::Duration;

use resonant_db::{
    Database, ErrorKind, PrimaryReads, ReadStrategy, Result, Role, RoutingConfig, params,
};
use tokio::time::{Instant, sleep};

use super::double::{Cluster, Fails};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

async fn reader(db: &Database) -> Result<String> {
    db.read().query_one_as("read", params![]).await
}

#[tokio::test(start_paused = true)]
async fn a_bounded_read_goes_to_nodes_that_are_known_to_be_fresh() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a", "b"]).connect().await?;
    let fresh = async |limit: u64| -> Result<Vec<String>> {
        let mut seen = Vec::new();
        for _ in 0..6 {
            let read = db.read().max_staleness(millis(limit));
            seen.push(read.query_one_as::<String>("read", params![]).await?);
        }
        seen.sort();
        seen.dedup();
        Ok(seen)
    };
    sleep(millis(600)).await;
    assert_eq!(fresh(500).await?, ["a", "b"], "nothing was written: nobody is late");
    assert_eq!(fresh(0).await?, ["primary"]);
    // One stands still while there are writes.
    cluster.lag("a", 1);
    db.write().execute("write", params![]).await?;
    sleep(millis(600)).await;
    assert_eq!(fresh(500).await?, ["b"]);
    assert_eq!(fresh(5000).await?, ["a", "b"]);
    let staleness = |place: usize| db.status().nodes[place].staleness.expect("known");
    let before = staleness(1);
    sleep(millis(2000)).await;
    let grown = staleness(1) - before;
    assert!((millis(1700)..=millis(2300)).contains(&grown), "it grows with the time: {grown:?}");
    assert!(staleness(2) <= millis(300), "{:?}", staleness(2));
    // It has caught up.
    cluster.lag("a", 0);
    sleep(millis(600)).await;
    assert_eq!(fresh(500).await?, ["a", "b"]);
    // Nobody knows any more how far they are: no promise.
    cluster.lose_position("a", true);
    cluster.lose_position("b", true);
    sleep(millis(1200)).await;
    assert_eq!(fresh(500).await?, ["primary"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_anybody_to_ask_no_age_is_known_and_the_primary_answers() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    let read = db.read().max_staleness(Duration::from_secs(3600));
    assert_eq!(read.query_one_as::<String>("read", params![]).await?, "primary");
    let routing = RoutingConfig::default().primary_reads(PrimaryReads::Never);
    let db = cluster.builder(&["a"]).routing(routing).connect_lazy()?;
    assert_eq!(reader(&db).await?, "a");
    let error = db.read().max_staleness(millis(100)).query("read", params![]).await;
    assert_eq!(error.expect_err("nobody may").kind(), ErrorKind::Unavailable);
    // A session still reads there what no replica has.
    cluster.lag("a", 1);
    let session = db.session();
    session.write().execute("write", params![]).await?;
    assert_eq!(session.read().query_one_as::<String>("read", params![]).await?, "primary");
    cluster.fail("a", (Fails::Running, ErrorKind::Unavailable));
    assert!(db.read().query("read", params![]).await.is_err(), "the primary is not asked");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_frozen_replica_leaves_within_a_second_and_comes_back_slowly() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a", "b"]).connect().await?;
    sleep(millis(500)).await;
    cluster.hang("a", "anything");
    sleep(millis(1000)).await;
    assert!(db.status().nodes[1].ejected);
    // No call has to find out.
    cluster.log();
    for _ in 0..100 {
        assert_eq!(reader(&db).await?, "b");
        sleep(millis(50)).await;
    }
    cluster.hang("a", None);
    let start = Instant::now();
    while db.status().nodes[1].ejected {
        sleep(millis(10)).await;
    }
    assert!(start.elapsed() <= millis(1500), "{:?}", start.elapsed());
    let share = async |reads: usize| -> Result<usize> {
        let mut at_a = 0;
        for _ in 0..reads {
            at_a += usize::from(reader(&db).await? == "a");
        }
        Ok(at_a)
    };
    let first = share(400).await?;
    assert!((1..=80).contains(&first), "a twentieth is its share now: {first} of 400");
    sleep(millis(1000)).await;
    let later = share(400).await?;
    assert!((first..=160).contains(&later), "half of its share: {later} of 400");
    sleep(millis(1000)).await;
    assert_eq!(share(400).await?, 200);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_probe_ejects_nobody_who_answers_calls() -> Result<()> {
    let cluster = Cluster::with_roles();
    let db = cluster.builder(&["a"]).connect().await?;
    cluster.hang("a", "role");
    for _ in 0..40 {
        assert_eq!(reader(&db).await?, "a");
        sleep(millis(50)).await;
    }
    assert!(!db.status().nodes[1].ejected);
    sleep(millis(2500)).await;
    assert!(db.status().nodes[1].ejected, "nothing speaks for it any more");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn zones_shares_and_closures_choose() -> Result<()> {
    let cluster = Cluster::default();
    let zones = RoutingConfig::default()
        .zone("here")
        .node_zone("b", "here")
        .node_zone("double://c", "here")
        .node_zone("a", "there");
    let builder = cluster.builder(&["a", "b", "c"]).routing(zones);
    let db = builder.read_strategy(ReadStrategy::ZoneFirst).connect_lazy()?;
    let seen = [reader(&db).await?, reader(&db).await?, reader(&db).await?, reader(&db).await?];
    assert!(!seen.contains(&"a".into()), "{seen:?}");
    let included = RoutingConfig::default().primary_reads(PrimaryReads::Included);
    let db = cluster.builder(&["a"]).routing(included).connect_lazy()?;
    let mut seen = [reader(&db).await?, reader(&db).await?];
    seen.sort();
    assert_eq!(seen, ["a", "primary"]);
    let last = cluster.builder(&["a", "b"]).choose_with(|field| {
        field.iter().rposition(|node| node.role == Role::Replica && node.in_flight == 0)
    });
    let db = last.connect_lazy()?;
    assert_eq!([reader(&db).await?, reader(&db).await?], ["b", "b"]);
    // Whoever finds nobody leaves it to the strategy.
    let db = cluster.builder(&["a", "b"]).choose_with(|_| None).connect_lazy()?;
    assert_eq!([reader(&db).await?, reader(&db).await?], ["a", "b"]);
    let db = cluster.builder(&["a", "b"]).choose_with(|field| Some(field.len())).connect_lazy()?;
    assert_eq!([reader(&db).await?, reader(&db).await?], ["a", "b"]);
    Ok(())
}

#[test]
fn settings_of_the_routing_read_files_and_refuse_nonsense()
-> std::result::Result<(), serde_json::Error> {
    let text = r#"{ "primary_reads": "never", "probe_interval": "1s", "slow_start": 0, "zone": "eu-1a",
        "zones": { "replica1:5432/app": "eu-1a" } }"#;
    let config: RoutingConfig = serde_json::from_str(text)?;
    let code = RoutingConfig::default()
        .primary_reads(PrimaryReads::Never)
        .probe_interval(Duration::from_secs(1))
        .slow_start(Duration::ZERO)
        .zone("eu-1a")
        .node_zone("replica1:5432/app", "eu-1a");
    assert_eq!(config, code);
    let wrong = RoutingConfig::default().probe_timeout(Duration::ZERO);
    let error = Cluster::default().builder(&["a"]).routing(wrong).connect_lazy();
    let error = error.expect_err("no time to answer");
    assert!(error.to_string().contains("probe_timeout"), "{error}");
    Ok(())
}
