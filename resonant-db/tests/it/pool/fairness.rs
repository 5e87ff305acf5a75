//! First come, first served.

use std::sync::{Arc, Mutex};

use super::{secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_they_came_also_when_some_leave() {
    let (_, pool) = warm(sizes(1, 1)).await;
    for round in 0..20_usize {
        let held = pool.get().await.expect("idle");
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for label in 0..64 {
            let (pool, served) = (pool.clone(), Arc::clone(&served));
            tasks.push(tokio::spawn(async move {
                let connection = pool.get().await.expect("in time");
                served.lock().expect("whole").push(label);
                tokio::task::yield_now().await;
                drop(connection);
            }));
            settle().await;
        }
        assert_eq!(pool.status().waiting, 64);
        let leaves = |label: usize| label % 7 == round % 7;
        for (label, task) in tasks.iter().enumerate() {
            if leaves(label) {
                task.abort();
            }
        }
        settle().await;
        drop(held);
        for task in tasks {
            let _ = task.await;
        }
        let expected: Vec<_> = (0..64).filter(|label| !leaves(*label)).collect();
        assert_eq!(*served.lock().expect("whole"), expected, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_a_waiter_that_has_not_picked_up_yet() {
    let (_, pool) = warm(sizes(1, 1)).await;
    let held = pool.get().await.expect("idle");
    let waiter = super::queue_up(&pool).await;
    drop(held);
    assert!(pool.try_get().is_none(), "overtook the waiter");
    assert!(waiter.await.expect("ends").is_ok());
    assert!(pool.try_get().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_waits_takes_what_comes_back_first_not_what_was_opened_for_them() {
    let (server, pool) = warm(sizes(1, 2)).await;
    server.on_connect(resonant_db::pool::testing::Answer::WorkAfter(secs(1)));
    let held = pool.get().await.expect("idle");
    let began = tokio::time::Instant::now();
    let waiter = super::queue_up(&pool).await;
    assert_eq!(pool.status().connecting, 1);
    drop(held);
    assert_eq!(waiter.await.expect("ends").expect("served"), 1);
    assert!(began.elapsed() < secs(1));
}
