//! What callers who get nothing are told.

use resonant_db::ErrorKind;
use resonant_db::pool::testing::Answer;
use tokio::time::{Instant, sleep};

use super::{ms, pool, secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn a_timeout_names_what_the_connections_did_and_the_oldest_holders() {
    let (_, pool) = warm(sizes(4, 4)).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.get().await.expect("idle"));
        sleep(secs(1)).await;
    }
    let began = Instant::now();
    let error = pool.get_timeout(secs(2)).await.expect_err("all are out");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Overloaded, secs(2)));
    let text = error.message();
    let facts =
        "\"main\" had no connection free within 2s: 4 of 4 busy, 0 idle, 0 being opened, 1 waiting";
    assert!(text.contains(facts), "{text}");
    assert_eq!(text.matches("errors.rs:").count(), 3, "{text}");
    assert!(text.contains("for 6.0s, ") && text.contains("for 4.0s"), "{text}");
    assert_eq!((pool.status().timeouts, pool.status().waiting), (1, 0));
    assert_eq!(pool.holders().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_beside_failing_connects_names_their_cause_too() {
    let (server, pool) = warm(sizes(1, 4)).await;
    let _held = pool.get().await.expect("idle");
    server.on_connect(Answer::Refuse(ErrorKind::Overloaded));
    let error = pool.get_timeout(secs(2)).await.expect_err("cannot grow");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(
        error.message().contains("opening another fails: the scripted server refuses"),
        "{error}"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let (_, pool) = warm(sizes(1, 1).max_waiting(2)).await;
    let _held = pool.get().await.expect("idle");
    for _ in 0..2 {
        let pool = pool.clone();
        tokio::spawn(async move { pool.get().await.map(drop) });
    }
    settle().await;
    let began = Instant::now();
    let error = pool.get().await.expect_err("the queue is full");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Overloaded, ms(0)));
    assert!(error.message().contains("2 callers waiting already"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn findings_say_what_is_wrong() {
    let codes = |pool: &super::Pool| -> Vec<_> {
        pool.findings().iter().map(|finding| finding.code).collect()
    };
    let (server, pool) = pool(sizes(1, 1).leak_warning_after(secs(60)));
    server.on_connect(Answer::Refuse(ErrorKind::Rejected));
    let _ = pool.get().await;
    assert_eq!(codes(&pool), ["db.pool.unreachable"]);
    server.on_connect(Answer::Work);
    sleep(secs(10)).await;
    assert_eq!(codes(&pool), ["db.pool.ok"]);
    let held = pool.get().await.expect("idle");
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get_timeout(secs(100)).await.map(drop) }
    });
    sleep(secs(61)).await;
    assert_eq!(codes(&pool), ["db.pool.saturated", "db.pool.leak"]);
    drop(held);
    assert!(waiter.await.expect("ends").is_ok());
    pool.close(secs(1)).await.expect("nothing is out");
    assert_eq!(codes(&pool), ["db.pool.closed"]);
}
