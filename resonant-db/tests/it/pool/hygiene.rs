//! What comes back and in which state.

use resonant_db::ErrorKind;
use resonant_db::pool::testing::Answer;
use tokio::time::{Instant, sleep};

use super::{ms, secs, settle, sizes, warm};

#[tokio::test(start_paused = true)]
async fn a_dirty_connection_is_cleaned_off_the_callers_path() {
    let (server, pool) = warm(sizes(1, 1)).await;
    server.on_clean(Answer::WorkAfter(ms(50)));
    let began = Instant::now();
    pool.get().await.expect("idle").dirty = true;
    assert_eq!(began.elapsed(), ms(0));
    assert_eq!(pool.status().cleaning, 1);
    let next = pool.get().await.expect("after cleaning");
    assert!(!next.dirty && next.number == 1);
    assert_eq!(began.elapsed(), ms(50));
    assert_eq!(server.counts().cleans, 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_cleaned_is_replaced() {
    for answer in [Answer::Refuse(ErrorKind::Unavailable), Answer::Hang, Answer::Panic] {
        let (server, pool) = warm(sizes(1, 1).clean_timeout(secs(2))).await;
        server.on_clean(answer);
        pool.get().await.expect("idle").dirty = true;
        let next = pool.get().await.expect("a new one");
        assert_eq!((next.number, server.counts().open), (2, 1), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_in_progress_counts_against_the_limit_until_its_deadline() {
    let (server, pool) = warm(sizes(0, 1).clean_timeout(secs(2))).await;
    server.on_close(Answer::Hang);
    pool.get().await.expect("opened").discard();
    settle().await;
    assert_eq!(pool.status().closing, 1);
    let began = Instant::now();
    assert_eq!(pool.get().await.expect("after the close").number, 2);
    assert_eq!((began.elapsed(), server.counts().most_open), (secs(2), 1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_panics_gives_the_connection_back() {
    let (_, pool) = warm(sizes(1, 1)).await;
    let holder = tokio::spawn({
        let pool = pool.clone();
        async move {
            let _held = pool.get().await;
            panic!("on purpose");
        }
    });
    assert!(holder.await.is_err());
    assert!(pool.try_get().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_detached_connection_is_no_longer_the_pools() {
    let (server, pool) = warm(sizes(1, 1)).await;
    let mine = pool.get().await.expect("idle").detach();
    assert_eq!(pool.get().await.expect("a new one").number, 2);
    assert_eq!(server.counts().open, 2);
    drop(mine);
    sleep(ms(1)).await;
    assert_eq!(server.counts().open, 1);
}
