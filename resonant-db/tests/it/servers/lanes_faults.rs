//! Lanes that stop, break or get slow.

use std::process::Command;
use std::time::Duration;

use futures::future::BoxFuture;
use resonant_db::{Database, ErrorKind, PoolConfig, Rows, params};
use resonant_testkit::{FaultProxy, PostgresCluster};
use tokio::time::{Instant, timeout};

use super::lanes::{Crowd, item, lanes, on_lanes, small, telling};
use super::{LIMIT, database, until};

const ITEMS: &str = "CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL); \
                     INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, 999) AS n; ANALYZE item";
const LANES: &str = "SELECT pid::text FROM pg_stat_activity WHERE application_name LIKE '%lane' AND datname = current_database()";

fn signal(signal: &str, pids: &[String]) {
    let sent = Command::new("kill").arg(signal).args(pids).status().expect("kill");
    assert!(sent.success() || signal == "-CONT", "{signal} {pids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_stop_answering_are_replaced_and_their_reads_go_elsewhere() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let db = small(&database.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    let pids = async || -> Vec<String> {
        let rows = database.sql(LANES).await.expect("lanes");
        rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect()
    };
    let frozen = pids().await;
    assert!(!frozen.is_empty());
    signal("-STOP", &frozen);
    until("they are given up", async || lanes(&db).lost > 0).await;
    until("others share again", async || {
        let now = pids().await;
        let reads = lanes(&db).reads;
        tokio::time::sleep(Duration::from_millis(20)).await;
        now.iter().any(|pid| !frozen.contains(pid)) && lanes(&db).reads > reads
    })
    .await;
    signal("-CONT", &frozen);
    crowd.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_black_hole_reads_end_by_their_deadline_and_share_again_afterwards() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    cluster.primary().sql(ITEMS).await.expect("items");
    let proxy = FaultProxy::start(cluster.primary().address()).await.expect("a proxy");
    let pool = PoolConfig::default()
        .min_size(2)
        .max_size(2)
        .acquire_timeout(Duration::from_millis(900))
        .connect_timeout(Duration::from_millis(500));
    let db = Database::builder()
        .primary(cluster.primary().url_through(&proxy))
        .pool(pool)
        .statement_timeout(Duration::from_millis(500))
        .connect()
        .await
        .expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    proxy.black_hole().await.expect("a black hole");
    let began = Instant::now();
    let error = timeout(LIMIT, item(&db, 1)).await.expect("a deadline").expect_err("no answer");
    assert!(error.is_transient(), "{error}");
    assert!(began.elapsed() < LIMIT / 3, "{:?}", began.elapsed());
    proxy.heal().await.expect("healed");
    until("reads share again", async || {
        let reads = lanes(&db).reads;
        tokio::time::sleep(Duration::from_millis(20)).await;
        lanes(&db).reads > reads + 10
    })
    .await;
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_empties_the_lanes() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.sql(ITEMS).await.expect("items");
    cluster.caught_up().await.expect("caught up");
    let pool = PoolConfig::default().min_size(2).max_size(2).acquire_timeout(LIMIT);
    let db = Database::builder()
        .primary(old.url())
        .replicas([new.url()])
        .pool(pool)
        .connect()
        .await
        .expect("connect");
    let of_replica = || db.status().nodes[1].lanes;
    let read = async || {
        let reads = (0..32).map(|id| item(&db, id));
        futures::future::join_all(reads).await
    };
    until("reads share on the replica", async || {
        drop(read().await);
        of_replica().reads > 50
    })
    .await;
    let pids = async || -> Vec<String> {
        let rows = new.sql(LANES).await.expect("lanes");
        rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect()
    };
    let before = pids().await;
    assert!(!before.is_empty());
    old.kill().await.expect("killed");
    new.promote().await.expect("promoted");
    until("what was shared on the standby is gone", async || {
        drop(read().await);
        !pids().await.iter().any(|pid| before.contains(pid))
    })
    .await;
    until("reads go on", async || read().await.iter().all(Result::is_ok)).await;
    db.write().execute("UPDATE item SET name = name", params![]).await.expect("a write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_statement_has_a_connection_to_itself() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let db = small(&database.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    // Short or long, as its parameter says.
    let pairs = "SELECT count(*) FROM item a, item b WHERE a.id < $1 AND b.id < $1 AND length(a.name || b.name) > a.id - a.id";
    for _ in 0..20 {
        let few: i64 = db.read().query_one_as(pairs, params![1]).await.expect("few");
        assert_eq!(few, 1);
    }
    for turn in 0..6 {
        let many: i64 = db.read().query_one_as(pairs, params![1000]).await.expect("many");
        assert_eq!(many, 1_000_000, "turn {turn}");
    }
    crowd.part().await;
    let error = db.read().query("SELECT id / 0 FROM item", params![]).await.expect_err("zero");
    assert_eq!(error.kind(), ErrorKind::Rejected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_as_they_are_without_lanes() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let db = small(&database.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    let quotient = "SELECT id / $1 FROM item WHERE id = 8";
    for _ in 0..20 {
        let half: i64 = db.read().query_one_as(quotient, params![2]).await.expect("half");
        assert_eq!(half, 4);
    }
    for _ in 0..10 {
        let error = db.read().query(quotient, params![0]).await.expect_err("by zero");
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.to_string().contains("zero"), "{error}");
        let error = db.read().query(quotient, params!["x"]).await.expect_err("a text");
        assert_eq!(error.kind(), ErrorKind::Rejected);
    }
    // A schema that changes heals itself.
    database.sql("ALTER TABLE item ADD COLUMN more int; ALTER TABLE item ALTER COLUMN name TYPE varchar(90)").await.expect("alter");
    for id in 0..50 {
        item(&db, id).await.expect("a read");
    }
    crowd.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_lane_that_is_asked_something_is_not_taken_for_stuck() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let db = small(&database.url()).connect().await.expect("connect");
    // A machine that stands still for as long as a lane may be silent makes one stuck indeed: a round without that is wanted.
    let mut round = 0;
    loop {
        Crowd::gather(&db, 8).await.part().await;
        let lost = lanes(&db).lost;
        // Nobody asks a lane anything for longer than one may be silent.
        tokio::time::sleep(Duration::from_millis(900)).await;
        // Statements that are new: the catalogue is asked about each of them, on a lane.
        let new = (0..60).map(|n| {
            let db = &db;
            async move {
                let sql = format!("SELECT id + {n} FROM item WHERE id = {round}");
                db.read().query_one_as::<i64>(&sql, params![]).await
            }
        });
        for (n, read) in futures::future::join_all(new).await.into_iter().enumerate() {
            assert_eq!(read.expect("a read"), round + n as i64);
        }
        if lanes(&db).lost == lost {
            break;
        }
        round += 1;
        assert!(round < 5, "an idle lane was given up: {:?}", lanes(&db));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_take_its_answer_holds_up_nobody() {
    let server = telling().await;
    let node = server.primary();
    node.sql("CREATE TABLE wide AS SELECT n::int8 AS id, repeat('x', 8000) AS name FROM generate_series(0, 39) AS n")
        .await
        .expect("a table");
    let db = small(&node.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    let wide = "SELECT id, name FROM wide";
    let shared = || {
        on_lanes(&node)
            .iter()
            .filter(|line| line.contains("execute") && line.contains(wide))
            .count()
    };
    let mut rounds = 0;
    loop {
        let (before, mut began, mut lost) = (lanes(&db), 0, 0);
        let mut idle: Vec<BoxFuture<'_, resonant_db::Result<Rows>>> = Vec::new();
        until("readers have asked on lanes", async || {
            // Whoever does not get on a lane takes his answer, so that it is known better.
            for read in idle.drain(..) {
                let rows = timeout(LIMIT, read).await.expect("a deadline").expect("rows");
                assert_eq!(rows.len(), 40);
            }
            (began, lost) = (shared(), lanes(&db).lost);
            for _ in 0..6 {
                let mut read: BoxFuture<'_, _> = Box::pin(db.read().query(wide, params![]));
                // It has asked, and does not come back for the answer.
                let _ = futures::poll!(&mut read);
                idle.push(read);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            shared() > began + 2
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let after = lanes(&db);
        for read in idle {
            let rows = timeout(LIMIT, read).await.expect("a deadline").expect("rows");
            assert_eq!(rows.len(), 40);
        }
        if after.lost == lost && after.reads > before.reads + 100 {
            break;
        }
        rounds += 1;
        assert!(rounds < 5, "the neighbours were cut off: {before:?} {after:?}");
    }
    crowd.part().await;
}
