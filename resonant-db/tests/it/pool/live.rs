//! Changes to a pool in service.

use resonant_db::ErrorKind;
use resonant_db::pool::testing::Answer;
use tokio::time::sleep;

use super::{ms, secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn retired_connections_go_wherever_they_are() {
    let (server, pool) = warm(sizes(4, 6)).await;
    let (busy, spared) = (pool.get().await.expect("idle"), pool.get().await.expect("idle"));
    let spared_number = spared.number;
    server.on_connect(Answer::WorkAfter(secs(1)));
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.get().await.map(|connection| connection.number) })
        })
        .collect();
    settle().await;
    assert_eq!(pool.status().connecting, 1);
    sleep(ms(10)).await;
    // Idle ones are 1 and 2 or so; the one being opened is number 5.
    let numbers: Vec<_> = (1..=5).filter(|number| *number != spared_number).collect();
    pool.retire(move |connection| numbers.contains(&connection.number));
    settle().await;
    drop((busy, spared));
    sleep(secs(5)).await;
    for waiter in waiters {
        assert!(waiter.await.expect("ends").is_ok());
    }
    let mut numbers = Vec::new();
    let mut held = Vec::new();
    while let Some(connection) = pool.try_get() {
        numbers.push(connection.number);
        held.push(connection);
    }
    assert!(numbers.contains(&spared_number), "{numbers:?} lost {spared_number}");
    assert!(numbers.iter().all(|number| *number > 5 || *number == spared_number), "{numbers:?}");
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
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(pool.get().await.expect("room"));
    }
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
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get_timeout(secs(1)).await.map(drop) }
    });
    settle().await;
    pool.resize(1, 2).expect("good sizes");
    assert!(waiter.await.expect("ends").is_ok());
}
