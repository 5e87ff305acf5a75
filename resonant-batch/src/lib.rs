//! Many small requests become few large ones, without waiting when nobody else is there.
//!
//! A [`BatchProcessor`] gathers items that are submitted one by one, hands them to your closure as a batch, and gives every
//! submitter the result of its own item. [`process_all`] runs work that cannot be shared, many at a time with a limit.
//!
//! # Quick start
//!
//! ```
//! use resonant_batch::BatchProcessor;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), resonant_batch::Error> {
//! let prices = [3, 1, 4, 1, 5];
//! // `async move`, so that it may use what it captures; it is cloned for each batch.
//! let batch = BatchProcessor::builder(async move |articles: Vec<usize>| {
//!     // One result for each item, in order. A `SELECT … WHERE id = ANY($1)` would go here.
//!     articles.into_iter().map(|it| prices.get(it).copied().ok_or("no such article")).collect::<Vec<_>>()
//! })
//! .max_batch_size(100)
//! .build()?;
//!
//! let (first, second) = tokio::join!(batch.submit(2), batch.submit(9)); // one call for both
//! assert_eq!(first?, 4);
//! assert!(second.is_err());
//! # Ok(()) }
//! ```
//!
//! # When a batch is dispatched
//!
//! With [`Policy::Idle`], the default, at once while one of `max_in_flight` slots is free. Items gather only while all are
//! busy, so a lone item never waits and batches grow with the load by themselves. With [`Policy::Fixed`], when it is full or
//! its first item has waited `max_wait_time`: fewest batches, for processors that cost the same whatever the size.
//! Either way [`flush`](BatchProcessor::flush) and [`drain`](BatchProcessor::drain) dispatch what is there.
//!
//! With keys ([`BatchProcessor::keyed`]) one batch holds items of one key; keys take turns, and cost nothing while they are
//! idle. `max_in_flight_per_key(1)` keeps the order of items within a key.
//!
//! # Guarantees
//!
//! - No batch exceeds `max_batch_size` or `max_batch_weight`; no more than `max_queued` items are queued, and no more than
//!   `max_in_flight` batches run.
//! - Every accepted item gets exactly one outcome: if the processor fails, panics, hangs beyond `max_process_time`, returns
//!   the wrong number of results, is drained, or loses its runtime.
//! - A panic, an error or a hang touches its own batch only.
//! - Who waits for room is served first come first served, without having to be polled.
//!
//! # What it does not do
//!
//! - Items live in memory: a crash loses them. To survive one, use `resonant-queue`.
//! - Results are not kept. [`Builder::single_flight`] shares a run with equal items on their way, no longer; to keep values
//!   use `resonant-cache`.
//! - Nothing is retried, except by [`Builder::isolate_failures`].
//! - Order holds within a key, and only with one batch of the key in flight.
//!
//! # Cancellation
//!
//! A dropped submission takes its item back if it was not dispatched yet; a batch everybody has left is not run. Batches run
//! in tasks of the processor, never in the future of a submitter, so nobody's leaving harms the others.
//!
//! # Features
//!
//! None. Metrics are emitted through the `metrics` crate (`resonant_batch_…`), spans and state changes through `tracing`
//! (target `resonant::batch`). A lone item that finds a worker idle has not waited; what it takes to wake the worker counts
//! as processing.
//!
//! A batch runs in a span `batch.process` (debug). It is a child of the submitter's span where there is one item, else a
//! root that follows from the submitters' spans: from 128 of them at most, the number of the others in
//! `resonant.batch.links_dropped`. OpenTelemetry shows these as links.

mod builder;
mod config;
mod core;
mod crew;
mod desk;
mod door;
mod drain;
mod error;
mod isolate;
mod key;
mod metrics;
#[cfg(all(test, resonant_model))]
mod model;
mod output;
mod process;
mod process_all;
mod processor;
mod state;
mod submit;
mod submitted;
mod sync;
mod trace;
mod tray;
mod worker;

pub use self::builder::Builder;
pub use self::config::{BatchConfig, Policy};
pub use self::drain::DrainReport;
pub use self::error::{Error, ErrorKind, Result};
pub use self::key::Key;
pub use self::output::{BatchOutput, PerItem};
pub use self::process_all::{ProcessAll, process_all, process_stream};
pub use self::processor::{BatchProcessor, Stats, WithKey};
pub use self::submit::Rejected;
pub use self::submitted::Submitted;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
