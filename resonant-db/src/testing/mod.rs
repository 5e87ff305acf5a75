//! The conformance suite of backends: what every engine must do, as tests.
//!
//! Whoever writes a [`Backend`] runs the same cases as the engines that ship:
//!
//! ```
//! # #[cfg(feature = "sqlite")] mod example {
//! use std::sync::Arc;
//!
//! use resonant_db::backend::Backend;
//! use resonant_db::backend::sqlite::Sqlite;
//! use resonant_db::testing::Place;
//!
//! #[derive(Debug)]
//! struct InMemory(Arc<Sqlite>);
//!
//! impl InMemory {
//!     fn new() -> Self {
//!         Self(Arc::new(Sqlite::from_url("sqlite::memory:").expect("a good URL")))
//!     }
//! }
//!
//! impl Place for InMemory {
//!     fn backend(&self) -> Arc<dyn Backend> {
//!         self.0.clone()
//!     }
//!     fn url(&self) -> String {
//!         "sqlite::memory:".into()
//!     }
//! }
//!
//! resonant_db::conformance!(in_memory, InMemory::new());
//! # }
//! # fn main() {}
//! ```
//!
//! The macro makes a module with one `#[tokio::test]` per case, so a failure names what the engine breaks. It needs
//! `tokio` with `macros` and `rt` among the dev-dependencies. Cases use the real clock and wait for states, never for
//! time to pass. They speak the portable subset of SQL: `CREATE TABLE` with `BIGINT`, `DOUBLE PRECISION`, `TEXT`,
//! `BYTEA`, `BOOLEAN`, primary keys, `UNIQUE`, `NOT NULL`, `CHECK` and `REFERENCES`; `INSERT`, `UPDATE`, `DELETE` with
//! `RETURNING`; `SELECT` with `WITH RECURSIVE`; savepoints.

#![expect(clippy::panic, reason = "a suite fails by panicking")]

mod errors;
mod kit;
mod sessions;
mod streams;
mod transactions;
mod values;

use std::fmt;
use std::sync::Arc;

use crate::backend::Backend;

/// A database that holds no tables of its own. Every case gets a new one.
pub trait Place: fmt::Debug + Send + Sync + 'static {
    /// The engine.
    fn backend(&self) -> Arc<dyn Backend>;

    /// The URL of the node under test; it takes reads and writes.
    fn url(&self) -> String;
}

/// The cases. Each takes a new place and panics if the engine breaks its promise.
pub mod cases {
    pub use super::errors::{
        a_constraint_says_its_kind, a_read_only_connection_refuses_writes,
        a_wrong_statement_is_rejected_and_hurts_nobody, one_call_runs_one_statement,
        parameters_must_fit_the_statement,
    };
    pub use super::sessions::{
        a_connection_left_in_a_transaction_is_cleaned, a_dropped_statement_is_stopped_and_cleaned,
        a_dropped_write_is_whole_or_nothing, a_statement_runs_into_its_limit,
        nobody_meets_what_others_set, positions_only_rise,
    };
    pub use super::streams::{
        a_stream_ends_with_its_error, a_stream_that_is_given_up_is_cleaned, rows_come_in_pieces,
    };
    pub use super::transactions::{
        a_bare_begin_leaves_nothing_open, a_commit_is_seen_and_a_rollback_is_not,
        a_failed_bulk_leaves_nothing, a_read_only_transaction_refuses_writes,
        a_savepoint_undoes_its_part, affected_rows_are_counted, batches_are_all_or_none,
        readers_see_one_state, writers_do_not_lose_updates,
    };
    pub use super::values::{
        big_rows_and_many_columns_come_whole, bulk_rows_keep_order_and_types,
        empty_answers_have_columns, placeholders_stand_for_their_number, rows_decode_into_types,
        unicode_and_empty_texts_differ_from_null, values_come_back_as_they_went,
    };
}

/// Makes a module of tests, one per case of the suite: `conformance!(module, place)`, where `place` is an expression
/// that gives a new [`Place`](crate::testing::Place) each time.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $place:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance! { @cases $place;
                a_bare_begin_leaves_nothing_open
                a_commit_is_seen_and_a_rollback_is_not
                a_connection_left_in_a_transaction_is_cleaned
                a_constraint_says_its_kind
                a_dropped_statement_is_stopped_and_cleaned
                a_dropped_write_is_whole_or_nothing
                a_failed_bulk_leaves_nothing
                a_read_only_connection_refuses_writes
                a_read_only_transaction_refuses_writes
                a_savepoint_undoes_its_part
                a_statement_runs_into_its_limit
                a_stream_ends_with_its_error
                a_stream_that_is_given_up_is_cleaned
                a_wrong_statement_is_rejected_and_hurts_nobody
                affected_rows_are_counted
                batches_are_all_or_none
                big_rows_and_many_columns_come_whole
                bulk_rows_keep_order_and_types
                empty_answers_have_columns
                nobody_meets_what_others_set
                one_call_runs_one_statement
                parameters_must_fit_the_statement
                placeholders_stand_for_their_number
                positions_only_rise
                readers_see_one_state
                rows_come_in_pieces
                rows_decode_into_types
                unicode_and_empty_texts_differ_from_null
                values_come_back_as_they_went
                writers_do_not_lose_updates
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

#[cfg(test)]
mod tests {
    /// A case that is in no list is run by nobody.
    #[test]
    fn every_case_is_listed() {
        let list = include_str!("mod.rs");
        let cases = [
            include_str!("errors.rs"),
            include_str!("sessions.rs"),
            include_str!("streams.rs"),
            include_str!("transactions.rs"),
            include_str!("values.rs"),
        ];
        let names: Vec<&str> = cases
            .iter()
            .flat_map(|source| source.split("\npub async fn ").skip(1))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let listed = list.lines().filter(|line| line.trim() == name).count();
            assert_eq!(listed, 1, "conformance! does not list {name}");
        }
    }
}
