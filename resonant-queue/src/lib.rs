//! A partitioned queue that keeps strict order per key, runs keys in parallel, and loses nothing.
//!
//! # Quick start
//!
//! ```
//! use resonant_queue::{Delivery, Memory, PartitionedQueue};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Task { agent_id: String, goal: String }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let queue = PartitionedQueue::<Task>::builder("session-tasks")
//!     .partitions(16)
//!     .partition_key("agent_id")
//!     .backend(Memory::new())
//!     .build()
//!     .await?;
//!
//! queue.publish(&Task { agent_id: "agent_123".into(), goal: "process data".into() }).await?;
//!
//! let worker = queue
//!     .worker(async move |delivery: Delivery<Task>| {
//!         println!("{}: {}", delivery.message().agent_id, delivery.message().goal);
//!         Ok(())
//!     })
//!     .concurrency(64)
//!     .start()
//!     .await?;
//! # while queue.depth().await?.unfinished() > 0 { tokio::time::sleep(std::time::Duration::from_millis(1)).await; }
//! worker.drain().await?;
//! # Ok(()) }
//! ```
//!
//! # What happens to a message
//!
//! ```text
//! publish ─▶ ready ─▶ handler ─▶ finished, gone
//!    │         ▲         │ failed: waits (backoff, full jitter), its key waits with it
//!    ▼         └─────────┤
//! delayed                ├─ failed for good ─▶ key parked, with its later messages ─ resume_key ─▶ ready
//!                        └─ rejected         ─▶ dead letter ──────────────────────── redrive ───▶ ready
//! ```
//!
//! # Guarantees
//!
//! - **Order**: messages of one key are handled one after another in the order they were confirmed, also through retries,
//!   parking, a change of owner and a restart. A redriven dead letter comes behind what waits then. Keys run in parallel
//!   inside a partition; a slow or failing key holds up nobody else.
//! - **No loss**: publish returns after the engine confirmed. A message leaves the engine when its handler has answered
//!   and that is stored. Delivery is at least once: what was handled but not yet settled when a process died comes again,
//!   so handlers should be idempotent.
//! - **One owner**: partitions are leased with an epoch that only rises. What a superseded owner settles is refused as
//!   [`ErrorKind::Fenced`]; [`Delivery::epoch`] lets your own store do the same.
//! - **Versions**: [`version`](QueueBuilder::version) says what messages look like, [`upcast`](QueueBuilder::upcast) brings
//!   earlier ones up to date; one that a worker cannot know yet parks its key instead of failing, also with
//!   [`Poison::DeadLetter`]. Without a key nothing can wait for it: it becomes a dead letter.
//! - **Bounds**: depth, payload, memory per partition, remembered ids, attempts and waits all have limits with stated
//!   defaults, see [`QueueConfig`].
//!
//! # What it does not do
//!
//! No exactly-once effects, but in the database of a PostgreSQL queue: use the key, sequence or a unique id to make yours idempotent. No order between keys. No
//! change of the number of partitions of a queue that exists. Attempts that end with the process are not
//! counted, so a message that kills its process is tried again for ever.
//!
//! # Cancellation
//!
//! A dropped publish has stored all of its batch or none. A dropped [`Worker`] stops its handlers; what they had not
//! finished comes again. [`Worker::drain`] is the orderly end.
//!
//! # Engines
//!
//! | engine | feature | survives | shared by processes |
//! |---|---|---|---|
//! | [`Memory`] | always there | nothing | no |
#![cfg_attr(
    feature = "postgres",
    doc = "| [`Postgres`] | `postgres` | what a commit of the server survives | yes |"
)]
#![cfg_attr(
    not(feature = "postgres"),
    doc = "| `Postgres` | `postgres` | what a commit of the server survives | yes |"
)]
#![cfg_attr(
    feature = "rabbitmq",
    doc = "| [`RabbitMq`] | `rabbitmq` | the loss of a minority of the broker's nodes | yes |"
)]
#![cfg_attr(
    not(feature = "rabbitmq"),
    doc = "| `RabbitMq` | `rabbitmq` | the loss of a minority of the broker's nodes | yes |"
)]
#![cfg_attr(
    feature = "sqlite",
    doc = "| [`Sqlite`] | `sqlite` | power loss ([`Durability::Full`]) or the process ([`Durability::Normal`]) | yes, on one machine |"
)]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "| `Sqlite` | `sqlite` | power loss or the process, as you choose | yes, on one machine |"
)]
//!
//! RabbitMQ leases partitions through a store of yours, such as `Postgres::leases`.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `postgres` | no | tables of PostgreSQL 12 or later, through `resonant-db` |
//! | `rabbitmq` | no | quorum queues of RabbitMQ 3.10 or later, publisher confirms; no plugin |
//! | `sqlite` | no | the embedded durable engine; compiles SQLite |
//! | `testing` | no | the conformance suite for those who write an engine |
//! | `tower` | no | handlers that are a `tower::Service`, with its layers |

mod admin;
pub mod backend;
mod builder;
mod clock;
mod config;
mod delivery;
mod depth;
mod error;
mod key;
mod lanes;
mod message;
mod metrics;
mod publish;
mod queue;
mod sequence;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod version;
mod worker;

pub use resonant_common::backoff::Backoff;

pub use self::backend::memory::Memory;
#[cfg(feature = "postgres")]
pub use self::backend::postgres::{Effects, Inbox, Outbox, Postgres, PostgresBuilder, Schema};
#[cfg(feature = "rabbitmq")]
pub use self::backend::rabbitmq::{RabbitMq, RabbitMqBuilder};
#[cfg(feature = "sqlite")]
pub use self::backend::sqlite::{Durability, Sqlite};
pub use self::builder::QueueBuilder;
pub use self::config::{Poison, QueueConfig, RetryConfig};
pub use self::delivery::{Delivery, HandlerError, Progress, Run};
pub use self::depth::{DeadLetter, Depth, ParkedKey, Stored};
pub use self::error::{Error, ErrorKind, Result};
pub use self::key::Key;
pub use self::message::{Headers, Message, Outgoing, PublishOptions, Receipt};
pub use self::queue::PartitionedQueue;
pub use self::sequence::{SequenceCheck, SequenceReport};
#[cfg(feature = "tower")]
pub use self::worker::ServiceError;
pub use self::worker::{DrainReport, RunWorkerBuilder, Worker, WorkerBuilder};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
