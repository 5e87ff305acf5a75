//! What does not fit into one answer: rows piece by piece, bulk data in and out, notifications.
//!
//! An engine that has none of it leaves the methods of [`Backend`](super::Backend) and
//! [`Connection`](super::Connection) that lead here as they are.

use async_trait::async_trait;

use crate::{Param, Result, Rows};

/// A connection that answers in pieces.
///
/// # Contract
///
/// - Only what was asked for is fetched: who does not ask for the next piece holds the server back, and memory stays
///   bounded however long the answer is.
/// - Opened outside a transaction, each runs in one of its own, which ends with the last piece. An error ends it too.
/// - Between opening and the last piece no other method is called but [`verdict`](super::Connection::verdict),
///   [`clean`](super::Connection::clean) and `close`. Given up in between, the connection is dirty, as after a dropped
///   future.
/// - The limit of a statement counts for each piece, not for the whole.
#[async_trait]
pub trait Streaming: Send {
    /// Runs a statement whose rows are then taken piece by piece.
    async fn open_rows(&mut self, sql: &str, params: &[Param<'_>]) -> Result<()>;

    /// The next rows, at least one; `None` at the end.
    async fn next_rows(&mut self) -> Result<Option<Rows>>;

    /// Begins a `COPY … TO STDOUT`.
    async fn open_copy_out(&mut self, sql: &str) -> Result<()>;

    /// The next data, not cut along rows; `None` at the end.
    async fn next_copy(&mut self) -> Result<Option<Vec<u8>>>;

    /// Begins a `COPY … FROM STDIN`.
    async fn open_copy_in(&mut self, sql: &str) -> Result<()>;

    /// Sends data, not necessarily cut along rows. That the engine refuses them may show only at the end.
    async fn send_copy(&mut self, data: &[u8]) -> Result<()>;

    /// Ends it; answers how many rows there were.
    async fn finish_copy_in(&mut self) -> Result<u64>;
}

/// A connection of its own that hears what is notified on some channels.
#[async_trait]
pub trait Listen: Send {
    /// The next notification. An error means that the connection is done with and that some may have been missed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by a dropped future.
    async fn next(&mut self) -> Result<Notification>;
}

/// What somebody notified. `Debug` does not show the payload.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The channel.
    pub channel: String,
    /// The text that came along, which may be empty.
    pub payload: String,
}

impl Notification {
    /// A notification.
    pub fn new(channel: impl Into<String>, payload: impl Into<String>) -> Self {
        Self { channel: channel.into(), payload: payload.into() }
    }
}

impl std::fmt::Debug for Notification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notification").field("channel", &self.channel).finish_non_exhaustive()
    }
}
