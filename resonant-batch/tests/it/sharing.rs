//! Equal items share one run.

use futures::future::join_all;
use resonant_batch::{BatchProcessor, ErrorKind};

use crate::support::{Script, settle};

#[tokio::test(start_paused = true)]
async fn equal_items_share_a_run_queued_or_running() {
    let script = Script::held();
    let batch = script.builder().max_in_flight(1).single_flight(|item| *item).build().unwrap();
    let running = batch.try_submit(1).unwrap();
    settle().await;
    let queued = batch.try_submit(2).unwrap();
    let joined =
        [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap(), batch.try_submit(2).unwrap()];
    assert_eq!(batch.stats().queued, 1);
    script.release(2);
    assert_eq!((running.await.unwrap(), queued.await.unwrap()), (1001, 1002));
    let joined: Vec<_> = join_all(joined).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(joined, [1001, 1002, 1002]);
    assert_eq!(script.calls(), [[1], [2]]);
    script.release(1);
    batch.submit(1).await.unwrap();
    assert_eq!(script.calls().len(), 3, "a flight that is over is not joined");
}

#[tokio::test(start_paused = true)]
async fn an_item_goes_only_with_the_last_who_waits_for_it() {
    let script = Script::held();
    let batch = script.builder().max_in_flight(1).single_flight(|item| *item).build().unwrap();
    let _running = batch.try_submit(0).unwrap();
    settle().await;
    let (leader, follower) = (batch.try_submit(1).unwrap(), batch.try_submit(1).unwrap());
    let both = [batch.try_submit(2).unwrap(), batch.try_submit(2).unwrap()];
    drop(leader);
    drop(both);
    assert_eq!(batch.stats().queued, 1);
    // The flight of 2 ended with those who left: the next one is on its own.
    let again = batch.try_submit(2).unwrap();
    script.release(2);
    assert_eq!((follower.await.unwrap(), again.await.unwrap()), (1001, 1002));
    assert_eq!(script.items(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn joining_needs_no_room_in_the_queue() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(1).max_queued(1).max_in_flight(1);
    let batch = batch.single_flight(|item| *item).build().unwrap();
    let submitted = [batch.try_submit(1).unwrap(), {
        settle().await;
        batch.try_submit(2).unwrap()
    }];
    assert_eq!(batch.try_submit(3).unwrap_err().error.kind(), ErrorKind::Overloaded);
    let joined = [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap()];
    script.release(2);
    for submitted in submitted.into_iter().chain(joined) {
        submitted.await.unwrap();
    }
    assert_eq!(script.items(), [1, 2]);
}

#[tokio::test]
async fn errors_are_shared_and_keys_are_not() {
    let batch = BatchProcessor::keyed(async move |key: u8, items: Vec<u8>| {
        tokio::task::yield_now().await;
        items
            .into_iter()
            .map(|item| if item == 0 { Err("zero") } else { Ok((key, item)) })
            .collect::<Vec<_>>()
    })
    .single_flight(|item| *item)
    .build()
    .unwrap();
    let zero = join_all((0..3).map(|_| batch.with_key(1).submit(0))).await;
    assert!(zero.into_iter().all(|result| result.unwrap_err().kind() == ErrorKind::ItemFailed));
    let (one, two) = tokio::join!(batch.with_key(1).submit(9), batch.with_key(2).submit(9));
    assert_eq!((one.unwrap(), two.unwrap()), ((1, 9), (2, 9)));
}
