//! Connections that many plain reads share.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{Param, Role, Rows};

/// Whether plain reads may share connections ("lanes") when there are more of them than connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Lanes {
    /// Where the engine can do that safely. Default.
    #[default]
    Auto,
    /// Never: each statement has a connection to itself.
    Off,
}

/// A snapshot of the shared connections of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LanesStatus {
    /// Shared connections that are open. They come on top of the pool's.
    pub open: u32,
    /// Reads under way on them.
    pub in_flight: u32,
    /// Reads they have answered.
    pub reads: u64,
    /// Shared connections that were given up because they did not answer, or a statement blocked them.
    pub lost: u64,
}

/// What is known of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fitness {
    /// It never shares a connection.
    Own,
    /// It may share one once it is known better: tell [`Sharing::ran`] what it took on a connection of its own.
    Watched,
    /// It may share one, or will as soon as it is found harmless: nobody has to be told what it takes.
    Shared,
}

/// Connections to one node that many reads share, each read's answer coming behind those asked for before it.
///
/// # Contract
///
/// - Only what provably reads, sets nothing, waits for nobody and is short is taken; a refusal is always right. The
///   engine refuses a write on these connections, whatever the statement turns out to be.
/// - Whatever goes wrong on them is no answer: the caller then runs the statement on a connection of its own, which says
///   what is wrong.
/// - Who does not take his answer holds up nobody for longer than a moment.
/// - Nothing is opened before there is a need, and [`empty`](Sharing::empty) closes all.
#[async_trait]
pub trait Sharing: fmt::Debug + Send + Sync + 'static {
    /// What is known of a statement. Cheap: it is asked for every read.
    fn fitness(&self, sql: &str) -> Fitness;

    /// Runs a statement on a shared connection to the node as what it is taken for: a primary's reads are not answered by a
    /// standby. `None` when it does not go there now. The future answers `None` when the statement has to be run elsewhere.
    fn read<'a>(
        &'a self,
        role: Role,
        sql: &'a str,
        params: &'a [Param<'a>],
    ) -> Option<BoxFuture<'a, Option<Rows>>>;

    /// A watched statement took this long on a connection of its own.
    fn ran(&self, sql: &str, took: Duration);

    /// As many connections it opens at most.
    fn most(&self) -> u32;

    /// Reads under way.
    fn in_flight(&self) -> u32;

    /// A snapshot.
    fn status(&self) -> LanesStatus;

    /// Lets go of all connections: reads under way answer `None`. They are opened again when there is a need.
    fn empty(&self);

    /// Off: lets go of all connections and opens none, until it is on again. It is on at first.
    fn switch(&self, on: bool);

    /// Opens none any more, and waits until those there are have been closed.
    async fn close(&self);
}
