//! BatchProcessor: many small requests become few large ones, and each caller gets its own answer.
//!
//! `cargo run --example batch`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use resonant_batch::{BatchProcessor, process_all};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let calls = Arc::new(AtomicUsize::new(0));
    let batch = BatchProcessor::builder({
        let calls = Arc::clone(&calls);
        async move |words: Vec<String>| {
            calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await; // one round trip, however many words
            let answer = |word: String| match word.len() {
                0 => Err("an empty word"),
                length => Ok(length),
            };
            words.into_iter().map(answer).collect::<Vec<_>>()
        }
    })
    .max_batch_size(100)
    .max_in_flight(2)
    .build()?;

    // A thousand callers at once. While a slot is free nobody waits; while all are busy items gather.
    let callers: Vec<_> = (0..1000)
        .map(|n| {
            let batch = batch.clone();
            tokio::spawn(async move { batch.submit("x".repeat(n % 7)).await })
        })
        .collect();
    let (mut good, mut bad) = (0, 0);
    for caller in callers {
        match caller.await? {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    println!("{good} good, {bad} bad, {} calls", calls.load(Ordering::Relaxed));
    assert_eq!((good, bad), (857, 143));
    assert!(batch.drain(Duration::from_secs(5)).await.is_clean());

    // The other half of the guide's batching: many items, some at a time, answers in order.
    let squares = process_all(1..=10_u64, async |n| Ok::<_, std::io::Error>(n * n))
        .limit(4)
        .try_collect()
        .await?;
    assert_eq!(squares.iter().sum::<u64>(), 385);
    Ok(())
}
