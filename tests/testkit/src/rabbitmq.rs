//! RabbitMQ: one node, or a cluster of several on one host.
//!
//! A node takes four to five seconds to start and three take ten, nearly all of it computing: share one per test binary, and
//! give each test a virtual host of its own.
//!
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::RabbitMq;
//! use tokio::sync::OnceCell;
//!
//! static RABBIT: OnceCell<RabbitMq> = OnceCell::const_new();
//! let rabbit = RABBIT.get_or_try_init(RabbitMq::start).await?;
//!
//! let vhost = rabbit.vhost().await?;                   // queues of this test only
//! let url = vhost.url();                               // amqp://guest:guest@127.0.0.1:PORT/VHOST
//!
//! rabbit.node(0).raise_memory_alarm().await?;          // publishers are blocked
//! rabbit.node(0).clear_memory_alarm().await?;
//! rabbit.node(0).close_connections("maintenance").await?;
//! # Ok(()) }
//! ```
//!
//! In a cluster, `rabbit.leader_of(vhost, queue)` finds whom to kill.

mod config;
mod control;
mod faults;
mod node;
mod server;
mod vhost;

pub use self::node::RabbitNode;
pub use self::server::{RabbitBuilder, RabbitMq};
pub use self::vhost::Vhost;
