//! Reading.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use resonant_common::join::Position;
use tracing::Instrument;

use crate::replica_set::{Pick, Role, Wish};
use crate::{Error, Param, Result, Rows};

use super::Database;
use super::node::{Handle, lease};
use super::queries::query_methods;
use super::session::Session;
use super::tour::Tour;
use super::verdicts::Stage;

/// Reads of a [`Database`]; made by [`Database::read`] and [`Session::read`].
///
/// A read that fails because its node failed is sent to another node, each node at most once, within the database's
/// retry budget (8 % of its calls).
///
/// # Cancel safety
///
/// A dropped read has no effect; the statement is stopped where the engine can do that.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    pub(super) database: &'a Database,
    pub(super) session: Option<&'a Session>,
    max_staleness: Option<Duration>,
}

impl<'a> Read<'a> {
    pub(super) fn new(database: &'a Database, session: Option<&'a Session>) -> Self {
        Self { database, session, max_staleness: None }
    }

    /// Reads that show everything that was committed up to `limit` before they are sent: on a replica that is known to, else
    /// on the primary.
    ///
    /// How far a replica is behind at most is known from the last time the nodes were asked in the background, every
    /// [`probe_interval`](crate::RoutingConfig::probe_interval), by this process's own clock. A replica of unknown age does not
    /// answer. With limits below that interval the primary answers most of the time.
    #[must_use]
    pub fn max_staleness(self, limit: Duration) -> Self {
        Self { max_staleness: Some(limit), ..self }
    }

    /// What the nodes that may answer must be like.
    pub(super) fn wish(self) -> Wish {
        let fresh = self.database.capabilities().commits_visible_at_once;
        Wish {
            // Every node is as fresh as the primary.
            max_staleness: self.max_staleness.filter(|_| !fresh),
            ..self.session.map(Session::wish).unwrap_or_default()
        }
    }

    query_methods!(self: Self);

    async fn rows(
        self,
        site: &'static Location<'static>,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows> {
        let inner = &self.database.inner;
        let after = self.session.and_then(Session::position);
        inner.set.budget().deposit();
        let mut tour = Tour::new(inner, self.wish());
        while let Some(pick) = tour.next() {
            let span = tracing::debug_span!(
                "db.query",
                db.system.name = inner.backend.system(),
                db.node = %pick.target.name,
                db.role = pick.role().as_str(),
            );
            let (pick, answer) = attempt(pick, site, after, sql, params).instrument(span).await;
            match answer {
                Ok(Some(rows)) => {
                    pick.succeeded();
                    return Ok(rows);
                }
                // It works, but is behind what the session has written.
                Ok(None) => pick.succeeded(),
                Err((stage, error)) => tour.failed(&pick, stage, error)?,
            }
        }
        Err(tour.end())
    }
}

/// One attempt on one node; `None` when it is behind `after`.
async fn attempt(
    pick: Pick<Handle>,
    site: &'static Location<'static>,
    after: Option<Position>,
    sql: &str,
    params: &[Param<'_>],
) -> (Pick<Handle>, Result<Option<Rows>, (Stage, Error)>) {
    let mut lease = match lease(pick, site).await {
        Ok(lease) => lease,
        Err((error, pick)) => return (pick, Err((Stage::Connecting, error))),
    };
    let rows = match after {
        None => lease.query(sql, params).await.map(Some),
        Some(after) => match lease.query_after(&after, sql, params).await {
            // The primary's state is the newest there is, whatever the token says.
            Ok(None) if lease.pick.role() == Role::Primary => {
                lease.query(sql, params).await.map(Some)
            }
            answer => answer,
        },
    };
    (lease.give_back(), rows.map_err(|error| (Stage::Running, error)))
}
