//! Buckets that come back to a shard that has had them before, and who notices that others move.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use resonant_db::backend::Isolation;
use resonant_db::sharding::{BucketMove, BucketPlan, MoveEvent};
use resonant_db::{TransactionOptions, params};
use tokio::time::timeout;

use super::super::LIMIT;
use super::{at_home, few, fill, nothing_left, orgs_of, process, run_until, three};

/// The same buckets, the other way.
fn back(plan: &BucketPlan) -> BucketPlan {
    let moves = plan.moves.iter();
    let moves = moves.map(|step| BucketMove { from: step.to, to: step.from, ..*step }).collect();
    BucketPlan { epoch: plan.epoch, moves }
}

#[tokio::test]
async fn a_bucket_that_comes_back_is_written_where_it_is_until_it_has_come() {
    let held = three().await;
    let db = process(&held, 2).await;
    fill(&db, 40, 4).await;
    let there = few(&db, 40).await;
    // What numbers rows there may have another name.
    held[2].sql("ALTER SEQUENCE tasks_n_seq RENAME TO numbers").await.expect("renamed");
    db.mover().run(&there).await.expect("moved");
    let moved = orgs_of(&db, 40, "shard_2");
    assert!(!moved.is_empty());
    let highest = held[2].value("SELECT max(n) FROM tasks").await.expect("the highest");
    let last = held[2].value("SELECT last_value FROM numbers WHERE is_called").await;
    assert_eq!(last.expect("in use"), highest);
    let landed = |event: &MoveEvent| matches!(event, MoveEvent::Landed { .. });
    run_until(db.mover(), &back(&there), landed).await;
    // It was given the map from before the first move, and asks the first owner first.
    let fresh = process(&held, 2).await;
    for org in &moved {
        let sql = "INSERT INTO agents (org_id, id, score) VALUES ($1, 50, 1)";
        assert_eq!(fresh.execute(sql, params![org]).await.expect("written"), 1);
        let sql = "UPDATE agents SET score = 100 WHERE org_id = $1 AND id = 1";
        assert_eq!(fresh.execute(sql, params![org]).await.expect("written"), 1);
        assert_eq!(fresh.shard_for(org).expect("a shard"), "shard_2");
        // Whoever has an even older map is refused.
        let sql = format!("INSERT INTO agents (org_id, id, score) VALUES ('{org}', 51, 1)");
        let error = held[0].sql(&sql).await.expect_err("it has not come back yet");
        assert!(error.to_string().contains("has moved to shard_2"), "{error}");
    }
    let process = process(&held, 2).await;
    process.mover().rollback().await.expect("rolled back");
    for (round, shard) in ["shard_2", "shard_0"].into_iter().enumerate() {
        if round > 0 {
            process.mover().run(&back(&there)).await.expect("moved back");
        }
        nothing_left(&process).await;
        assert_eq!(at_home(&process).await.iter().sum::<i64>(), 200 + moved.len() as i64);
        for org in &moved {
            let sql = "SELECT id, score FROM agents WHERE org_id = $1 AND id IN (1, 50) ORDER BY 1";
            let found: Vec<(i64, i64)> = fresh.query_as(sql, params![org]).await.expect("read");
            assert_eq!(found, [(1, 100), (50, 1)], "{org} in {shard}");
            assert_eq!(process.shard_for(org).expect("a shard"), shard);
        }
    }
}

#[tokio::test]
async fn a_transaction_is_run_again_when_its_own_bucket_moves_and_for_no_other() {
    let held = three().await;
    let (db, other) = (process(&held, 2).await, process(&held, 2).await);
    fill(&db, 20, 2).await;
    let there = few(&db, 20).await;
    let before = orgs_of(&db, 20, "shard_0");
    let runs = AtomicU32::new(0);
    for (moves, expected) in [(false, 1), (true, 2)] {
        let plan = if moves { back(&there) } else { there.clone() };
        let org = match moves {
            false => {
                let bucket = |org: &String| resonant_common::hash::slot(org.as_bytes(), 4096);
                let stays =
                    |org: &&String| there.moves.iter().all(|step| step.bucket != bucket(org));
                before.iter().find(stays).expect("one that stays").clone()
            }
            true => {
                db.bucket_map().await.expect("asked");
                orgs_of(&db, 20, "shard_2").remove(0)
            }
        };
        runs.store(0, Ordering::Relaxed);
        let (runs, org, plan, other) = (&runs, &org, &plan, &other);
        let seen = db.transaction(org, async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            let sql = "SELECT score FROM agents WHERE org_id = $1 AND id = 1";
            let seen: Vec<i64> = tx.query_as(sql, params![org]).await?;
            Box::pin(other.mover().run(plan)).await.expect("moved");
            let sql = "UPDATE agents SET score = $2 WHERE org_id = $1 AND id = 1";
            tx.execute(sql, params![org, seen[0] + 10]).await?;
            Ok(seen[0])
        });
        assert_eq!(seen.await.expect("committed"), 1, "{org}");
        assert_eq!(runs.load(Ordering::Relaxed), expected, "{org}");
        let sql = "SELECT score FROM agents WHERE org_id = $1 AND id = 1";
        let now: Vec<i64> = db.query_as(sql, params![org]).await.expect("read");
        assert_eq!(now, [11], "{org}");
        assert_eq!(db.shard_for(org).expect("a shard"), "shard_0");
    }
    nothing_left(&db).await;
}

#[tokio::test]
async fn a_transaction_with_an_old_snapshot_holds_up_no_move_to_its_shard() {
    let held = three().await;
    let db = process(&held, 2).await;
    fill(&db, 20, 2).await;
    let there = few(&db, 20).await;
    db.mover().run(&there).await.expect("moved");
    let (org, shard) = (orgs_of(&db, 20, "shard_0").remove(0), db.shard("shard_0"));
    let options = TransactionOptions::default().isolation(Isolation::RepeatableRead);
    let (db, org, there) = (&db, &org, &back(&there));
    let written = shard.expect("a shard").transaction_with(options, async |tx| {
        let sql = "UPDATE agents SET score = 9 WHERE org_id = $1 AND id = 1";
        tx.execute(sql, params![org]).await?;
        let moved = timeout(LIMIT, Box::pin(db.mover().run(there))).await;
        moved.expect("it waits for nobody").expect("moved back");
        Ok(())
    });
    written.await.expect("committed");
    // It was in the way of those who take the triggers away when all has come back.
    db.mover().release().await.expect("released");
    nothing_left(db).await;
    let homes = at_home(db).await;
    assert_eq!((homes.iter().sum::<i64>(), homes[2]), (60, 0), "{homes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_written_all_the_time_moves() {
    let held = three().await;
    let (db, other) = (process(&held, 2).await, process(&held, 2).await);
    fill(&db, 20, 2).await;
    let mut plan = few(&db, 20).await;
    plan.moves.truncate(1);
    let bucket = |org: &String| resonant_common::hash::slot(org.as_bytes(), 4096);
    let org = orgs_of(&db, 20, "shard_0");
    let org = org.into_iter().find(|org| bucket(org) == plan.moves[0].bucket).expect("one");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (db, org, stop) = (other.clone(), org.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    let sql = "UPDATE agents SET score = score + 1 WHERE org_id = $1 AND id = 1";
                    assert_eq!(db.execute(sql, params![&org]).await.expect("written"), 1);
                    written += 1;
                }
                written
            })
        })
        .collect();
    let gave_way = Arc::new(AtomicU32::new(0));
    let heard = Arc::clone(&gave_way);
    let mover = db.mover().attempts(20).on_event(move |event| {
        if event == MoveEvent::GaveWay {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    });
    let reports = mover.run(&plan).await;
    stop.store(true, Ordering::Relaxed);
    let mut written: i64 = 0;
    for writer in writers {
        written += writer.await.expect("no client error");
    }
    println!("FIGURE sharding.move.steady gave way {gave_way:?} times: {reports:?}");
    reports.expect("moved");
    let sql = "SELECT score FROM agents WHERE org_id = $1 AND id = 1";
    let score: Vec<i64> = db.query_as(sql, params![&org]).await.expect("read");
    assert_eq!(score, [1 + written]);
    assert_eq!(db.shard_for(&org).expect("a shard"), "shard_2");
    nothing_left(&db).await;
}
