//! Opening connections: how many, how fast, and what happens when it fails.

use std::sync::Arc;

use resonant_db::ErrorKind;
use resonant_db::pool::testing::{Answer, Scripted};
use resonant_db::pool::{ConnectionPool, PoolConfig};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};

use super::{ms, pool, secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn a_burst_is_served_by_few_connections() {
    let (server, pool) = warm(sizes(5, 50)).await;
    server.on_connect(Answer::WorkAfter(ms(150)));
    let (began, barrier) = (Instant::now(), Arc::new(Barrier::new(50)));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (pool, barrier) = (pool.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let connection = pool.get().await.expect("served");
                sleep(ms(2)).await;
                drop(connection);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("ends");
    }
    assert!(began.elapsed() <= ms(40), "took {:?}", began.elapsed());
    sleep(secs(1)).await;
    let counts = server.counts();
    assert!(counts.opened <= 7, "{counts:?}");
    assert_eq!(counts.most_connecting, 2);
}

#[tokio::test(start_paused = true)]
async fn min_size_is_filled_in_the_background_and_again_after_a_loss() {
    let (server, pool) = pool(sizes(5, 10));
    server.on_connect(Answer::WorkAfter(ms(1)));
    sleep(ms(10)).await;
    assert_eq!((pool.status().idle, server.counts().most_connecting), (5, 2));
    for _ in 0..3 {
        pool.get().await.expect("idle").discard();
    }
    drop(pool.get().await.expect("idle").detach());
    sleep(ms(10)).await;
    assert_eq!(pool.status().idle, 5);
    assert_eq!(server.counts().opened, 9);
}

#[tokio::test]
async fn a_pool_made_outside_of_a_runtime_opens_with_the_first_call() {
    let server = Scripted::new();
    let made = std::thread::spawn({
        let server = server.clone();
        move || ConnectionPool::new("main", server, PoolConfig::default().min_size(1))
    });
    let pool = made.join().expect("no panic").expect("good settings");
    assert_eq!(server.counts().connects, 0);
    pool.get().await.expect("opened");
}

#[test]
fn a_pool_goes_on_when_the_runtime_it_was_made_on_has_ended() {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let (server, first) = (Scripted::new(), runtime());
    let pool = first.block_on(async {
        let config = sizes(2, 2).acquire_timeout(secs(5));
        let pool = ConnectionPool::new("main", server.clone(), config).expect("good settings");
        pool.warm_up().await.expect("works");
        server.on_connect(Answer::Hang);
        pool.get().await.expect("idle").discard();
        settle().await;
        assert_eq!(pool.status().connecting, 1);
        pool
    });
    drop(first);
    assert_eq!(pool.status().connecting, 0, "the lost connect is given up");
    server.on_connect(Answer::Work);
    runtime().block_on(async {
        let (one, two) = (pool.get().await, pool.get().await);
        assert!(one.is_ok() && two.is_ok(), "{:?} {:?}", one.err(), two.err());
    });
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_is_named_within_a_second() {
    for kind in [ErrorKind::Rejected, ErrorKind::Unavailable, ErrorKind::Overloaded] {
        let (server, pool) = pool(sizes(1, 4));
        server.on_connect(Answer::Refuse(kind));
        let began = Instant::now();
        let error = pool.get().await.expect_err("nobody can connect");
        assert!(began.elapsed() < secs(1), "{kind:?} took {:?}", began.elapsed());
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains("the scripted server refuses"), "{error}");
        assert!(error.retry_after().is_some_and(|after| after <= secs(5)));
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert!(source.is_some_and(|text| text.starts_with("connect:")));
        let warm = pool.warm_up().await.expect_err("cannot be warm");
        assert_eq!(warm.kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_not_noticed_and_a_long_one_is_probed_sparingly() {
    let (server, pool) = pool(sizes(0, 4));
    server.on_connect(Answer::Refuse(ErrorKind::Unavailable));
    let waiter = super::queue_up(&pool).await;
    sleep(ms(200)).await;
    server.on_connect(Answer::Work);
    assert!(waiter.await.expect("ends").is_ok(), "a blip reached a caller");

    drop(pool);
    let (server, pool) = super::pool(sizes(1, 4));
    server.on_connect(Answer::Refuse(ErrorKind::Unavailable));
    let began = Instant::now();
    while began.elapsed() < secs(60) {
        let _ = pool.get().await;
        sleep(ms(1)).await;
    }
    let connects = server.counts().connects;
    assert!((10..=40).contains(&connects), "{connects} attempts in a minute");
    server.on_connect(Answer::Work);
    sleep(secs(5)).await;
    pool.get().await.expect("found again by itself");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_ends_by_the_connect_deadline_and_heals() {
    let (server, pool) = pool(sizes(0, 4).connect_timeout(secs(3)));
    server.on_connect(Answer::Hang);
    let began = Instant::now();
    let error = pool.get().await.expect_err("nobody answers");
    assert_eq!((error.kind(), began.elapsed().as_secs()), (ErrorKind::TimedOut, 3));
    assert!(error.message().contains("connect_timeout (3s)"), "{error}");
    let error = pool.get_timeout(ms(500)).await.expect_err("nobody answers");
    assert!(matches!(error.kind(), ErrorKind::TimedOut), "{error}");
    server.on_connect(Answer::Work);
    sleep(secs(4)).await;
    pool.get().await.expect("all slots are free again");
    assert_eq!(pool.status().connecting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_driver_costs_a_connect_and_nothing_else() {
    let (server, pool) = pool(sizes(0, 1));
    server.on_connect(Answer::Panic);
    let error = pool.get().await.expect_err("it panics");
    assert!(error.message().contains("panicked"), "{error}");
    server.on_connect(Answer::Work);
    sleep(secs(5)).await;
    pool.get().await.expect("the slot is free again");
}
