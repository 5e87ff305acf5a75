//! Connections that die while idle.

use resonant_db::pool::testing::Answer;
use tokio::time::sleep;

use super::{ms, secs, sizes, warm};

#[tokio::test(start_paused = true)]
async fn idle_connections_killed_unseen_are_replaced_within_one_interval() {
    let (server, pool) = warm(sizes(20, 20).health_check_interval(secs(30))).await;
    sleep(secs(5)).await;
    server.cut(false);
    sleep(secs(30)).await;
    assert_eq!(server.counts().opened, 40);
    for _ in 0..20 {
        assert!(!pool.get().await.expect("idle").is_cut());
    }
}

#[tokio::test(start_paused = true)]
async fn no_caller_meets_a_connection_that_is_known_to_be_dead() {
    let (server, pool) = warm(sizes(8, 8)).await;
    server.cut(true);
    let connection = pool.get().await.expect("a new one");
    assert!(!connection.is_cut());
    sleep(secs(1)).await;
    assert_eq!((pool.status().open(), server.counts().opened), (8, 16));
}

#[tokio::test(start_paused = true)]
async fn checks_leave_busy_connections_alone_and_wait_no_longer_than_their_deadline() {
    let config = sizes(2, 2).health_check_interval(secs(10)).health_check_timeout(secs(1));
    let (server, pool) = warm(config).await;
    let held = pool.get().await.expect("idle");
    sleep(secs(100)).await;
    let checks = server.counts().checks;
    assert!((9..=13).contains(&checks), "{checks} checks of one idle connection in 100 s");
    server.on_check(Answer::Hang);
    sleep(secs(12)).await;
    assert!(server.counts().opened >= 3, "the stuck one was not replaced");
    drop(held);
    assert_eq!(pool.status().open(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_check_costs_the_connection_and_nothing_else() {
    let (server, pool) = warm(sizes(1, 1).health_check_interval(secs(10))).await;
    server.on_check(Answer::Panic);
    sleep(secs(10)).await;
    server.on_check(Answer::Work);
    sleep(ms(1100)).await;
    assert_eq!(pool.get().await.expect("a new one").number, 2);
}
