//! Reading.

use std::future::Future;
use std::panic::Location;
use std::pin::pin;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use resonant_common::join::Position;
use resonant_common::telemetry::{Counter, names};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::backend::{Access, Fitness};
use crate::replica_set::{Pick, Role, Wish};
use crate::{Error, Param, Result, Rows};

use super::Database;
use super::node::{Borrowed, Handle, Lease, lease, lease_idle};
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
                Ok(Some((rows, place))) => {
                    pick.succeeded();
                    inner.reads.count(place);
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

/// How many reads were answered on which connections.
pub(super) struct Reads {
    shared: Counter,
    own: Counter,
}

/// Whether a read had its connection to itself.
enum Place {
    Shared,
    Own,
}

impl Reads {
    pub(super) fn new(database: &str) -> Self {
        let counter =
            |of| Counter::new(&names::DB_READS, &[("database", database), ("connection", of)]);
        Self { shared: counter("shared"), own: counter("own") }
    }

    fn count(&self, place: Place) {
        match place {
            Place::Shared => self.shared.increment(1),
            Place::Own => self.own.increment(1),
        }
    }
}

/// The node that was asked, and what it answered.
type Answered = (Pick<Handle>, Result<Option<(Rows, Place)>, (Stage, Error)>);

/// One attempt on one node; `None` when it is behind `after`.
async fn attempt(
    pick: Pick<Handle>,
    site: &'static Location<'static>,
    after: Option<Position>,
    sql: &str,
    params: &[Param<'_>],
) -> Answered {
    // What a session has written is looked for where the answer says how far the node is.
    let shares = match pick.shared() {
        Some(_) if after.is_none() => share(pick, site, sql, params).await,
        _ => own(pick, site).await,
    };
    let (mut lease, watched) = match shares {
        Ok(Shares::Answer(pick, rows)) => return (pick, Ok(Some((rows, Place::Shared)))),
        Ok(Shares::Lease(lease, watched)) => (lease, watched),
        Err((error, pick)) => return (pick, Err((Stage::Connecting, error))),
    };
    if watched {
        let began = Instant::now();
        let rows = lease.query(sql, params).await;
        if rows.is_ok()
            && let Some(shared) = lease.pick.shared()
        {
            shared.sharing().ran(sql, began.elapsed());
        }
        return answered(lease, rows.map(Some));
    }
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
    answered(lease, rows)
}

/// What came of a read that had a connection to itself.
fn answered(lease: Lease, rows: Result<Option<Rows>>) -> Answered {
    let rows = rows.map(|rows| rows.map(|rows| (rows, Place::Own)));
    (lease.give_back(), rows.map_err(|error| (Stage::Running, error)))
}

/// What became of a read that may share a connection.
enum Shares {
    Answer(Pick<Handle>, Rows),
    /// It has one to itself; whether it is of interest what it takes there.
    Lease(Lease, bool),
}

/// After how long a read that waits for a connection looks for a shared one again: first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));

/// Takes an idle connection, or else shares one; the other way round in a crowd. Where neither is to be had, waits for
/// whatever comes first.
async fn share(
    pick: Pick<Handle>,
    site: &'static Location<'static>,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Shares, (Error, Pick<Handle>)> {
    let Some(shared) = pick.shared() else { return own(pick, site).await };
    let crowded = shared.is_crowded();
    if crowded {
        match answer(offer(&pick, sql, params)).await {
            Some(Some(rows)) => return Ok(Shares::Answer(pick, rows)),
            Some(None) => return own(pick, site).await,
            None => {}
        }
    }
    let watched = match shared.fitness(sql) {
        Fitness::Own => return own(pick, site).await,
        fitness => fitness == Fitness::Watched,
    };
    let pick = match lease_idle(pick, site) {
        Ok(lease) => return Ok(Shares::Lease(lease, watched)),
        Err(pick) => pick,
    };
    if !crowded {
        match answer(offer(&pick, sql, params)).await {
            Some(Some(rows)) => return Ok(Shares::Answer(pick, rows)),
            Some(None) => return own(pick, site).await,
            None => {}
        }
    }
    match Box::pin(whatever_comes_first(&pick, site, sql, params)).await {
        Ok(Either::Left(rows)) => Ok(Shares::Answer(pick, rows)),
        Ok(Either::Right(connection)) => Ok(Shares::Lease(Lease::new(connection, pick), watched)),
        Err(error) => Err((error, pick)),
    }
}

/// The answer of a shared connection, if one was offered.
async fn answer(read: Option<BoxFuture<'_, Option<Rows>>>) -> Option<Option<Rows>> {
    Some(read?.await)
}

async fn own(
    pick: Pick<Handle>,
    site: &'static Location<'static>,
) -> Result<Shares, (Error, Pick<Handle>)> {
    let lease = lease(pick, Access::ReadOnly, site).await?;
    Ok(Shares::Lease(lease, false))
}

/// A place on a shared connection, if there is one now.
fn offer<'a>(
    pick: &'a Pick<Handle>,
    sql: &'a str,
    params: &'a [Param<'a>],
) -> Option<BoxFuture<'a, Option<Rows>>> {
    let shared = pick.shared()?;
    let read = shared.sharing().read(pick.role(), sql, params)?;
    shared.crowd(|| pick.pool(pick.role()).map_or(0, |pool| pool.status().open()));
    Some(read)
}

async fn whatever_comes_first(
    pick: &Pick<Handle>,
    site: &'static Location<'static>,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Either<Rows, Borrowed>> {
    let mut waiting = pin!(pick.pool(pick.role())?.get_at(site, None));
    let (mut pause, longest) = AGAIN;
    loop {
        if let Ok(borrowed) = timeout(pause, &mut waiting).await {
            return borrowed.map(Either::Right);
        }
        pause = (pause * 2).min(longest);
        let Some(read) = offer(pick, sql, params) else { continue };
        // A connection that is handed over meanwhile is not kept from others.
        match select(waiting.as_mut(), read).await {
            Either::Left((borrowed, _)) => return borrowed.map(Either::Right),
            Either::Right((Some(rows), _)) => return Ok(Either::Left(rows)),
            Either::Right((None, _)) => return waiting.await.map(Either::Right),
        }
    }
}
