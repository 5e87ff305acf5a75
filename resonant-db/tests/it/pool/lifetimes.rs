//! Idleness and age.

use std::collections::VecDeque;

use tokio::time::{Instant, sleep};

use super::{ms, secs, sizes, warm};

#[tokio::test(start_paused = true)]
async fn min_size_is_never_cut_by_idleness() {
    let config = sizes(1, 10).max_idle_time(secs(1)).max_lifetime(secs(10_000));
    let (server, pool) = warm(config).await;
    sleep(secs(60)).await;
    assert_eq!(server.counts().opened, 1, "reconnected");
    assert_eq!(pool.status().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_has_grown_shrinks_again_under_light_load() {
    let (server, pool) = warm(sizes(2, 10).max_idle_time(secs(5))).await;
    let held = super::hold(&pool, 10).await;
    drop(held);
    assert_eq!(pool.status().idle, 10);
    for _ in 0..70 {
        drop(pool.get().await.expect("idle"));
        sleep(ms(100)).await;
    }
    assert_eq!(pool.status().idle, 2);
    assert_eq!((server.counts().opened, server.counts().closes), (10, 8));
}

#[tokio::test(start_paused = true)]
async fn connections_opened_together_do_not_go_together_and_are_replaced_first() {
    let (server, pool) = warm(sizes(50, 60).max_lifetime(secs(5))).await;
    let (mut window, mut last) = (VecDeque::new(), server.counts().closes);
    let began = Instant::now();
    while began.elapsed() < secs(30) {
        let closes = server.counts().closes;
        window.push_back(closes - last);
        last = closes;
        if window.len() > 10 {
            window.pop_front();
        }
        let retired: u64 = window.iter().sum();
        assert!(retired <= 5, "{retired} of 50 retired within 100 ms");
        assert!(pool.status().open() >= 50, "{:?}", pool.status());
        drop(pool.get().await.expect("served at once"));
        sleep(ms(10)).await;
    }
    let closes = server.counts().closes;
    assert!(closes >= 200, "only {closes} retired in six lifetimes");
    assert!(server.counts().most_open <= 60);
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_past_its_age_goes_when_it_comes_back() {
    let (server, pool) = warm(sizes(1, 1).max_lifetime(secs(5))).await;
    let held = pool.get().await.expect("idle");
    sleep(secs(20)).await;
    assert_eq!(server.counts().opened, 1);
    drop(held);
    let fresh = pool.get().await.expect("a new one");
    assert_eq!(fresh.number, 2);
}
