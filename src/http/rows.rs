//! What the status page shows, as plain values.
//!
//! Fill in what is known and leave the rest at its default. A `state` colours the row. Times are seconds.
//!
//! What the family's primitives say of themselves becomes rows by functions of their kinds:
//!
//! ```
//! # #[cfg(all(feature = "cache", feature = "queue"))] {
//! use resonant_sdk::cache::DistributedCache;
//! use resonant_sdk::http::{Api, rows};
//! use resonant_sdk::queue::{self, PartitionedQueue};
//!
//! fn api(cache: DistributedCache, tasks: PartitionedQueue<u64>) -> Result<Api, resonant_sdk::scale::Error> {
//!     Api::builder()
//!         .token("ada", "a long secret of ada's")
//!         .show(move || {
//!             std::future::ready(Ok::<_, queue::Error>(rows::CacheTier::of_cache("users", &cache)))
//!         })
//!         .show(move || {
//!             let tasks = tasks.clone();
//!             async move {
//!                 let depth = tasks.depth().await?;
//!                 Ok::<_, queue::Error>(vec![rows::Queue::of(tasks.name(), &depth, &tasks.findings())])
//!             }
//!         })
//!         .build()
//! }
//! # }
//! ```
//!
//! Several of a kind stand in one table: put their rows into one list.

mod of;

use std::sync::Arc;

use resonant_common::join::{Severity, Topology};
use serde::Serialize;
use tokio::sync::watch;

pub use self::of::worst;

/// A kind of row, shown in a table of its own. Implement it for rows of your own, too.
pub trait Row: Serialize + Send + Sync + 'static {
    /// The word by which the table is known: lower case and unique.
    const TABLE: &'static str;
    /// What stands above it.
    const TITLE: &'static str;
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident in $table:literal $title:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct $name {
            /// Its name.
            pub name: String,
            /// How it is.
            pub state: Severity,
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$kind>,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { name: String::new(), state: Severity::Ok, $($field: None,)* }
            }
        }

        impl Row for $name {
            const TABLE: &'static str = $table;
            const TITLE: &'static str = $title;
        }
    )*};
}

rows! {
    /// A region.
    Region in "regions" "Regions" {
        /// `primary` or `secondary`.
        role: String,
        /// The epoch of its topology.
        epoch: u64,
    }

    /// A server of a database.
    Node in "nodes" "Nodes" {
        /// `primary`, `replica`, …
        role: String,
        /// How far it is behind, in seconds.
        lag_seconds: f64,
        /// The region it is in.
        region: String,
    }

    /// A shard.
    Shard in "shards" "Shards" {
        /// Rows, or whatever it is measured by.
        rows: u64,
        /// Statements that failed.
        failures: u64,
    }

    /// A tier of a cache.
    CacheTier in "caches" "Caches" {
        /// Entries held.
        entries: u64,
        /// Bytes held.
        bytes: u64,
        /// Share of calls answered from it, 0 to 1.
        hit_ratio: f64,
    }

    /// A queue, or a partition of one.
    Queue in "queues" "Queues" {
        /// The partition, where the row is one.
        partition: u32,
        /// Messages not yet finished.
        depth: u64,
        /// Messages handed to a handler.
        in_flight: u64,
        /// The age of the oldest, in seconds.
        oldest_seconds: f64,
        /// Keys that wait for a person.
        parked_keys: u64,
        /// Messages given up.
        dead: u64,
    }

    /// A pool of connections.
    Pool in "pools" "Pools" {
        /// In use.
        in_use: u64,
        /// Open and not in use.
        idle: u64,
        /// The most.
        max: u64,
        /// Callers that wait.
        waiting: u64,
    }

    /// A batch processor.
    Batch in "batches" "Batches" {
        /// Items that wait.
        queued: u64,
        /// Batches being processed.
        in_flight: u64,
        /// Items processed.
        processed: u64,
        /// Items that failed.
        failed: u64,
    }
}

/// The regions of a topology, with its epoch.
pub(super) fn regions(
    topology: watch::Receiver<Topology>,
) -> impl Fn() -> std::future::Ready<Result<Vec<Region>, std::convert::Infallible>> + Send + Sync + 'static
{
    let topology = Arc::new(topology);
    move || {
        let topology = topology.borrow();
        let row = |name: &str| {
            let primary = topology.primary.as_deref() == Some(name);
            Region {
                name: name.to_owned(),
                state: if topology.primary.is_none() { Severity::Fail } else { Severity::Ok },
                role: Some(if primary { "primary" } else { "secondary" }.into()),
                epoch: Some(topology.epoch),
            }
        };
        std::future::ready(Ok(topology.nodes.iter().map(|node| row(&node.name)).collect()))
    }
}
