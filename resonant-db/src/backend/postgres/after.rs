//! How far the node is, and statements that are to see what was written before them.

use resonant_common::join::Position;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::{Param, Rows};

use super::connection::{PostgresConnection, Work};
use super::error::Trouble;
use super::position;
use super::run::{fetch, fetch_typed};
use super::session::Session;

type Outcome<T> = std::result::Result<T, Trouble>;

/// What the refusal of a statement means on a node that may not have come far enough.
enum Refusal {
    /// It came meanwhile: only what is said from now on counts.
    Again,
    Behind,
    Counts,
}

impl PostgresConnection {
    /// The question how far the node is, ready to be asked; `None` where it cannot be answered.
    pub(super) async fn compass(&mut self) -> Outcome<Option<(u64, Statement)>> {
        if let (Some(system), Some(place)) = (self.system, &self.place) {
            return Ok(Some((system, place.clone())));
        }
        if self.blind {
            return Ok(None);
        }
        let session = &self.session;
        let both = async {
            futures::try_join!(
                session.client.query_typed(position::SYSTEM, &[]),
                session.prepare(position::PLACE),
            )
        };
        match session.within(both).await {
            Ok((rows, place)) => {
                let system = rows.first().and_then(position::system);
                if let Some(system) = system {
                    session.node.whereabouts.learned(&session.route.address, system);
                }
                self.system = system;
                self.place = Some(place.clone());
                Ok(system.map(|system| (system, place)))
            }
            // Not allowed, or not a server that keeps a log of this kind.
            Err(trouble)
                if trouble.code().is_some_and(|code| matches!(&code[..2], "42" | "0A" | "55")) =>
            {
                session.adopt().await?;
                session.settle().await?;
                self.blind = true;
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) async fn how_far(&mut self) -> Outcome<Option<Position>> {
        let Some((system, place)) = self.compass().await? else { return Ok(None) };
        locate(&self.session, system, &place).await
    }

    /// Runs a statement right behind the question how far the node is, and drops its answer where that is not far enough.
    pub(super) async fn rows_after(
        &mut self,
        after: &Position,
        sql: &str,
        params: &[Param<'_>],
    ) -> Outcome<Option<Rows>> {
        if self.session.facts.is_pooled() {
            return self.pooled_after(after, sql, params).await;
        }
        let mut arrived = false;
        loop {
            let Some((system, place)) = self.compass().await? else { return Ok(None) };
            let (known, fresh) = match self.known(sql).await {
                Ok(known) => known,
                Err(trouble) if trouble.said().is_none() => return Err(trouble),
                Err(trouble) => match self.refused(after, system, &place, &mut arrived).await? {
                    Refusal::Again => continue,
                    Refusal::Behind => return Ok(None),
                    Refusal::Counts => return Err(trouble),
                },
            };
            if known.suspicious {
                self.session.facts.touch();
            }
            let session = &self.session;
            // The first to be polled is the first to be sent.
            let (place, rows) =
                futures::join!(locate(session, system, &place), fetch(session, &known, params),);
            let reached = is_as_far(place?, after);
            match rows {
                Err(trouble) if trouble.said().is_none() => return Err(trouble),
                _ if !reached => {
                    session.settle().await?;
                    return Ok(None);
                }
                Err(trouble) if !fresh && trouble.is_stale() && self.work == Work::None => {
                    session.settle().await?;
                    self.statements.forget(sql);
                }
                rows => return rows.map(Some),
            }
        }
    }

    /// What it means that a statement was refused: what it names may not have come here yet.
    async fn refused(
        &self,
        after: &Position,
        system: u64,
        place: &Statement,
        arrived: &mut bool,
    ) -> Outcome<Refusal> {
        self.session.settle().await?;
        Ok(match is_as_far(locate(&self.session, system, place).await?, after) {
            true if std::mem::replace(arrived, true) => Refusal::Counts,
            true => Refusal::Again,
            false => Refusal::Behind,
        })
    }

    /// The same through a pooler. In one transaction, so that both are asked of the same server.
    async fn pooled_after(
        &mut self,
        after: &Position,
        sql: &str,
        params: &[Param<'_>],
    ) -> Outcome<Option<Rows>> {
        let mut arrived = false;
        loop {
            let Some((system, place)) = self.compass().await? else { return Ok(None) };
            let (lesson, fresh) = match self.learned(sql).await {
                Ok(learned) => learned,
                Err(trouble) if trouble.said().is_none() => return Err(trouble),
                Err(trouble) => match self.refused(after, system, &place, &mut arrived).await? {
                    Refusal::Again => continue,
                    Refusal::Behind => return Ok(None),
                    Refusal::Counts => return Err(trouble),
                },
            };
            let session = &self.session;
            let mut reached = false;
            let both = async {
                let (place, rows) = futures::join!(
                    locate(session, system, &place),
                    fetch_typed(session, sql, &lesson, params),
                );
                reached = is_as_far(place?, after);
                rows
            };
            // Without a limit too: by themselves they could be asked of two servers.
            let opening = match self.work {
                Work::None => self.opening().or_else(|| Some("BEGIN".into())),
                _ => None,
            };
            let rows = self.enclosed_by(opening, both).await;
            match rows {
                Err(trouble) if trouble.said().is_none() && !trouble.is_refusal() => {
                    return Err(trouble);
                }
                _ if !reached && !rows.as_ref().is_err_and(Trouble::is_refusal) => {
                    self.session.settle().await?;
                    return Ok(None);
                }
                Err(trouble)
                    if !fresh
                        && self.work == Work::None
                        && (trouble.is_stale() || trouble.doubts_types()) =>
                {
                    self.session.settle().await?;
                    self.forget(sql);
                    let (again, _) = self.learned(sql).await?;
                    if again.params == lesson.params {
                        return Err(trouble);
                    }
                }
                rows => return rows.map(Some),
            }
        }
    }
}

async fn locate(session: &Session, system: u64, place: &Statement) -> Outcome<Option<Position>> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = session.within(session.client.query(place, &none)).await?;
    Ok(rows.first().and_then(|row| position::place(system, row)))
}

fn is_as_far(place: Option<Position>, after: &Position) -> bool {
    place.is_some_and(|place| place.has_reached(after) == Some(true))
}
