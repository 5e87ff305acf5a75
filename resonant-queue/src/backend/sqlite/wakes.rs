//! Tells readers that there is something new.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// One bell per partition id, and one for room.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    partitions: Mutex<HashMap<i64, Arc<Notify>>>,
    room: Notify,
}

impl Wakes {
    pub(super) fn bell(&self, partition: i64) -> Arc<Notify> {
        let mut bells = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(bells.entry(partition).or_default())
    }

    pub(super) fn partitions(&self, touched: &BTreeSet<i64>) {
        let bells = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in touched.iter().filter_map(|partition| bells.get(partition)) {
            bell.notify_waiters();
        }
    }

    pub(super) fn all(&self) {
        let bells = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        bells.values().for_each(|bell| bell.notify_waiters());
        self.room.notify_waiters();
    }

    pub(super) fn room(&self) {
        self.room.notify_waiters();
    }

    pub(super) async fn wait_for_room(&self) {
        self.room.notified().await;
    }
}
