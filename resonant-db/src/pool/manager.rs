//! What a pool needs to know about the connections it keeps.

use std::future::{self, Future};

use crate::Result;

/// Opens, looks at, cleans and closes the connections of a [`ConnectionPool`](crate::pool::ConnectionPool).
///
/// Implement it with plain `async fn`. The pool puts a deadline around every future it gets from here and runs it in a
/// task of its own, so that a caller who gives up never leaves one half done.
///
/// # Contract
///
/// - [`connect`](Manager::connect) may be dropped at any await: what it opened so far must go away by being dropped.
/// - [`verdict`](Manager::verdict) is called on the caller's path, at every checkout of an idle connection and at every
///   return: it looks at what is in memory (a closed flag, the status byte of the last answer), does no I/O and never
///   panics.
/// - A connection dropped at any moment, without [`close`](Manager::close), must not leak anything on this side.
pub trait Manager: Send + Sync + 'static {
    /// What is pooled.
    type Connection: Send + 'static;

    /// Opens a connection. The kind of the error decides how callers are told: one that is
    /// [transient](crate::Error::is_transient) is tried again for a moment, any other is reported at once.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Asks the other side whether an idle connection still works. One that does not is closed and replaced.
    fn check(&self, connection: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// What should happen to the connection, from what is known without asking anybody. Default: reuse it.
    fn verdict(&self, connection: &mut Self::Connection) -> Verdict {
        let _ = connection;
        Verdict::Reuse
    }

    /// Makes a connection fit for the next caller, after a verdict of [`Verdict::Clean`]; `None` closes it. Runs off the
    /// caller's path. Default: it is fit as it is.
    fn clean(
        &self,
        connection: Self::Connection,
    ) -> impl Future<Output = Option<Self::Connection>> + Send {
        future::ready(Some(connection))
    }

    /// Says goodbye to the other side. Default: drops the connection.
    fn close(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send {
        drop(connection);
        future::ready(())
    }
}

/// What should happen to a connection that comes back, or that is about to be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes to the next caller as it is.
    Reuse,
    /// It needs [`Manager::clean`] first.
    Clean,
    /// It is closed.
    Discard,
}
