//! Against real servers.

mod both;
mod million;
mod postgres;
mod rabbitmq;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What handlers finished, in order.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<u64>>>);

impl Seen {
    pub(crate) fn push(&self, number: u64) {
        self.0.lock().unwrap().push(number);
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }

    /// How many different ones.
    pub(crate) fn count(&self) -> usize {
        self.all().into_iter().collect::<BTreeSet<_>>().len()
    }

    /// First deliveries of each key, the last digit, rise.
    pub(crate) fn assert_in_order(&self) {
        let mut highest: BTreeMap<u64, u64> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for number in self.all() {
            if known.insert(number) {
                let before = highest.insert(number % 10, number);
                assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
            }
        }
    }
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "{what} did not happen");
}
