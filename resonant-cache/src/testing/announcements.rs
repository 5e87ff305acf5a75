//! Telling others of changes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Bench, Guard, Key, Listener, STORED, ok, plain, value};
use crate::backend::{Announces, Bump, Event, TagId};

/// Writes down what it hears.
#[derive(Debug, Default)]
struct Ear(Mutex<Vec<Event>>);

impl Listener for Ear {
    fn apply(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

impl Ear {
    fn attach(bench: &Bench) -> Arc<Self> {
        let ear = Arc::new(Self::default());
        let weak = Arc::downgrade(&ear);
        bench.store.attach(weak);
        ear
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits as the store's capabilities say until `what` was heard, or that something was lost.
    async fn hears(&self, bench: &Bench, what: impl Fn(&Event) -> bool, which: &str) {
        let patience = match bench.store.capabilities().announces {
            Announces::Never => return,
            Announces::Before => 1,
            Announces::Soon => 500,
        };
        for _ in 0..patience {
            if self.take().iter().any(|event| what(event) || *event == Event::Lost) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{which} was not announced");
    }
}

pub(super) async fn writes_and_removals_are_announced(bench: Bench) {
    let ear = Ear::attach(&bench);
    let key = bench.key("{odd}:key");
    let changed = |event: &Event| *event == Event::Changed(key.clone());
    assert_eq!(bench.put(&key, &value("1"), Guard::Always).await, STORED);
    ear.hears(&bench, changed, "a write").await;
    assert_eq!(bench.put(&key, &value("2"), Guard::Always).await, STORED);
    ear.hears(&bench, changed, "an overwrite").await;
    assert!(bench.remove(&key, None).await);
    ear.hears(&bench, changed, "a removal").await;
}

pub(super) async fn bumps_are_announced(bench: Bench) {
    let ear = Ear::attach(&bench);
    let space: Arc<str> = bench.namespace("e").into();
    let tags = vec![TagId(1), TagId(2)];
    let at = ok(bench.store.bump(bench.origin, &space, Bump::Tags(tags.clone())).await, "bump");
    // Tags may be announced together or one by one: the last one's announcement is waited for.
    let last = |event: &Event| {
        matches!(event, Event::TagsInvalidated { namespace, tags, epoch }
            if *namespace == space && tags.contains(&TagId(2)) && *epoch == at)
    };
    ear.hears(&bench, last, "a tag's bump").await;
    let at = ok(bench.store.bump(bench.origin, &space, Bump::All).await, "bump");
    let cleared = |event: &Event| matches!(event, Event::Cleared { namespace, epoch } if *namespace == space && *epoch == at);
    ear.hears(&bench, cleared, "a clear").await;
}

pub(super) async fn many_changes_are_all_announced_or_said_to_be_lost(bench: Bench) {
    if bench.store.capabilities().announces == Announces::Never {
        return;
    }
    let ear = Ear::attach(&bench);
    let keys: Vec<Key> = (0..5_000).map(|n| bench.key(&format!("k{n}"))).collect();
    for chunk in keys.chunks(500) {
        let writes = chunk.iter().map(|key| plain(key, &value("x"), Guard::Always)).collect();
        for outcome in bench.store.write(bench.origin, writes).await {
            assert_eq!(ok(outcome, "write"), STORED);
        }
    }
    let mut missing: HashSet<Key> = keys.into_iter().collect();
    for _ in 0..500 {
        for event in ear.take() {
            match event {
                Event::Changed(key) => drop(missing.remove(&key)),
                Event::Lost => return,
                _ => {}
            }
        }
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of 5000 changes were neither announced nor said to be lost", missing.len());
}

pub(super) async fn a_listener_that_is_gone_is_no_trouble(bench: Bench) {
    drop(Ear::attach(&bench));
    let key = bench.key("a");
    assert_eq!(bench.put(&key, &value("1"), Guard::Always).await, STORED);
    assert!(bench.remove(&key, None).await);
}
