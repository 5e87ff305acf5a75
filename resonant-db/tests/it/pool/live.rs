//! Changes to a pool in service.

use resonant_db::ErrorKind;
use resonant_db::pool::testing::Answer;
use tokio::time::sleep;

use super::{ms, secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn retired_connections_go_wherever_they_are() {
    let (server, pool) = warm(sizes(4, 6)).await;
    let mut held = super::hold(&pool, 4).await;
    server.on_connect(Answer::WorkAfter(secs(1)));
    let waiter = super::queue_up(&pool).await;
    let (spared, busy) = (held.remove(0), held.remove(0));
    let number = spared.number;
    drop(held);
    assert!(waiter.await.expect("ends").is_ok());
    let status = pool.status();
    assert_eq!((status.idle, status.busy, status.connecting), (2, 2, 1));

    // Number 5 is the one being opened.
    pool.retire(move |connection| connection.number != number && connection.number <= 5);
    assert_eq!(pool.status().idle, 0);
    drop((busy, spared));
    sleep(secs(9)).await;
    let left: Vec<_> = std::iter::from_fn(|| pool.try_get()).collect();
    let numbers: Vec<_> = left.iter().map(|connection| connection.number).collect();
    assert!(numbers.contains(&number), "{numbers:?} lost {number}");
    assert!(numbers.iter().all(|other| *other > 5 || *other == number), "{numbers:?}");
    assert!(numbers.len() >= 4, "{numbers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_predicate_that_panics_loses_no_connection() {
    let (_, pool) = warm(sizes(3, 3)).await;
    let copy = pool.clone();
    let retired = tokio::spawn(async move {
        copy.retire(|connection| {
            assert!(connection.number != 2, "on purpose");
            false
        });
    });
    assert!(retired.await.is_err());
    settle().await;
    assert_eq!(pool.status().total(), 3, "{:?}", pool.status());
}

#[tokio::test(start_paused = true)]
async fn sizes_change_without_dropping_what_is_in_use() {
    let (server, pool) = warm(sizes(1, 4)).await;
    let held = super::hold(&pool, 4).await;
    pool.resize(1, 2).expect("good sizes");
    assert_eq!(pool.status().busy, 4, "taken from a holder");
    drop(held);
    settle().await;
    assert_eq!((pool.status().open(), server.counts().open), (2, 2));
    pool.resize(6, 8).expect("good sizes");
    sleep(ms(1)).await;
    assert_eq!(pool.status().idle, 6);
    pool.resize(1, 3).expect("good sizes");
    sleep(ms(1)).await;
    assert_eq!(pool.status().idle, 3);
    let error = pool.resize(9, 3).expect_err("bad sizes");
    assert_eq!((error.kind(), pool.status().max_size), (ErrorKind::Config, 3));
}

#[tokio::test(start_paused = true)]
async fn raising_the_limit_serves_those_who_wait() {
    let (_, pool) = warm(sizes(1, 1)).await;
    let _held = pool.get().await.expect("idle");
    let waiter = super::queue_up(&pool).await;
    pool.resize(1, 2).expect("good sizes");
    assert!(waiter.await.expect("ends").is_ok());
}
