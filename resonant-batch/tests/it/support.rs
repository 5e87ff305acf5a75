//! A processor that records its calls and can be held back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_batch::{BatchProcessor, Builder};
use tokio::sync::Semaphore;

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Records every call; each waits for a permit before it returns its items plus one thousand.
#[derive(Clone)]
pub(crate) struct Script {
    calls: Arc<Mutex<Vec<Vec<u64>>>>,
    gate: Arc<Semaphore>,
}

impl Script {
    /// Every call returns at once.
    pub(crate) fn open() -> Self {
        let script = Self::held();
        script.release(1_000_000);
        script
    }

    /// Every call waits to be released.
    pub(crate) fn held() -> Self {
        Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn release(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    pub(crate) async fn process(&self, items: Vec<u64>) -> Result<Vec<u64>, std::io::Error> {
        self.calls.lock().unwrap().push(items.clone());
        self.gate.acquire().await.unwrap().forget();
        Ok(items.into_iter().map(|item| item + 1000).collect())
    }

    pub(crate) fn builder(&self) -> Builder<u64, u64> {
        let script = self.clone();
        BatchProcessor::builder(async move |items: Vec<u64>| script.process(items).await)
    }

    pub(crate) fn calls(&self) -> Vec<Vec<u64>> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.calls.lock().unwrap().iter().map(Vec::len).collect()
    }

    pub(crate) fn items(&self) -> Vec<u64> {
        self.calls.lock().unwrap().concat()
    }
}

/// Lets every task of a current-thread runtime go as far as it can without time passing.
pub(crate) async fn settle() {
    for _ in 0..30 {
        tokio::task::yield_now().await;
    }
}
