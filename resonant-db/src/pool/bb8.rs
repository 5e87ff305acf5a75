//! Every manager written for bb8 is a manager here.

use std::fmt;
use std::sync::Arc;

use bb8::ManageConnection;

use super::manager::{Manager, Verdict};
use crate::{Error, ErrorKind, Result};

type MapError<E> = Arc<dyn Fn(&'static str, E) -> Error + Send + Sync>;

/// A bb8 manager as a [`Manager`] of a [`ConnectionPool`](crate::pool::ConnectionPool).
///
/// `is_valid` becomes the background check and `has_broken` the free look at checkout and return; there is no round trip
/// per checkout. bb8 knows no cleaning: what a caller leaves in a session stays in it.
pub struct Bb8<M: ManageConnection> {
    manager: M,
    map_error: MapError<M::Error>,
}

impl<M: ManageConnection> Bb8<M> {
    /// Wraps a manager. Its errors become [`ErrorKind::Unavailable`] with their `Debug` text as the message, because
    /// that is all bb8 asks of them.
    pub fn new(manager: M) -> Self {
        Self::with_errors(manager, |operation, error| {
            Error::new(ErrorKind::Unavailable, operation, format!("{error:?}"))
        })
    }

    /// Wraps a manager and maps its errors. `map_error` is given the operation (`connect` or `check`) and decides by the
    /// kind whether callers are told at once: return [`ErrorKind::Rejected`] for a wrong password.
    ///
    /// Keep secrets out of the message.
    pub fn with_errors<F>(manager: M, map_error: F) -> Self
    where
        F: Fn(&'static str, M::Error) -> Error + Send + Sync + 'static,
    {
        Self { manager, map_error: Arc::new(map_error) }
    }

    /// The wrapped manager.
    pub fn get_ref(&self) -> &M {
        &self.manager
    }
}

impl<M: ManageConnection> Manager for Bb8<M> {
    type Connection = M::Connection;

    async fn connect(&self) -> Result<M::Connection> {
        self.manager.connect().await.map_err(|error| (self.map_error)("connect", error))
    }

    async fn check(&self, connection: &mut M::Connection) -> Result<()> {
        self.manager.is_valid(connection).await.map_err(|error| (self.map_error)("check", error))
    }

    fn verdict(&self, connection: &mut M::Connection) -> Verdict {
        if self.manager.has_broken(connection) { Verdict::Discard } else { Verdict::Reuse }
    }
}

impl<M: ManageConnection> fmt::Debug for Bb8<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bb8").finish_non_exhaustive()
    }
}
