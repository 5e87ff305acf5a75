//! Futures dropped at every await, and many of them at random.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use resonant_db::ErrorKind;
use resonant_db::pool::testing::Answer;

use super::{ms, pool, secs, settle, sizes, warm};

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_dropped_get_leaves_nothing_behind_at_any_await() {
    // Before the first poll, in the queue, and with a connection handed over but not picked up.
    let (_, pool) = warm(sizes(1, 1)).await;
    drop(pool.get());
    let held = pool.get().await.expect("idle");
    {
        let mut get = pin!(pool.get());
        assert!(poll_once(get.as_mut()).is_pending());
        assert_eq!(pool.status().waiting, 1);
    }
    assert_eq!(pool.status().waiting, 0);
    {
        let mut first = pin!(pool.get());
        assert!(poll_once(first.as_mut()).is_pending());
        drop(held);
        assert_eq!(pool.status().busy, 1, "handed over");
    }
    assert_eq!((pool.status().busy, pool.status().idle), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_waiter_was_handed_goes_to_the_next() {
    let (_, pool) = warm(sizes(1, 1)).await;
    let held = pool.get().await.expect("idle");
    let mut second = Box::pin(pool.get());
    let mut first = Box::pin(pool.get());
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(held);
    drop(first);
    assert!(poll_once(second.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_get_dropped_while_its_connection_is_opened_leaves_the_connection_to_the_pool() {
    let (server, pool) = pool(sizes(0, 1));
    server.on_connect(Answer::WorkAfter(secs(1)));
    assert!(tokio::time::timeout(ms(10), pool.get()).await.is_err());
    tokio::time::sleep(secs(2)).await;
    assert_eq!((pool.status().idle, server.counts().open), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn accounting_survives_a_storm_of_dropped_gets_and_failing_connects() {
    let config = sizes(2, 8).max_lifetime(secs(3)).max_idle_time(ms(300));
    let (server, pool) = pool(config.health_check_interval(ms(200)));
    let mut chance = StdRng::seed_from_u64(11);
    for round in 0..400_u32 {
        let connect = match chance.random_range(0..6) {
            0 => Answer::Refuse(ErrorKind::Unavailable),
            1 => Answer::Hang,
            2 => Answer::Panic,
            n => Answer::WorkAfter(ms(n)),
        };
        server.on_connect(if round > 390 { Answer::Work } else { connect });
        let check =
            if chance.random_bool(0.1) { ErrorKind::Unavailable } else { ErrorKind::Closed };
        server.on_check(match check {
            ErrorKind::Closed => Answer::WorkAfter(ms(1)),
            kind => Answer::Refuse(kind),
        });
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let (pool, patience) = (pool.clone(), ms(chance.random_range(0..12)));
                let (hold, fate) = (ms(chance.random_range(0..6)), chance.random_range(0..20));
                tokio::spawn(async move {
                    let work = async {
                        let Ok(mut connection) = pool.get().await else { return };
                        tokio::time::sleep(hold).await;
                        match fate {
                            0 => connection.broken = true,
                            1 => connection.dirty = true,
                            2 => return drop(connection.detach()),
                            3 => return connection.discard(),
                            _ => {}
                        }
                        drop(connection);
                    };
                    let _ = tokio::time::timeout(patience, work).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let status = pool.status();
        assert_eq!((status.busy, status.waiting), (0, 0), "round {round}: {status:?}");
        assert!(status.total() <= 8, "round {round}: {status:?}");
    }
    tokio::time::sleep(secs(10)).await;
    settle().await;
    let (status, counts) = (pool.status(), server.counts());
    assert_eq!(u64::from(status.total()), counts.open, "{status:?} {counts:?}");
    assert!(counts.most_open <= 8 + 32, "detached ones apart, the limit holds: {counts:?}");
    let held = super::hold(&pool, 8).await;
    drop(held);
    pool.close(secs(1)).await.expect("nothing is out");
    assert_eq!(server.counts().open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_slot_is_lost_when_gets_are_dropped_on_many_threads() {
    let (server, pool) = warm(sizes(4, 4)).await;
    let tasks: Vec<_> = (0..64_u64)
        .map(|seed| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut chance = StdRng::seed_from_u64(seed);
                for _ in 0..1500 {
                    let patience = chance.random_range(0..4_u32);
                    let give_up = async {
                        for _ in 0..patience {
                            tokio::task::yield_now().await;
                        }
                    };
                    let connection = tokio::select! {
                        biased;
                        connection = pool.get() => connection.expect("in time"),
                        () = give_up => continue,
                    };
                    match chance.random_range(0..50) {
                        0 => connection.discard(),
                        1 => drop(connection.detach()),
                        n if n < 25 => tokio::task::yield_now().await,
                        _ => {}
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let held = super::hold(&pool, 4).await;
    let status = pool.status();
    assert_eq!((status.busy, status.waiting, status.total()), (4, 0, 4), "{status:?}");
    drop(held);
    assert_eq!(server.counts().open, 4);
}
