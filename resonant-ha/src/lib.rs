//! Failover between regions that never makes two primaries: one that acts where it is allowed to, and one that only watches.
//!
//! # Quick start
//!
//! Watching needs nothing but the regions, and promotes nobody:
//!
//! ```
//! use resonant_ha::{FailoverManager, backend::ServiceRegion};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> resonant_ha::Result<()> {
//! let failover = FailoverManager::builder()
//!     .primary_region("us-east-1")
//!     .secondary_regions(["us-west-2", "eu-west-1"])
//!     .region("us-east-1", ServiceRegion::tcp("http://east.internal", "127.0.0.1:1"))
//!     .region("us-west-2", ServiceRegion::tcp("http://west.internal", "127.0.0.1:1"))
//!     .region("eu-west-1", ServiceRegion::tcp("http://europe.internal", "127.0.0.1:1"))
//!     .build()?;
//! failover.start().await?;
//! let topologies = failover.subscribe();            // db.follow(topologies), with resonant-db
//! assert_eq!(topologies.borrow().epoch, 0);         // nothing is known yet
//! # Ok(()) }
//! ```
//!
//! Acting takes three more lines: whose word counts, that it may, and what proves that the old primary is gone. See
//! [`backend::postgres`] for what the servers need.
//!
#![cfg_attr(feature = "postgres", doc = "```no_run")]
#![cfg_attr(not(feature = "postgres"), doc = "```ignore")]
//! # async fn example(east: &str, west: &str, europe: &str) -> resonant_ha::Result<()> {
//! use std::sync::Arc;
//! use resonant_ha::backend::postgres::{PostgresRegion, PostgresVoter};
//! use resonant_ha::voter::{Quorum, Voter};
//! use resonant_ha::{FailoverConfig, FailoverManager};
//!
//! let voters = ["postgresql://votes-1:5432/v", "postgresql://votes-2:5432/v", "postgresql://votes-3:5432/v"];
//! let voters = voters.map(|url| Arc::new(PostgresVoter::new(url)) as Arc<dyn Voter>);
//! let failover = FailoverManager::builder()
//!     .primary_region("us-east-1")
//!     .secondary_regions(["us-west-2", "eu-west-1"])
//!     .config(FailoverConfig { synchronous_standbys: 1, ..FailoverConfig::default() })
//!     .allow_promotion(true)
//!     .lease_store(Quorum::new(voters)?)
//!     .region("us-east-1", PostgresRegion::new(east).standby_name("east"))
//!     .region("us-west-2", PostgresRegion::new(west).standby_name("west"))
//!     .region("eu-west-1", PostgresRegion::new(europe).standby_name("europe"))
//!     .build()?;
//! failover.start().await?;
//! # Ok(()) }
//! ```
//!
//! Those who keep the promotion they have, such as Patroni, [`observe`](FailoverBuilder::observe) it instead.
//!
//! # How it goes
//!
//! Intent, fence, freeze, choose, promote, re-point, commit, publish, rejoin. Every step is in a record at the voters
//! before its first order goes out, so another manager goes on from there; every order carries an epoch, and a region
//! refuses those below its pledge. A promotion needs a [`Proof`] that no lower epoch can acknowledge writes: so many
//! regions have stopped receiving that no commit finds enough of them, or somebody with power over the host says that it
//! has stopped. Without one nobody is promoted, and an [event](EventKind::Refused) says why.
//!
//! # Guarantees
//!
//! - **One primary acknowledges.** With synchronous standbys or power over the hosts, also through partitions, pauses and
//!   lost leases. [`FencePolicy::AllowUnfenced`] gives it up, and the history says so.
//! - **Nothing acknowledged is lost** with [`synchronous_standbys`](FailoverConfig::synchronous_standbys) of at least 1,
//!   for writes that did not lower `synchronous_commit`. Without them at most [`max_lag`](FailoverConfig::max_lag) of
//!   what the primary was last seen to have.
//! - **Epochs only rise**, for every subscriber, also when a manager reads an old record.
//! - **Nothing begins** without a lease, while paused, alone, while others hear the primary, or over the budget.
//! - **Failback is a switchover** that starts after an unbroken hold, and is called off where it cannot be finished.
//!
//! # What it does not do
//!
//! - Promoting PostgreSQL is on trial: it is tested with PostgreSQL 15 and simulated, and nobody has run it for long.
//! - All managers of a name need the same regions. Where those change, stop all, and start all under a new `name()`.
//! - It cannot fence an asynchronous primary that it cannot reach without an agent.
//! - It cannot act without a majority of the voters, or where a voter shares the fate of the primary.
//! - It does not stop stale reads on a primary that is cut off; clients that follow the epochs do not read there.
//! - It brings back every region that it has power over, also one that a person stopped: pause it first.
//!
//! # Cancellation
//!
//! The manager's tasks belong to it and end with the last handle or [`close`](FailoverManager::close). A dropped
//! [`switchover`](FailoverManager::switchover), [`pause`](FailoverManager::pause) or
//! [`resume`](FailoverManager::resume) goes on without its caller.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `postgres` | yes | `backend::postgres`: regions and voters, through tokio-postgres |
//! | `kubernetes` | no | `voter::KubernetesVoter`: a Lease object of a cluster, through kube |
//! | `simulation` | no | `simulation`: the protocol under seeded faults, with your settings |
//! | `tls` | no | TLS to PostgreSQL: `sslmode=verify-full`, by rustls with ring |
//! | `testing` | no | `testing`: the suites for those who write voters and regions |

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod backend;
mod command;
mod config;
mod core;
mod error;
mod hook;
mod http;
mod manager;
pub mod observe;
mod region;
mod settings;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(feature = "testing")]
pub mod testing;
pub mod voter;

pub use resonant_common::join::{Finding, Node, Severity, Topology};

pub use self::command::Command;
pub use self::config::{FailoverConfig, FencePolicy, Recovery};
pub use self::core::{Event, EventKind, Intent, Kind, Reason, Step};
pub use self::error::{Error, ErrorKind, Result};
pub use self::hook::{CommandHook, Hook};
pub use self::manager::{
    Drill, FailoverBuilder, FailoverManager, Plan, Proposal, RegionStatus, State, Status,
};
pub use self::region::{
    CommitsWaitFor, Frozen, Observation, Pledge, PledgedTo, Proof, Reach, RegionBackend,
    RegionName, RegionTarget, Role, Unsettled,
};
pub use self::settings::{DatabaseRole, MultiRegion, RegionSettings};
