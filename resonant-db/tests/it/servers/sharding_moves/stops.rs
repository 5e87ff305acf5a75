//! A mover that is stopped at every step: another one goes on or takes everything back.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use resonant_db::sharding::{BucketMap, BucketMove, BucketPlan, MoveEvent, MoveState};
use resonant_db::{ErrorKind, KeyType, PoolConfig, ShardedDatabase, params, row};
use resonant_testkit::postgres::TempDatabase;
use resonant_testkit::{FaultProxy, PostgresCluster};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::LIMIT;
use super::super::sharding::databases;
use super::crowd::Writer;
use super::meddling::at_once;
use super::{
    SCHEMA, at_home, builder, builder_at, few, fill, grown, nothing_left, orgs_of, process,
    run_until, three,
};

/// The step an event stands for.
fn step(event: &MoveEvent) -> &'static str {
    match event {
        MoveEvent::Began { .. } => "began",
        MoveEvent::Reached(MoveState::Preparing) => "preparing",
        MoveEvent::Reached(MoveState::Copying { tables: 0 }) => "copying",
        MoveEvent::Reached(MoveState::Copying { .. }) => "copying the second",
        MoveEvent::Copied { .. } => "copied",
        MoveEvent::Reached(MoveState::Following) => "following",
        MoveEvent::Followed { .. } => "followed",
        MoveEvent::Reached(MoveState::Switching) => "switching",
        MoveEvent::Fenced { .. } => "fenced",
        MoveEvent::Landed { .. } => "landed",
        MoveEvent::Switched { .. } => "switched",
        MoveEvent::Reached(MoveState::Clearing) => "clearing",
        _ => "finished",
    }
}

const STEPS: [&str; 12] = [
    "began",
    "preparing",
    "copying",
    "copied",
    "copying the second",
    "following",
    "followed",
    "switching",
    "fenced",
    "landed",
    "switched",
    "clearing",
];

/// A process that takes few connections: there are many of them at once.
async fn lean(held: &[TempDatabase]) -> ShardedDatabase {
    let pool = PoolConfig::default().min_size(0).max_size(1);
    builder(held, 2).pool(pool).connect().await.expect("shards")
}

/// Stops a move at a step while somebody writes, and has it taken up or taken back.
async fn stopped_at(at: &'static str, resumes: bool) {
    let held = three().await;
    let db = lean(&held).await;
    fill(&db, 40, 4).await;
    let mut plan = grown(&db).await;
    // Two groups.
    plan.moves.retain(|step| step.from == 0);
    plan.moves.truncate(120);
    let other = lean(&held).await;
    let mut writer = Writer::new(&[db.clone(), other.clone()], 1, 10);
    let stop = Arc::new(Notify::new());
    let writing = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            loop {
                let paused = sleep(Duration::from_millis(15));
                tokio::select! {
                    () = stop.notified() => return writer,
                    () = paused => writer.call().await.unwrap_or_else(|error| panic!("{at}: {error}")),
                }
            }
        }
    });
    run_until(db.mover().group_rows(60), &plan, move |event| step(event) == at).await;
    sleep(Duration::from_millis(50)).await;
    let successor = lean(&held).await;
    if at == "landed" {
        let sql = "SELECT count(*) FROM agents WHERE note IS NOT NULL";
        // Either the source took the commit that was on its way, or the rows are on both and it says so.
        match successor.query_all(sql, params![]).await {
            Ok(rows) => assert_eq!(rows.decode::<i64>().expect("one"), [160]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    if resumes {
        let resumed = successor.mover().resume().await;
        let resumed = resumed.unwrap_or_else(|error| panic!("{at}: {error} {error:?}"));
        for report in &resumed {
            assert_eq!((report.left, report.state), (0, None), "{at}: {report}");
        }
    } else {
        let back = successor.mover().rollback().await;
        back.unwrap_or_else(|error| panic!("{at}: {error} {error:?}"));
    }
    nothing_left(&successor).await;
    let fresh = lean(&held).await;
    fresh.bucket_map().await.expect("asked");
    let count = async |db: &ShardedDatabase| {
        let sql = "SELECT count(*) FROM agents WHERE note IS NOT NULL";
        let rows = db.query_all(sql, params![]).await.expect("counted");
        assert_eq!(rows.decode::<i64>().expect("one"), [160], "{at}");
    };
    count(&fresh).await;
    // The rest of the plan, whatever is left of it.
    fresh.mover().run(&plan).await.unwrap_or_else(|error| panic!("{at}: {error} {error:?}"));
    stop.notify_one();
    let writer = writing.await.expect("no client error");
    nothing_left(&fresh).await;
    count(&fresh).await;
    writer.verify(&fresh).await;
    let homes = at_home(&fresh).await;
    assert_eq!(homes.iter().sum::<i64>(), 200 + writer.truth.len() as i64, "{at}: {homes:?}");
    let map = fresh.bucket_map().await.expect("asked").expect("buckets");
    assert!(plan.moves.iter().all(|step| map.shard(step.bucket) == Some(step.to)), "{at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_stopped_at_any_step_is_resumed() {
    stream::iter(STEPS).for_each_concurrent(6, |step| stopped_at(step, true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mover_stopped_at_any_step_is_rolled_back() {
    let steps = ["preparing", "copied", "followed", "fenced", "landed", "switched"];
    stream::iter(steps).for_each_concurrent(6, |step| stopped_at(step, false)).await;
}

#[tokio::test]
async fn replicas_that_lag_are_not_read_for_what_has_just_moved() {
    let clusters = PostgresCluster::builder().replicas(1).start_shards(2).await.expect("servers");
    for cluster in &clusters {
        cluster.primary().sql(SCHEMA).await.expect("a schema");
        cluster.caught_up().await.expect("caught up");
    }
    let connect = async || {
        let mut builder = ShardedDatabase::builder()
            .table("agents", "org_id", KeyType::Text)
            .table("tasks", "org_id", KeyType::Text)
            .bucket_map(BucketMap::dealt(1).expect("a map"))
            .live_map(true)
            .pool(PoolConfig::default().min_size(0).max_size(4));
        for (shard, cluster) in clusters.iter().enumerate() {
            let (primary, replica) = (cluster.primary().url(), cluster.replica(0).url());
            builder = builder.shard_with_replicas(format!("shard_{shard}"), primary, [replica]);
        }
        builder.connect().await.expect("shards")
    };
    let db = connect().await;
    fill(&db, 20, 5).await;
    for cluster in &clusters {
        cluster.caught_up().await.expect("caught up");
        cluster.replica(0).pause_replay().await.expect("paused");
    }
    let map = db.bucket_map().await.expect("asked").expect("buckets");
    let plan = map.plan(&[0, 1]).expect("a plan");
    let session = db.session();
    let write = "UPDATE agents SET score = 99 WHERE org_id = $1 AND id = 1";
    session.execute(write, params!["org_3"]).await.expect("written");
    db.mover().run(&plan).await.expect("moved");
    for process in [&db, &connect().await] {
        process.bucket_map().await.expect("asked");
        let mut moved = 0;
        for org in 0..20 {
            let org = format!("org_{org}");
            if process.shard_for(&org).expect("a shard") != "shard_1" {
                continue;
            }
            moved += 1;
            for _ in 0..4 {
                let sql = "SELECT count(*) FROM agents WHERE org_id = $1";
                let count: Vec<i64> = process.query_as(sql, params![&org]).await.expect("read");
                assert_eq!(count, [5], "{org}");
            }
        }
        assert!(moved > 0);
        for _ in 0..4 {
            let sql = "SELECT count(*) FROM agents";
            let rows = process.query_all(sql, params![]).await.expect("counted");
            assert_eq!(rows.decode::<i64>().expect("one"), [100]);
        }
    }
    let own: Vec<i64> = session
        .query_as("SELECT score FROM agents WHERE org_id = $1 AND id = 1", params!["org_3"])
        .await
        .expect("read");
    assert_eq!(own, [99]);
    for cluster in &clusters {
        cluster.replica(0).resume_replay().await.expect("resumed");
        cluster.caught_up().await.expect("caught up");
    }
    // What has landed and was lifted out again is not read there either.
    let map = db.bucket_map().await.expect("asked").expect("buckets");
    let back = map.plan(&[0]).expect("a plan");
    let landed = |event: &MoveEvent| matches!(event, MoveEvent::Landed { rows, .. } if *rows > 0);
    run_until(db.mover(), &back, landed).await;
    clusters[0].caught_up().await.expect("caught up");
    clusters[0].replica(0).pause_replay().await.expect("paused");
    connect().await.mover().rollback().await.expect("rolled back");
    for process in [&db, &connect().await] {
        for _ in 0..4 {
            let sql = "SELECT count(*) FROM agents";
            let rows = process.query_all(sql, params![]).await.expect("counted");
            assert_eq!(rows.decode::<i64>().expect("one"), [100]);
        }
    }
    clusters[0].replica(0).resume_replay().await.expect("resumed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_wait_for_a_mover_whose_host_has_vanished() {
    let held = three().await;
    let db = process(&held, 2).await;
    fill(&db, 20, 2).await;
    let plan = few(&db, 20).await;
    let url = held[0].url();
    let (before, rest) = url.rsplit_once(':').expect("a port");
    let (port, database) = rest.split_once('/').expect("a database");
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let proxy = Arc::new(FaultProxy::start(address).await.expect("a proxy"));
    let through = format!("{before}:{}/{database}", proxy.port());
    let urls = [through, held[1].url(), held[2].url()];
    let far = builder_at(urls, 2).connect().await.expect("shards");
    let (fenced, lost) = (Arc::new(Notify::new()), Arc::clone(&proxy));
    let moving = tokio::spawn({
        let (plan, seen) = (plan.clone(), Arc::clone(&fenced));
        async move {
            let mover = far.mover().on_event(move |event| {
                if matches!(event, MoveEvent::Fenced { .. }) {
                    at_once(lost.black_hole()).expect("lost");
                    seen.notify_one();
                }
            });
            mover.run(&plan).await.map(drop)
        }
    });
    tokio::time::timeout(LIMIT, fenced.notified()).await.expect("fenced");
    for org in orgs_of(&db, 20, "shard_0") {
        let sql = "UPDATE agents SET score = 7 WHERE org_id = $1 AND id = 1";
        let written = tokio::time::timeout(LIMIT, db.execute(sql, params![&org])).await;
        assert_eq!(written.expect("in time").expect("written"), 1, "{org}");
    }
    moving.abort();
    // Its session with the target may be there a little longer than its process.
    db.mover().resume().await.expect("resumed");
    nothing_left(&db).await;
    assert_eq!(at_home(&db).await.iter().sum::<i64>(), 60);
    let sql = "SELECT count(*) FROM agents WHERE id = 1 AND score = 7";
    let written = db.query_all(sql, params![]).await.expect("counted").decode::<i64>();
    assert!(written.expect("one")[0] > 1);
}

#[tokio::test]
async fn a_target_that_takes_its_time_does_not_lose_the_source() {
    let schema = "CREATE FUNCTION fits() RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE TABLE agents (org_id text NOT NULL, id bigint, CHECK (fits()), PRIMARY KEY (org_id, id))";
    let held = databases(2, schema).await;
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .bucket_map(BucketMap::dealt(1).expect("a map"))
        .live_map(true);
    for (shard, database) in held.iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    let db = builder.connect().await.expect("shards");
    let rows: Vec<_> = (0..4_i64).map(|id| row!["org_1", id]).collect();
    let sql = "INSERT INTO agents (org_id, id) VALUES ($1, $2)";
    db.execute_many(sql, rows.iter()).await.expect("filled");
    // Longer than a mover may be silent: 5 s.
    let slow = "CREATE OR REPLACE FUNCTION fits() RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(1.6); RETURN true; END'";
    held[1].sql(slow).await.expect("slow");
    let bucket = resonant_common::hash::slot(b"org_1", 4096);
    let moves = vec![BucketMove { bucket, from: 0, to: 1 }];
    let reports = db.mover().run(&BucketPlan { epoch: 0, moves }).await.expect("moved");
    assert!(reports[0].longest_pause() > Duration::from_secs(5), "{reports:?}");
    let sql = "SELECT count(*) FROM agents";
    assert_eq!(held[1].value(sql).await.expect("counted"), "4");
    assert_eq!(held[0].value(sql).await.expect("counted"), "0");
    nothing_left(&db).await;
}
