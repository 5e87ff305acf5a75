//! Flush, drain, close, drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt;
use resonant_batch::{BatchProcessor, ErrorKind, Policy};
use tokio::time::Instant;

use crate::support::{Script, ms, settle};

#[tokio::test(start_paused = true)]
async fn flush_dispatches_at_once_and_waits_for_exactly_what_came_before() {
    let script = Script::held();
    let batch = script.builder().policy(Policy::Fixed).max_wait_time(ms(1000)).build().unwrap();
    let start = Instant::now();
    let before = [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap()];
    let mut flush = Box::pin(batch.flush());
    assert!((&mut flush).now_or_never().is_none());
    let after = batch.try_submit(3).unwrap();
    settle().await;
    assert_eq!(script.calls(), [[1, 2]], "what comes after the flush is not in its batch");
    assert!((&mut flush).now_or_never().is_none());
    script.release(1);
    flush.await;
    assert_eq!(start.elapsed(), ms(0), "it waited for the later item");
    for submitted in before {
        submitted.await.unwrap();
    }
    script.release(1);
    after.await.unwrap();
    assert_eq!(start.elapsed(), ms(1000), "the later item waits its own time");
    batch.flush().await;
}

#[tokio::test(start_paused = true)]
async fn drain_processes_what_was_accepted_and_refuses_what_comes() {
    let script = Script::held();
    let batch =
        script.builder().policy(Policy::Fixed).max_batch_size(2).max_queued(2).max_in_flight(1);
    let batch = batch.build().unwrap();
    let accepted = [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap()];
    settle().await;
    let queued = batch.try_submit(3).unwrap();
    let second = batch.try_submit(4).unwrap();
    let in_line = tokio::spawn({
        let batch = batch.clone();
        async move { batch.submit(5).await }
    });
    settle().await;
    assert_eq!(batch.stats().waiting, 1);
    let drain = tokio::spawn({
        let batch = batch.clone();
        async move { batch.drain(ms(5000)).await }
    });
    assert_eq!(in_line.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(batch.submit(6).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(batch.try_submit(7).unwrap_err().error.kind(), ErrorKind::Closed);
    let many = batch.submit_many([8, 9]).await;
    assert!(many.into_iter().all(|result| result.unwrap_err().kind() == ErrorKind::Closed));
    script.release(10);
    for submitted in accepted.into_iter().chain([queued, second]) {
        submitted.await.unwrap();
    }
    assert!(drain.await.unwrap().is_clean());
    assert_eq!(script.items(), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_by_its_deadline_and_everybody_gets_an_outcome() {
    let script = Script::held();
    let batch = script.builder().max_batch_size(2).max_in_flight(1).build().unwrap();
    let running = batch.try_submit(1).unwrap();
    settle().await;
    let queued: Vec<_> = (2..7).map(|item| batch.try_submit(item).unwrap()).collect();
    let start = Instant::now();
    let report = batch.drain(ms(300)).await;
    assert_eq!(start.elapsed(), ms(300));
    assert_eq!((report.not_processed, report.interrupted), (5, 1));
    let error = running.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Closed, true));
    for submitted in queued {
        let error = submitted.await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Closed, false));
    }
    assert_eq!(batch.stats().in_flight, 0);
}

/// Eight tasks submit as fast as they can while the processor is drained: no item is lost and none has two outcomes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_under_traffic_accounts_for_every_item() {
    let processed = Arc::new(AtomicU64::new(0));
    let batch = BatchProcessor::builder({
        let processed = processed.clone();
        async move |items: Vec<u64>| {
            processed.fetch_add(items.len() as u64, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(items)
        }
    })
    .max_queued(200)
    .build()
    .unwrap();
    let enough = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (batch, enough) = (batch.clone(), enough.clone());
            tokio::spawn(async move {
                let mut ok = 0;
                loop {
                    let results = if task % 2 == 0 {
                        vec![batch.submit(task).await]
                    } else {
                        batch.submit_many([task; 37]).await
                    };
                    for result in results {
                        match result {
                            Ok(item) => {
                                assert_eq!(item, task);
                                ok += 1;
                                enough.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) if error.kind() == ErrorKind::Closed => return ok,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    while enough.load(Ordering::Relaxed) < 100_000 {
        tokio::task::yield_now().await;
    }
    let report = batch.drain(ms(30_000)).await;
    assert!(report.is_clean(), "{report:?}");
    let processed_at_the_end = processed.load(Ordering::SeqCst);
    let mut ok = 0;
    for task in tasks {
        ok += task.await.unwrap();
    }
    // A closed submit_many stops counting at its first refusal; nothing is processed after the drain.
    assert_eq!(processed.load(Ordering::SeqCst), processed_at_the_end);
    assert_eq!(ok, processed_at_the_end);
}

struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_finishes_what_runs_and_ends_the_workers() {
    let (script, ended) = (Script::held(), Arc::new(AtomicBool::new(false)));
    let batch = BatchProcessor::builder({
        let (script, ended) = (script.clone(), Arc::new(Ended(ended.clone())));
        async move |items: Vec<u64>| {
            let _held = &ended;
            script.process(items).await
        }
    });
    let batch = batch.build().unwrap();
    let clone = batch.clone();
    drop(clone.try_submit(0));
    let mut submit = Box::pin(batch.submit(1));
    assert!((&mut submit).now_or_never().is_none());
    settle().await;
    drop(submit);
    drop(batch);
    settle().await;
    drop(clone);
    settle().await;
    assert!(!ended.load(Ordering::SeqCst), "the running batch was cut off");
    script.release(1);
    settle().await;
    assert!(ended.load(Ordering::SeqCst), "a worker outlives its processor");
    assert_eq!(script.calls(), [[1]]);
}

#[test]
fn nobody_waits_for_a_runtime_that_is_gone() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let script = Script::held();
    let batch = script.builder().runtime(runtime.handle().clone()).max_in_flight(1).max_queued(100);
    let batch = batch.build().unwrap();
    let waiting = std::thread::spawn({
        let batch = batch.clone();
        move || futures::executor::block_on(batch.submit_many(0..500))
    });
    while script.calls().is_empty() {
        std::thread::yield_now();
    }
    drop(runtime);
    let results = waiting.join().unwrap();
    assert_eq!(results.len(), 500);
    assert!(results.iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::Closed));
    let applied =
        results.iter().filter(|result| result.as_ref().unwrap_err().may_have_applied()).count();
    assert_eq!(applied, 100, "only the batch that ran");
    let error = futures::executor::block_on(batch.submit(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_runtime_gone_before_the_first_item_is_noticed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let batch = Script::open().builder().runtime(runtime.handle().clone()).build().unwrap();
    drop(runtime);
    let error = futures::executor::block_on(batch.submit(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
