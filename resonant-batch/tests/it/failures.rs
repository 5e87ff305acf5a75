//! Errors, panics and hangs of the processor touch their batch only.

use std::collections::HashSet;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use resonant_batch::{BatchProcessor, ErrorKind};

use crate::support::{ms, settle};

/// An error that cannot be cloned.
#[derive(Debug, PartialEq)]
struct Down(u32);

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("down")
    }
}

impl std::error::Error for Down {}

#[tokio::test(start_paused = true)]
async fn a_batch_error_is_shared_by_its_items_and_gives_the_processors_own_back() {
    let batch =
        BatchProcessor::builder(async |_: Vec<u32>| Err::<Vec<u32>, _>(Down(7))).build().unwrap();
    let errors: Vec<_> =
        batch.submit_many(0..3).await.into_iter().map(Result::unwrap_err).collect();
    for error in &errors {
        assert_eq!((error.kind(), error.operation()), (ErrorKind::BatchFailed, "submit"));
        assert_eq!(error.source().unwrap().downcast_ref::<Down>(), Some(&Down(7)));
    }
    let address =
        |error: &resonant_batch::Error| std::ptr::from_ref(error.source().unwrap()).addr();
    assert_eq!(address(&errors[0]), address(&errors[2]), "one error, shared");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_number_of_results_is_an_error_of_its_own() {
    for returned in [0_usize, 2, 4] {
        let batch =
            BatchProcessor::builder(async move |_: Vec<u32>| Ok::<_, Down>(vec![0_u32; returned]));
        let batch = batch.build().unwrap();
        for result in batch.submit_many(0..3).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongLength);
            assert!(
                error.message().contains(&format!("{returned} results for 3 items")),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_no_other() {
    let calls = Arc::new(AtomicUsize::new(0));
    let batch = BatchProcessor::builder({
        let calls = calls.clone();
        async move |items: Vec<u64>| {
            if calls.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
                panic!("every third");
            }
            Ok::<_, Down>(items)
        }
    })
    .max_batch_size(10)
    .max_in_flight(2)
    .build()
    .unwrap();
    let results = batch.submit_many(0..3000).await;
    let failed: HashSet<_> = results
        .iter()
        .enumerate()
        .filter(|(_, result)| result.is_err())
        .map(|(item, _)| item / 10)
        .collect();
    assert_eq!(failed.len(), 100, "whole batches fail");
    for (item, result) in results.into_iter().enumerate() {
        match result {
            Ok(output) => assert!(output == item as u64 && !failed.contains(&(item / 10))),
            Err(error) => {
                assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Panicked, true))
            }
        }
    }
    // No worker and no slot was lost.
    assert_eq!(batch.stats().in_flight, 0);
    calls.store(0, Ordering::SeqCst);
    assert!(
        join_all([batch.submit(1), batch.submit(2)]).await.into_iter().all(|result| result.is_ok())
    );
}

#[tokio::test]
async fn a_closure_that_panics_before_its_future_exists_is_caught_too() {
    let batch = BatchProcessor::builder(|items: Vec<u64>| {
        assert!(items != [13], "unlucky");
        async move { Ok::<_, Down>(items) }
    });
    let batch = batch.build().unwrap();
    assert_eq!(batch.submit(13).await.unwrap_err().kind(), ErrorKind::Panicked);
    assert_eq!(batch.submit(1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_hangs_gives_its_slot_back() {
    let batch = BatchProcessor::builder(async |items: Vec<u64>| {
        if items.contains(&13) {
            std::future::pending::<()>().await;
        }
        Ok::<_, Down>(items)
    })
    .max_in_flight(1)
    .max_process_time(ms(500))
    .build()
    .unwrap();
    let stuck = batch.try_submit(13).unwrap();
    settle().await;
    let next = batch.try_submit(1).unwrap();
    let error = stuck.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::TimedOut, true));
    assert!(error.message().contains("max_process_time"), "{error}");
    assert_eq!(next.await.unwrap(), 1);
}

/// Runs 0..256 with some bad items; returns who failed and how often the processor was called.
async fn isolate(bad: &'static [u64], panics: bool) -> (Vec<u64>, usize) {
    let calls = Arc::new(AtomicUsize::new(0));
    let batch = BatchProcessor::builder({
        let calls = calls.clone();
        async move |items: Vec<u64>| {
            calls.fetch_add(1, Ordering::SeqCst);
            if items.iter().any(|item| bad.contains(item)) {
                assert!(!panics, "a bad item");
                return Err(Down(0));
            }
            Ok(items)
        }
    })
    .max_batch_size(256)
    .isolate_failures(|_| true)
    .build()
    .unwrap();
    let mut failed = Vec::new();
    for (item, result) in batch.submit_many(0..256).await.into_iter().enumerate() {
        match result {
            Ok(output) => assert_eq!(output, item as u64),
            Err(_) => failed.push(item as u64),
        }
    }
    (failed, calls.load(Ordering::SeqCst))
}

#[tokio::test]
async fn poison_is_found_by_halving() {
    assert_eq!(isolate(&[], false).await, (vec![], 1));
    for bad in [&[0_u64] as &[_], &[97], &[255]] {
        assert_eq!(isolate(bad, false).await, (bad.to_vec(), 17));
        assert_eq!(isolate(bad, true).await, (bad.to_vec(), 17));
    }
    for bad in [&[0_u64, 128, 255] as &[_], &[5, 6, 7], &[10, 100, 200]] {
        let (failed, calls) = isolate(bad, false).await;
        assert_eq!(failed, bad);
        assert!(calls <= 49, "{calls}");
    }
}

#[tokio::test]
async fn when_everything_fails_the_load_is_not_multiplied() {
    let all: &'static [u64] = &(const {
        let mut all = [0; 256];
        let mut item = 0;
        while item < 256 {
            all[item] = item as u64;
            item += 1;
        }
        all
    });
    let (failed, calls) = isolate(all, false).await;
    assert_eq!((failed.len(), calls), (256, 65));
}

#[tokio::test]
async fn items_that_must_not_run_twice_do_not() {
    let runs: Arc<[AtomicUsize; 8]> = Arc::default();
    let batch = BatchProcessor::builder({
        let runs = runs.clone();
        async move |items: Vec<usize>| {
            for item in &items {
                runs[*item].fetch_add(1, Ordering::SeqCst);
            }
            if items.contains(&2) { Err(Down(2)) } else { Ok(items) }
        }
    })
    .isolate_failures(|item| item % 2 == 0)
    .build()
    .unwrap();
    let results = batch.submit_many(0..8).await;
    for (item, result) in results.iter().enumerate() {
        assert_eq!(result.is_ok(), item % 2 == 0 && item != 2, "{item}");
        let runs = runs[item].load(Ordering::SeqCst);
        assert!(if item % 2 == 1 { runs == 1 } else { runs > 1 }, "{item} ran {runs} times");
    }
}
