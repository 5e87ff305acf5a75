//! Shards that die, hang and come back, and shards with replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use resonant_db::{ErrorKind, KeyType, PoolConfig, ShardedDatabase, params};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::time::Instant;

use super::{LIMIT, until};

const SCHEMA: &str =
    "CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL, PRIMARY KEY (org_id, id))";
const INSERT: &str = "INSERT INTO agents (org_id, id) VALUES ($1, $2)";
/// How long a statement on a shard that hangs takes to be given up; the others take far less, however busy the machine.
const HANGS: Duration = Duration::from_secs(6);
const COUNT: &str = "SELECT count(*) FROM agents";

/// Short limits, so that a shard that hangs is found out soon.
fn pool() -> PoolConfig {
    PoolConfig::default()
        .min_size(0)
        .max_size(4)
        .acquire_timeout(Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(1))
}

async fn connect(nodes: &[PgNode]) -> ShardedDatabase {
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .pool(pool())
        .statement_timeout(HANGS);
    for (shard, node) in nodes.iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), node.url());
    }
    let started = Instant::now();
    let db = builder.connect().await.expect("a start needs no shard");
    assert!(started.elapsed() < HANGS / 2, "it waits for nobody");
    db
}

/// A key of each shard.
fn keys(db: &ShardedDatabase) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for n in 0..1_000 {
        let org = format!("org_{n}");
        keys.entry(db.shard_for(&org).expect("a shard").to_owned()).or_insert(org);
    }
    keys
}

/// Every living shard works, none of them held up by the other; the other one's errors name no neighbour.
async fn others_work(db: &ShardedDatabase, dead: &str, id: i64) {
    let mut slowest = Duration::ZERO;
    for (shard, org) in &keys(db) {
        if shard != dead {
            for n in 0..25 {
                let started = Instant::now();
                let stored = db.execute(INSERT, params![org, id + n]).await;
                slowest = slowest.max(started.elapsed());
                assert_eq!(stored.unwrap_or_else(|error| panic!("{shard}: {error}")), 1);
            }
        }
    }
    assert!(slowest < HANGS / 2, "a living shard took {slowest:?}");
}

#[tokio::test]
async fn a_shard_that_is_killed_or_hangs_stops_neither_a_start_nor_the_others() {
    let clusters = PostgresCluster::builder().start_shards(4).await.expect("four servers");
    let nodes: Vec<PgNode> = clusters.iter().map(PostgresCluster::primary).collect();
    let db = connect(&nodes).await;
    db.on_all(SCHEMA).await.expect("the schema");
    let dead = "shard_2";
    let key = keys(&db)[dead].clone();
    for (round, how) in ["SIGKILL", "SIGSTOP"].into_iter().enumerate() {
        let id = i64::try_from(round).expect("small") * 1_000;
        others_work(&db, "none", id).await;
        match how {
            "SIGKILL" => nodes[2].kill().await.expect("killed"),
            _ => nodes[2].freeze().expect("frozen"),
        }
        // With the old handle, while statements on the dead shard wait and fail beside it.
        let waiting = {
            let (db, key) = (db.clone(), key.clone());
            tokio::spawn(async move { db.execute(INSERT, params![key, 900 + id]).await })
        };
        others_work(&db, dead, id + 100).await;
        // And with a new one.
        let late = connect(&nodes).await;
        others_work(&late, dead, id + 200).await;
        let error = waiting.await.expect("no panic").expect_err("it is dead");
        let kinds = [ErrorKind::Unavailable, ErrorKind::TimedOut, ErrorKind::Overloaded];
        assert!(kinds.contains(&error.kind()), "{how}: {error}");

        // All of it fails, named; what there is comes by the deadline.
        let whole = late.query_all(COUNT, params![]).await.expect_err("one is missing");
        assert!(kinds.contains(&whole.kind()), "{how}: {whole}");
        let part = late.query_all_within(Duration::from_millis(400), COUNT, params![]).await;
        let part = part.expect("three of four");
        let missing: Vec<_> = part.missing.iter().map(|shard| shard.name.as_str()).collect();
        assert_eq!(missing, [dead], "{how}");
        assert!(kinds.contains(&part.missing[0].error.kind()), "{how}: {:?}", part.missing);
        let counted: Vec<i64> = part.rows.decode().expect("a number");
        let living = 3 * 25 * 3 * (i64::try_from(round).expect("small") + 1);
        assert_eq!(counted, [living], "{how}: the rows of the other three");

        // After some failures the dead one is refused at once, and is found again when it is back.
        until("the breaker opens", async || {
            let _ = late.query_all(COUNT, params![]).await;
            late.findings().iter().any(|finding| finding.code == "db.shard.down")
        })
        .await;
        let error = late.execute(INSERT, params![key, 950 + id]).await.expect_err("left alone");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{how}: {error}");
        assert!(error.retry_after().is_some(), "{how}: {error}");
        match how {
            "SIGKILL" => nodes[2].start().await.expect("started"),
            _ => nodes[2].thaw().expect("thawed"),
        }
        let deadline = Instant::now() + LIMIT * 2;
        while late.ping().await.is_err() || db.ping().await.is_err() {
            assert!(Instant::now() < deadline, "{how}: it is not found again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let back = late.query_all_within(LIMIT, COUNT, params![]).await.expect("all four");
        assert!(back.missing.is_empty(), "{how}: {:?}", back.missing);
    }
    // Nobody answers: that is an error, not an empty answer.
    for node in &nodes {
        node.kill().await.expect("killed");
    }
    let none =
        connect(&nodes).await.query_all_within(Duration::from_millis(300), COUNT, params![]).await;
    assert!(matches!(none, Err(error) if error.is_transient()));
}

#[tokio::test]
async fn shards_with_replicas_read_there_and_a_session_reads_what_it_wrote() {
    let clusters =
        PostgresCluster::builder().replicas(1).start_shards(2).await.expect("four servers");
    let mut builder =
        ShardedDatabase::builder().table("agents", "org_id", KeyType::Text).pool(pool());
    for (shard, cluster) in clusters.iter().enumerate() {
        let (primary, replica) = (cluster.primary().url(), cluster.replica(0).url());
        builder = builder.shard_with_replicas(format!("shard_{shard}"), primary, [replica]);
    }
    let db = builder.connect().await.expect("shards");
    db.on_all(SCHEMA).await.expect("the schema");
    for cluster in &clusters {
        cluster.caught_up().await.expect("caught up");
    }
    let keys = keys(&db);
    let port = "SELECT inet_server_port() FROM agents WHERE org_id = $1";
    let vouched = |key: &String| db.shard_for(key).expect("a shard").to_owned();
    assert!(
        db.query(port, params!["x"]).await.is_err_and(|error| error.kind() == ErrorKind::Refused)
    );
    for cluster in &clusters {
        cluster.replica(0).pause_replay().await.expect("paused");
    }
    let session = db.session();
    assert_eq!(session.token(), None);
    let read = "SELECT id FROM agents WHERE org_id = $1";
    for (shard, key) in &keys {
        assert_eq!(vouched(key), *shard);
        session.execute(INSERT, params![key, 1]).await.expect("stored");
        session
            .transaction(key, async |tx| tx.execute(INSERT, params![key, 2]).await.map(drop))
            .await
            .expect("committed");
        assert_eq!(
            session.query(read, params![key]).await.expect("own writes").len(),
            2,
            "{shard}"
        );
        // A plain read goes to the replica, which stands still.
        assert_eq!(db.query(read, params![key]).await.expect("a replica").len(), 0, "{shard}");
    }
    let all: Vec<i64> =
        session.query_all(COUNT, params![]).await.expect("all").decode().expect("a number");
    assert_eq!(all, [4]);
    let stale: Vec<i64> =
        db.query_all(COUNT, params![]).await.expect("all").decode().expect("a number");
    assert_eq!(stale, [0]);
    // In another process it goes on from the token.
    let token = session.token().expect("it has written");
    let elsewhere = db.session_from(&token).expect("a good token");
    let all: Vec<i64> =
        elsewhere.query_all(COUNT, params![]).await.expect("all").decode().expect("a number");
    assert_eq!(all, [4]);
    for bad in ["x", "0", "7=primary", "0=nonsense"] {
        assert_eq!(db.session_from(bad).expect_err(bad).kind(), ErrorKind::Config);
    }
    for cluster in &clusters {
        cluster.replica(0).resume_replay().await.expect("resumed");
        cluster.caught_up().await.expect("caught up");
    }
    let fresh: Vec<i64> =
        db.query_all(COUNT, params![]).await.expect("all").decode().expect("a number");
    assert_eq!(fresh, [4]);
}
