//! The suites, on what ships and on what breaks on purpose.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use resonant_ha::testing::{
    Case, FaultyVoter, ModelRegions, REGION_CASES, RegionBench, RegionFault, VOTER_CASES,
    VoterBench, VoterFault,
};
use resonant_ha::voter::MemoryVoter;

async fn memory() -> VoterBench {
    VoterBench::new(Arc::new(MemoryVoter::new()))
}

async fn model() -> RegionBench {
    ModelRegions::new().bench()
}

resonant_ha::voter_conformance!(memory_voter, super::memory(), paused);
resonant_ha::region_conformance!(model_regions, super::model(), paused);

/// The cases that fail on what `make` makes.
async fn failing<B>(cases: &[Case<B>], make: impl Fn() -> B) -> BTreeSet<&'static str> {
    let mut failing = BTreeSet::new();
    for case in cases {
        let outcome = AssertUnwindSafe((case.run)(make())).catch_unwind().await;
        if outcome.is_err() {
            failing.insert(case.name);
        }
    }
    failing
}

#[tokio::test(start_paused = true)]
async fn the_suite_finds_broken_voters() {
    let caught = [
        (VoterFault::GrantsLiveOnes, "a_live_lease_is_granted_to_nobody"),
        (VoterFault::GrantsTermsTwice, "a_term_is_granted_once"),
        (VoterFault::NeverEnds, "a_lease_ends_with_its_time"),
        (VoterFault::RenewsForAnybody, "only_the_holder_renews_and_releases"),
        (VoterFault::WritesAnything, "a_record_is_written_at_the_live_term_only"),
        (VoterFault::ForgetsRecords, "a_record_outlives_its_term"),
        (VoterFault::MixesNames, "names_are_apart"),
        (VoterFault::SaysDone, "what_is_refused_changes_nothing"),
    ];
    let make = |fault| move || VoterBench::new(Arc::new(FaultyVoter::new(fault)));
    assert_eq!(failing(VOTER_CASES, make(VoterFault::None)).await, BTreeSet::new());
    for (fault, case) in caught {
        let failing = failing(VOTER_CASES, make(fault)).await;
        assert!(failing.contains(case), "{fault:?} was not found by {case}, but by {failing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_suite_finds_broken_regions() {
    let caught = [
        (RegionFault::ObeysAnybody, "older_orders_are_refused"),
        (RegionFault::LooksThenObeys, "of_an_older_and_a_newer_order_the_newer_has_the_last_word"),
        (RegionFault::ForgetsPledges, "an_order_is_remembered"),
        (RegionFault::GoesOnReceiving, "a_frozen_standby_stands_still"),
        (RegionFault::EndsWritesTooSoon, "a_frozen_primary_goes_on_writing"),
        (RegionFault::WritesNoRow, "a_promoted_standby_takes_writes_with_its_row_before_them"),
        (RegionFault::WritesOn, "a_demoted_primary_takes_no_writes_and_its_heir_has_all"),
        (RegionFault::LeavesTooSoon, "a_demoted_primary_takes_no_writes_and_its_heir_has_all"),
        (RegionFault::FencesInWords, "a_fence_proves_what_it_says"),
        (RegionFault::TakesOverPledges, "a_region_that_comes_back_follows_and_keeps_its_pledge"),
        (RegionFault::NeverFollows, "a_frozen_standby_follows_the_heir"),
    ];
    let make = |fault| move || ModelRegions::faulty(fault).bench();
    assert_eq!(failing(REGION_CASES, make(RegionFault::None)).await, BTreeSet::new());
    for (fault, case) in caught {
        let failing = failing(REGION_CASES, make(fault)).await;
        assert!(failing.contains(case), "{fault:?} was not found by {case}, but by {failing:?}");
    }
    assert_eq!(failing(REGION_CASES, make(RegionFault::Down)).await.len(), REGION_CASES.len());
}
