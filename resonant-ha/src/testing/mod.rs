//! For those who write a [`Voter`](crate::voter::Voter) or a [`RegionBackend`](crate::RegionBackend): the suites they must
//! pass, and ones that break on purpose.
//!
//! One line makes one test of each case:
//!
//! ```
//! # mod my {
//! use std::sync::Arc;
//! use resonant_ha::testing::{ModelRegions, RegionBench, VoterBench};
//! use resonant_ha::voter::MemoryVoter;
//!
//! async fn my_voter() -> VoterBench {
//!     VoterBench::new(Arc::new(MemoryVoter::new()))
//! }
//! resonant_ha::voter_conformance!(my_voter_conforms, super::my_voter());
//!
//! async fn my_regions() -> RegionBench {
//!     ModelRegions::new().bench()
//! }
//! resonant_ha::region_conformance!(my_regions_conform, super::my_regions());
//! # }
//! ```
//!
//! The modules they make need `tokio` with `macros` and `rt`. What keeps time on tokio's clock is tested faster with
//! `, paused` as a third argument (and tokio's `test-util`). [`VOTER_CASES`] and [`REGION_CASES`] can be run by hand as well.
//! Each case gets what `make` gives it: for regions that is three new servers each time.
//!
//! The suite of leases is `resonant_common::join::testing`; it checks what a [`Quorum`](crate::voter::Quorum) makes of voters.

#![expect(clippy::panic, reason = "a suite fails by panicking")]

mod broken;
mod model;
mod regions;
mod scene;
mod voters;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use self::broken::{FaultyVoter, VoterFault};
pub use self::model::{ModelRegions, RegionFault};
pub use self::scene::{RegionBench, VoterBench};

/// How long a case waits for something that should happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// One case of a suite.
pub struct Case<B> {
    /// Its name.
    pub name: &'static str,
    /// Runs it; panics where the contract is broken.
    pub run: fn(B) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<B> fmt::Debug for Case<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Runs the case of this name.
///
/// # Panics
///
/// Where the contract is broken, saying which clause; and where there is no such case.
pub async fn run<B>(cases: &[Case<B>], name: &str, bench: B) {
    match cases.iter().find(|case| case.name == name) {
        Some(case) => (case.run)(bench).await,
        None => panic!("there is no case {name}"),
    }
}

macro_rules! cases {
    ($d:tt $list:ident $conformance:ident $bench:ident $module:ident { $($case:ident),* $(,)? }) => {
        /// Every case of the suite.
        pub const $list: &[Case<$bench>] = &[$(
            Case { name: stringify!($case), run: |bench| Box::pin($module::$case(bench)) },
        )*];

        /// Makes a module with one test for each case of the suite. See [`testing`](crate::testing).
        #[macro_export]
        macro_rules! $conformance {
            ($d name:ident, $d make:expr) => {
                $crate::$conformance!(@ $d name, $d make, tokio::test);
            };
            ($d name:ident, $d make:expr, paused) => {
                $crate::$conformance!(@ $d name, $d make, tokio::test(start_paused = true));
            };
            (@ $d name:ident, $d make:expr, $d test:meta) => {
                mod $d name {
                    $(
                        #[$d test]
                        async fn $case() {
                            let cases = $crate::testing::$list;
                            $crate::testing::run(cases, stringify!($case), $d make.await).await;
                        }
                    )*
                }
            };
        }
    };
}

cases! { $ VOTER_CASES voter_conformance VoterBench voters {
    a_name_that_nobody_asked_about_is_free,
    a_live_lease_is_granted_to_nobody,
    a_term_is_granted_once,
    a_lease_ends_with_its_time,
    a_renewal_extends,
    only_the_holder_renews_and_releases,
    a_released_lease_is_free_at_once,
    a_record_is_written_at_the_live_term_only,
    records_never_go_back,
    a_record_outlives_its_term,
    what_is_refused_changes_nothing,
    names_are_apart,
    of_many_who_ask_for_a_term_one_gets_it,
    another_handle_sees_the_same,
    a_long_record_is_kept_whole,
} }

cases! { $ REGION_CASES region_conformance RegionBench regions {
    a_probe_tells_who_is_who,
    an_order_is_remembered,
    an_order_may_be_given_again,
    older_orders_are_refused,
    of_an_older_and_a_newer_order_the_newer_has_the_last_word,
    a_frozen_standby_stands_still,
    a_frozen_primary_goes_on_writing,
    a_promoted_standby_takes_writes_with_its_row_before_them,
    a_frozen_standby_follows_the_heir,
    a_demoted_primary_takes_no_writes_and_its_heir_has_all,
    a_fence_proves_what_it_says,
    a_region_that_comes_back_follows_and_keeps_its_pledge,
    a_dropped_order_can_be_given_again,
} }
