//! The store's suite on the memory store, and on stores that break on purpose.

use std::sync::Arc;

use futures::FutureExt as _;
use resonant_cache::backend::MemoryStore;
use resonant_cache::testing::{Bench, CASES, Fault, Faulty};

async fn memory() -> Bench {
    Bench::new(Arc::new(MemoryStore::new(64 << 20)))
}

resonant_cache::store_conformance!(memory_store, super::memory(), paused);

/// The cases that fail on a store with this fault.
async fn failing(fault: Fault) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for case in CASES {
        let store = Faulty::new(Arc::new(MemoryStore::new(64 << 20)), fault);
        let run = (case.run)(Bench::new(Arc::new(store)));
        // A panic inside is the expected answer, so keep it out of the output.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let outcome = std::panic::AssertUnwindSafe(run).catch_unwind().await;
        std::panic::set_hook(hook);
        if outcome.is_err() {
            failing.push(case.name);
        }
    }
    failing
}

#[tokio::test(start_paused = true)]
async fn the_suite_catches_broken_stores() {
    assert_eq!(failing(Fault::None).await, [""; 0]);
    let caught = [
        (Fault::IgnoresLeases, "a_removal_ends_the_lease"),
        (Fault::IgnoresFences, "a_removal_with_a_position_keeps_older_reads_out"),
        (Fault::ReversesAnswers, "answers_stand_in_the_order_of_the_keys"),
        (Fault::NeverAnnounces, "writes_and_removals_are_announced"),
        (Fault::KeepsForEver, "a_value_ends_with_its_time_to_live"),
    ];
    for (fault, case) in caught {
        let failing = failing(fault).await;
        assert!(failing.contains(&case), "{fault:?} was not caught by {case}, but by {failing:?}");
    }
    assert_eq!(failing(Fault::Down).await.len(), CASES.len() - 1, "all but the empty calls");
}
