//! For those who write a [`Store`]: the suite it must pass, and stores that break on purpose.
//!
//! One line makes one test of each case:
//!
//! ```ignore
//! async fn my_store() -> resonant_cache::testing::Bench {
//!     resonant_cache::testing::Bench::new(std::sync::Arc::new(MyStore::connect().await))
//! }
//! resonant_cache::store_conformance!(my_store_conforms, super::my_store());
//! ```
//!
//! The module it makes needs `tokio` with `macros` and `rt`. A store that keeps time on tokio's clock is tested faster
//! with `, paused` as a third argument (and tokio's `test-util`). The [`CASES`] can be run by hand as well.

#![expect(clippy::panic, reason = "a suite fails by panicking")]

mod announcements;
mod broken;
mod counters;
mod epochs;
mod fences;
mod guards;
#[doc(hidden)]
pub mod inputs;
mod leases;
mod values;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resonant_common::join::Position;

pub use self::broken::{Fault, Faulty};
use crate::backend::{
    FenceAt, Guard, Key, LeaseAsk, LeaseToken, Leased, Listener, Origin, ReadFrom, Store, Version,
    Write, WriteOutcome,
};
use crate::envelope::Head;
use crate::error::Result;

/// A store to test.
#[derive(Debug)]
pub struct Bench {
    store: Arc<dyn Store>,
    /// Anybody's: changes under it reach every listener of the suite.
    origin: Origin,
    /// Keeps the names of one run apart from those of another on a shared store.
    run: String,
    short: Duration,
}

/// One case of the suite.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Runs it; panics where the store breaks the contract.
    pub run: fn(Bench) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

macro_rules! cases {
    ($d:tt $($module:ident { $($case:ident),* $(,)? })*) => {
        /// Every case.
        pub const CASES: &[Case] = &[$($(
            Case { name: stringify!($case), run: |bench| Box::pin($module::$case(bench)) },
        )*)*];

        /// Makes a module with one test for each case of the suite. See [`testing`](crate::testing).
        #[macro_export]
        macro_rules! store_conformance {
            ($d name:ident, $d make:expr) => {
                $crate::store_conformance!(@ $d name, $d make, tokio::test);
            };
            ($d name:ident, $d make:expr, paused) => {
                $crate::store_conformance!(@ $d name, $d make, tokio::test(start_paused = true));
            };
            (@ $d name:ident, $d make:expr, $d test:meta) => {
                mod $d name {
                    $($(
                        #[$d test]
                        async fn $case() {
                            $crate::testing::run(stringify!($case), $d make.await).await;
                        }
                    )*)*
                }
            };
        }
    };
}

cases! { $
    values {
        an_absent_key_reads_as_none,
        what_is_written_is_read_back,
        answers_stand_in_the_order_of_the_keys,
        nothing_is_asked_and_nothing_answered,
        a_value_ends_with_its_time_to_live,
        without_a_time_to_live_it_stays,
        a_write_replaces_value_and_life,
        a_removal_says_whether_there_was_a_value,
        odd_names_are_apart,
        a_large_value_is_kept_whole,
        the_clock_goes_on_and_the_store_answers,
    }
    guards {
        absent_stores_once,
        absent_stores_over_foreign_bytes,
        a_version_stores_over_itself_only,
        of_many_with_one_version_one_wins,
        one_refusal_does_not_touch_its_neighbours,
    }
    leases {
        of_many_who_ask_one_gets_the_lease,
        a_lease_lapses,
        a_lease_stores_once,
        a_lapsed_lease_stores_nothing,
        somebody_elses_lease_stores_nothing,
        a_write_ends_the_lease,
        a_plain_write_ends_the_lease_whatever_its_bytes,
        a_removal_ends_the_lease,
        a_refused_write_leaves_value_and_lease,
        only_the_holder_releases,
        a_lease_from_before_a_clear_gives_way,
    }
    fences {
        a_removal_with_a_position_keeps_older_reads_out,
        a_fence_outlives_writes_and_removals,
        a_fence_lapses,
        a_stored_position_keeps_older_ones_out,
        an_older_position_does_not_lower_the_fence,
        neither_of_two_fences_is_cut_short,
        other_histories_are_told_apart,
        a_fence_holds_for_its_key_only,
    }
    counters {
        a_counter_adds_up,
        reading_a_counter_creates_none,
        a_counter_lives_from_its_creation,
        an_overflow_changes_nothing,
        no_increment_is_lost,
        a_counter_is_apart_from_the_value_and_goes_with_a_removal,
    }
    epochs {
        an_epoch_rises_with_every_bump,
        a_tag_knows_its_last_bump,
        a_clear_is_noted_for_everything,
        namespaces_count_apart,
        no_bump_is_lost,
        a_forgotten_tag_is_never_too_low,
    }
    announcements {
        writes_and_removals_are_announced,
        bumps_are_announced,
        many_changes_are_all_announced_or_said_to_be_lost,
        a_listener_that_is_gone_is_no_trouble,
    }
}

/// Runs the case called `name`.
///
/// # Panics
///
/// Where the store breaks the contract, saying how; or if there is no such case.
pub async fn run(name: &str, bench: Bench) {
    match CASES.iter().find(|case| case.name == name) {
        Some(case) => (case.run)(bench).await,
        None => panic!("there is no case {name}"),
    }
}

impl Bench {
    /// A bench for `store`. Times to live are tested with 200 ms.
    pub fn new(store: Arc<dyn Store>) -> Self {
        struct Deaf;
        impl Listener for Deaf {
            fn apply(&self, _: &crate::backend::Event) {}
        }
        let deaf: std::sync::Weak<Deaf> = Arc::downgrade(&Arc::new(Deaf));
        let origin = store.attach(deaf);
        let run = format!("{:08x}", rand::random::<u32>());
        Self { store, origin, run, short: Duration::from_millis(200) }
    }

    /// Tests times to live with `short`: long enough for the store to measure, and for a call to take.
    #[must_use]
    pub fn short(mut self, short: Duration) -> Self {
        self.short = short;
        self
    }

    fn namespace(&self, name: &str) -> String {
        format!("suite-{}-{name}", self.run)
    }

    fn key(&self, key: &str) -> Key {
        Key::new(self.namespace("values"), key)
    }

    async fn read(&self, key: &Key) -> Option<Bytes> {
        ok(one(self.store.read(std::slice::from_ref(key), ReadFrom::Primary).await), "read")
    }

    async fn write(&self, write: Write) -> WriteOutcome {
        ok(one(self.store.write(self.origin, vec![write]).await), "write")
    }

    async fn put(&self, key: &Key, value: &Bytes, guard: Guard) -> WriteOutcome {
        self.write(plain(key, value, guard)).await
    }

    async fn put_at(&self, key: &Key, value: &Bytes, position: Position) -> WriteOutcome {
        let fence = Some(FenceAt { position, ttl: LONG });
        self.write(Write { fence, ..plain(key, value, Guard::Always) }).await
    }

    async fn remove(&self, key: &Key, fence: Option<FenceAt>) -> bool {
        let answers = self.store.remove(self.origin, std::slice::from_ref(key), fence).await;
        ok(one(answers), "remove")
    }

    async fn lease(&self, key: &Key, token: LeaseToken, ttl: Duration) -> Leased {
        let ask = LeaseAsk { token, cleared: 0, ttl, plain: false };
        ok(one(self.store.lease(std::slice::from_ref(key), ask).await), "lease")
    }

    async fn release(&self, key: &Key, token: LeaseToken) {
        ok(self.store.release(std::slice::from_ref(key), token).await, "release");
    }

    /// Waits until a `short` life is over.
    async fn pass(&self) {
        tokio::time::sleep(self.short + self.short / 4).await;
    }
}

const LONG: Duration = Duration::from_secs(600);
const STORED: WriteOutcome = WriteOutcome::Stored;
const REFUSED: WriteOutcome = WriteOutcome::Refused;

fn plain(key: &Key, value: &Bytes, guard: Guard) -> Write {
    Write { key: key.clone(), value: value.clone(), ttl: Some(LONG), guard, fence: None }
}

/// Bytes as the cache writes them, with a version of their own.
fn sealed(payload: &str) -> (Bytes, Version) {
    let version = Version::random();
    let head = Head {
        fingerprint: 7,
        version,
        written_at: 0,
        fresh_ms: None,
        negative: false,
        position: None,
        epoch: 0,
        tags: Vec::new(),
    };
    let sealed = head.seal(None, |out| {
        out.extend_from_slice(payload.as_bytes());
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(sealed) = sealed;
    (sealed.bytes, version)
}

fn value(payload: &str) -> Bytes {
    sealed(payload).0
}

fn one<T>(mut answers: Vec<Result<T>>) -> Result<T> {
    assert_eq!(answers.len(), 1, "one key was asked for");
    match answers.pop() {
        Some(answer) => answer,
        None => panic!("one key was asked for"),
    }
}

fn ok<T>(answer: Result<T>, call: &str) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{call} failed: {error}"),
    }
}
