//! The conformance suite: what every engine must do, as tests.
//!
//! Whoever writes an engine runs the same cases as the engines that ship:
//!
//! ```
//! use std::sync::Arc;
//! use resonant_queue::Memory;
//! use resonant_queue::backend::Backend;
//! use resonant_queue::testing::Place;
//!
//! #[derive(Debug, Default)]
//! struct InMemory(Memory);
//!
//! #[async_trait::async_trait]
//! impl Place for InMemory {
//!     async fn open(&self) -> Arc<dyn Backend> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! resonant_queue::conformance!(in_memory, InMemory::default());
//! # fn main() {}
//! ```
//!
//! The macro makes a module with one `#[tokio::test]` per case, so a failure names what the engine breaks. It needs
//! `tokio` with `macros` and `rt` among the dev-dependencies. The cases use the real clock, wait for signals and states,
//! and give up after [`LIMIT`].

#![expect(clippy::panic, reason = "a suite fails by panicking")]

mod failing;
mod kit;
mod ordering;
mod owning;
mod storing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::Backend;

/// How long a case waits for something that should happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Somewhere an engine keeps its queues. What an engine says it cannot do, by its
/// [`Capabilities`](crate::backend::Capabilities), is not asked of it. Every case gets a new, empty one.
#[async_trait]
pub trait Place: fmt::Debug + Send + Sync + 'static {
    /// Opens the engine. Cases call it again, after everything opened before was closed and dropped, to see what was
    /// kept.
    async fn open(&self) -> Arc<dyn Backend>;
}

/// The cases. Each takes a new place and panics if the engine breaks its promise.
pub mod cases {
    pub use super::failing::{
        a_poison_key_is_parked_while_others_flow,
        a_rejected_message_is_a_dead_letter_and_is_redriven_in_order,
        a_resumed_key_goes_on_in_order, a_spent_unkeyed_message_is_a_dead_letter,
        dead_letters_are_purged, many_dead_letters_are_moved_once,
        retries_wait_and_hold_only_their_key,
    };
    pub use super::ordering::{
        a_hot_key_does_not_fill_memory, a_run_is_acknowledged_as_a_prefix,
        every_message_of_a_key_comes_in_order, keys_of_a_partition_run_side_by_side,
        unkeyed_messages_wait_for_nobody,
    };
    pub use super::owning::{
        a_drain_finishes_what_runs_and_leaves_the_rest, a_dropped_worker_loses_nothing,
        a_pause_is_kept, a_read_keeps_within_its_bounds, a_zombie_settles_nothing,
        a_zombie_takes_no_resumption, another_number_of_partitions_is_refused,
        settling_twice_changes_nothing,
    };
    pub use super::storing::{
        a_batch_is_stored_whole_or_not_at_all, a_delayed_message_comes_when_it_is_due,
        a_full_queue_holds_publishers_back, a_large_payload_is_refused, a_unique_id_is_stored_once,
        depth_and_age_are_told, opening_again_finds_everything,
    };
}

/// Makes a module of tests, one per case of the suite: `conformance!(module, place)`, where `place` is an expression
/// that gives a new empty [`Place`](crate::testing::Place) each time.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $place:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance! { @cases $place;
                a_batch_is_stored_whole_or_not_at_all
                a_delayed_message_comes_when_it_is_due
                a_drain_finishes_what_runs_and_leaves_the_rest
                a_dropped_worker_loses_nothing
                a_full_queue_holds_publishers_back
                a_hot_key_does_not_fill_memory
                a_large_payload_is_refused
                a_pause_is_kept
                a_poison_key_is_parked_while_others_flow
                a_read_keeps_within_its_bounds
                a_rejected_message_is_a_dead_letter_and_is_redriven_in_order
                a_resumed_key_goes_on_in_order
                a_run_is_acknowledged_as_a_prefix
                a_spent_unkeyed_message_is_a_dead_letter
                a_unique_id_is_stored_once
                a_zombie_settles_nothing
                a_zombie_takes_no_resumption
                another_number_of_partitions_is_refused
                dead_letters_are_purged
                depth_and_age_are_told
                every_message_of_a_key_comes_in_order
                keys_of_a_partition_run_side_by_side
                many_dead_letters_are_moved_once
                opening_again_finds_everything
                retries_wait_and_hold_only_their_key
                settling_twice_changes_nothing
                unkeyed_messages_wait_for_nobody
            }
        }
    };
    (@cases $place:expr; $($case:ident)*) => {
        $(
            #[::tokio::test]
            async fn $case() {
                $crate::testing::cases::$case(&$place).await;
            }
        )*
    };
}
