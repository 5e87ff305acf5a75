//! Metrics and findings.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use resonant_batch::{BatchProcessor, Policy};
use resonant_common::join::Severity;

use crate::support::{Script, ms, settle};

/// What was counted, by name and label values, without those that are zero.
fn counters(snapshots: &Snapshotter) -> BTreeMap<String, u64> {
    let values = snapshots.snapshot().into_vec().into_iter();
    let counter = |(key, _, _, value): (metrics_util::CompositeKey, _, _, _)| match value {
        DebugValue::Counter(count) if count > 0 => {
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            Some((format!("{} {}", key.key().name(), labels.join(" ")), count))
        }
        _ => None,
    };
    values.filter_map(counter).collect()
}

#[test]
fn every_item_and_batch_is_counted_by_how_it_ended() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let script = Script::held();
            let builder = script
                .builder()
                .name("orders")
                .policy(Policy::Fixed)
                .max_batch_size(2)
                .max_queued(3);
            let batch = builder.max_in_flight(1).single_flight(|item| *item).build().unwrap();
            let full = [batch.try_submit(1).unwrap(), batch.try_submit(2).unwrap()];
            settle().await;
            let lingering = batch.try_submit(3).unwrap();
            let shared = batch.try_submit(3).unwrap();
            drop(batch.try_submit(4).unwrap());
            let more = [batch.try_submit(5).unwrap(), batch.try_submit(6).unwrap()];
            batch.try_submit(7).unwrap_err();
            script.release(10);
            for submitted in full.into_iter().chain([lingering, shared]).chain(more) {
                submitted.await.unwrap();
            }
            batch.drain(ms(1000)).await;
            batch.try_submit(8).unwrap_err();
        });
    });
    let expected = [
        ("resonant_batch_batches_total orders full", 2),
        ("resonant_batch_batches_total orders linger", 1),
        ("resonant_batch_deduplicated_total orders", 1),
        ("resonant_batch_items_total orders cancelled", 1),
        ("resonant_batch_items_total orders ok", 5),
        ("resonant_batch_rejected_total orders closed", 1),
        ("resonant_batch_rejected_total orders full", 1),
    ];
    let expected: BTreeMap<_, _> =
        expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    assert_eq!(counters(&snapshots), expected);
}

#[tokio::test(start_paused = true)]
async fn findings_say_what_is_wrong() {
    let script = Script::held();
    let batch = script.builder().name("orders").max_batch_size(1).max_queued(1).max_in_flight(1);
    let batch = batch.build().unwrap();
    let codes = || {
        batch
            .findings()
            .into_iter()
            .map(|finding| (finding.severity, finding.code))
            .collect::<Vec<_>>()
    };
    assert_eq!(codes(), [(Severity::Ok, "batch.ok")]);
    assert_eq!(batch.findings()[0].name, "orders");
    let running = batch.try_submit(1).unwrap();
    settle().await;
    let queued = batch.try_submit(2).unwrap();
    assert_eq!(codes(), [(Severity::Warn, "batch.saturated")]);
    script.release(2);
    running.await.unwrap();
    queued.await.unwrap();
    batch.close();
    assert_eq!(codes(), [(Severity::Fail, "batch.closed")]);
}

#[tokio::test(start_paused = true)]
async fn three_failed_batches_in_a_row_are_a_finding_until_one_succeeds() {
    let batch = BatchProcessor::builder(
        async |items: Vec<u8>| if items[0] == 0 { Err("down") } else { Ok(items) },
    );
    let batch = batch.build().unwrap();
    for expected in ["batch.ok", "batch.ok", "batch.failing"] {
        batch.submit(0).await.unwrap_err();
        assert_eq!(batch.findings()[0].code, expected);
    }
    batch.submit(1).await.unwrap();
    assert_eq!(batch.findings()[0].code, "batch.ok");
}
