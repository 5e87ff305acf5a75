//! The end of a pool.

use std::sync::Arc;

use resonant_db::ErrorKind;
use resonant_db::pool::testing::Answer;
use tokio::time::{Instant, sleep};

use super::{ms, pool, secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn close_lets_work_in_flight_finish_and_says_goodbye() {
    let (server, pool) = warm(sizes(3, 3)).await;
    let held = pool.get().await.expect("idle");
    let worker = tokio::spawn(async move {
        sleep(secs(1)).await;
        held.number
    });
    let waiter = tokio::spawn({
        let (pool, more) = (pool.clone(), (pool.get().await, pool.get().await));
        async move {
            let waiting = pool.get().await.map(drop);
            drop(more);
            waiting
        }
    });
    settle().await;
    let began = Instant::now();
    pool.close(secs(5)).await.expect("all came back");
    assert_eq!(began.elapsed(), secs(1));
    assert!(worker.await.is_ok());
    assert_eq!(
        waiter.await.expect("ends").err().map(|error| error.kind()),
        Some(ErrorKind::Closed)
    );
    assert_eq!(pool.get().await.err().map(|error| error.kind()), Some(ErrorKind::Closed));
    assert!(pool.try_get().is_none() && pool.is_closed());
    assert_eq!((server.counts().closes, server.counts().open), (3, 0));
    pool.close(secs(5)).await.expect("closing again is no harm");
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_close_names_who_still_holds() {
    let (server, pool) = warm(sizes(1, 1)).await;
    let held = pool.get().await.expect("idle");
    let began = Instant::now();
    let error = pool.close(secs(2)).await.expect_err("one is out");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::TimedOut, secs(2)));
    assert!(error.message().contains("close.rs:"), "{error}");
    drop(held);
    settle().await;
    assert_eq!((pool.status().total(), server.counts().open), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_close_still_closes() {
    let (server, pool) = warm(sizes(2, 2)).await;
    let held = pool.get().await.expect("idle");
    assert!(tokio::time::timeout(ms(10), pool.close(secs(5))).await.is_err());
    assert!(pool.is_closed());
    drop(held);
    settle().await;
    assert_eq!(server.counts().open, 0);
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_connects_under_way_and_stuck_goodbyes() {
    let (server, pool) = warm(sizes(1, 4)).await;
    server.on_connect(Answer::Hang);
    server.on_close(Answer::Hang);
    let held = pool.get().await.expect("idle");
    let _ = pool.get_timeout(ms(10)).await;
    assert_eq!(pool.status().connecting, 1);
    drop(held);
    let began = Instant::now();
    assert!(pool.close(secs(1)).await.is_err());
    assert_eq!(began.elapsed(), secs(1));
    settle().await;
    assert_eq!((pool.status().total(), server.counts().open), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_pool_and_its_tasks() {
    let alive = tokio::runtime::Handle::current().metrics();
    let before = alive.num_alive_tasks();
    let (server, pool) = pool(sizes(2, 8));
    server.on_connect(Answer::Hang);
    let _ = pool.get_timeout(ms(10)).await;
    assert!(alive.num_alive_tasks() > before);
    drop(pool.clone());
    settle().await;
    assert_eq!(pool.status().connecting, 2, "a clone is not the last handle");
    drop(pool);
    settle().await;
    assert_eq!(alive.num_alive_tasks(), before, "tasks are left");

    let (server, pool) = warm(sizes(2, 8)).await;
    let held = pool.get().await.expect("idle");
    drop(pool);
    settle().await;
    assert_eq!((server.counts().open, held.number > 0), (1, true), "a lent one stays usable");
    drop(held);
    settle().await;
    assert_eq!((server.counts().open, alive.num_alive_tasks()), (0, before));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_pool_outlives_it() {
    #[derive(Debug)]
    struct Watched(Arc<()>);
    impl resonant_db::pool::Manager for Watched {
        type Connection = Arc<()>;
        async fn connect(&self) -> resonant_db::Result<Arc<()>> {
            Ok(Arc::clone(&self.0))
        }
        async fn check(&self, _: &mut Arc<()>) -> resonant_db::Result<()> {
            Ok(())
        }
    }
    let watch = Arc::new(());
    let pool = super::ConnectionPool::new("main", Watched(Arc::clone(&watch)), sizes(3, 3));
    let pool = pool.expect("good settings");
    pool.warm_up().await.expect("works");
    assert_eq!(Arc::strong_count(&watch), 5);
    drop(pool);
    settle().await;
    assert_eq!(Arc::strong_count(&watch), 1, "a cycle keeps the pool alive");
}
