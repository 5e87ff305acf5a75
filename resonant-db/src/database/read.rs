//! Reading.

use std::future::Future;
use std::panic::Location;

use resonant_common::join::Position;
use tracing::Instrument;

use crate::{Error, Param, Result, Rows};

use super::Database;
use super::node::{Node, Role};
use super::queries::query_methods;
use super::session::Session;
use super::tour::Tour;
use super::verdicts::Stage;

/// Reads of a [`Database`]; made by [`Database::read`] and [`Session::read`].
///
/// A read that fails because its node failed is sent to another node, each node at most once, within the database's
/// retry budget (20 % of its calls).
///
/// # Cancel safety
///
/// A dropped read has no effect; the statement is stopped where the engine can do that.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    database: &'a Database,
    session: Option<&'a Session>,
}

impl<'a> Read<'a> {
    pub(super) fn new(database: &'a Database, session: Option<&'a Session>) -> Self {
        Self { database, session }
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
        inner.budget.deposit();
        let mut tour = Tour::new(inner, self.session.is_some_and(Session::is_pinned));
        while let Some(node) = tour.next() {
            let span = tracing::debug_span!(
                "db.query",
                db.system.name = inner.backend.system(),
                db.node = %node.target.name,
                db.role = node.role.as_str(),
            );
            let attempt = attempt(node, site, after, sql, params).instrument(span);
            match attempt.await {
                Ok(Some(rows)) => {
                    node.succeeded();
                    return Ok(rows);
                }
                // It works, but is behind what the session has written.
                Ok(None) => node.succeeded(),
                Err((stage, error)) => tour.failed(node, stage, error)?,
            }
        }
        Err(tour.end())
    }
}

/// One attempt on one node; `None` when it is behind `after`.
async fn attempt(
    node: &Node,
    site: &'static Location<'static>,
    after: Option<Position>,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Option<Rows>, (Stage, Error)> {
    let mut lease = node.lease(site).await.map_err(|error| (Stage::Connecting, error))?;
    let rows = match after {
        None => lease.query(sql, params).await.map(Some),
        Some(after) => match lease.query_after(&after, sql, params).await {
            // The primary's state is the newest there is, whatever the token says.
            Ok(None) if node.role == Role::Primary => lease.query(sql, params).await.map(Some),
            answer => answer,
        },
    };
    rows.map_err(|error| (Stage::Running, error))
}
