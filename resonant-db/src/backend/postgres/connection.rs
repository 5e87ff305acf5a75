//! A connection: the session, what it knows, and how a call begins and ends.

use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use resonant_common::join::Position;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use crate::backend::{Access, ParamRows, RowsBuilder, Target};
use crate::{Error, ErrorKind, Param, Result, Rows};

use super::error::{Place, Trouble, translate};
use super::facts::{Status, Tag};
use super::param::{self, Encoded};
use super::session::Session;
use super::statements::{Known, Statements};
use super::{Node, bulk, hygiene, position, rows};

const NO_COPY: &str = "COPY from or to the client is not a statement of this kind";

pub(super) struct PostgresConnection {
    pub(super) session: Session,
    pub(super) node: Arc<str>,
    pub(super) access: Access,
    statements: Statements,
    pub(super) always_reset: bool,
    pub(super) work: Work,
    /// A call is under way; seen between calls, it was dropped.
    pub(super) busy: bool,
    pub(super) used: bool,
    pub(super) broken: bool,
    system: Option<u64>,
    place: Option<Statement>,
    /// The server does not say how far it is.
    blind: bool,
}

/// The transaction the caller has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    None,
    Open(Access),
    /// The server has ended it by itself, the caller does not know.
    Ended,
}

impl PostgresConnection {
    pub(super) async fn open(node: &Node, target: &Target) -> Result<Self> {
        let session = Session::open(node, target).await?;
        Ok(Self {
            session,
            node: Arc::clone(&target.name),
            access: target.access,
            statements: Statements::new(node.settings.statements),
            always_reset: node.settings.always_reset,
            work: Work::None,
            busy: false,
            used: false,
            broken: false,
            system: None,
            place: None,
            blind: false,
        })
    }

    /// Whether a statement could write now.
    fn writes(&self) -> bool {
        self.access == Access::ReadWrite && self.work != Work::Open(Access::ReadOnly)
    }

    /// Begins a call. Answers how much had been sent before it, which tells whether it got as far as the server.
    pub(super) fn enter(&mut self, operation: &'static str) -> Result<u64> {
        if self.broken || self.session.is_closed() {
            self.broken = true;
            let cause = self.session.facts.cause();
            let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
            let message =
                format!("{}: the connection is closed{cause}; nothing was sent", self.node);
            return Err(Error::new(ErrorKind::Unavailable, operation, message));
        }
        if self.work == Work::Ended {
            let message = "the transaction is over already; roll back and begin another";
            return Err(Error::new(ErrorKind::Rejected, operation, message));
        }
        (self.busy, self.used) = (true, true);
        Ok(self.session.facts.sent())
    }

    /// Ends a call: what it says is that the session is in the state the caller thinks it is in.
    pub(super) async fn leave<T>(
        &mut self,
        operation: &'static str,
        mark: u64,
        result: std::result::Result<T, Trouble>,
    ) -> Result<T> {
        let result = match result {
            Ok(value) => Ok(value),
            Err(trouble) => Err(self.failed(operation, mark, &trouble).await),
        };
        let result = if self.broken { result } else { self.review(operation, result).await };
        self.busy = false;
        result
    }

    async fn failed(&mut self, operation: &'static str, mark: u64, trouble: &Trouble) -> Error {
        // The error comes before the answer is complete: the status is that of the session only then.
        let lost = trouble.is_fatal(self.writes())
            || (!trouble.is_refusal() && self.session.settle().await.is_err());
        let error = self.explain(operation, mark, trouble);
        self.broken |= lost || self.session.is_closed();
        error
    }

    /// Puts a failure into words.
    pub(super) fn explain(&self, operation: &'static str, mark: u64, trouble: &Trouble) -> Error {
        if matches!(self.work, Work::Open(_)) && trouble.is_outdated() {
            let message =
                "the schema changed under a prepared statement; run the transaction again";
            return Error::new(ErrorKind::Conflict, operation, message);
        }
        let facts = &self.session.facts;
        let decides = self.work == Work::None || operation == "commit";
        let place = Place {
            operation,
            node: &self.node,
            writes: self.writes(),
            in_doubt: decides && self.writes() && facts.sent() != mark,
            cause: &facts.cause(),
        };
        translate(place, trouble)
    }

    /// Compares the state of the session with what the caller has asked for.
    async fn review<T>(&mut self, operation: &'static str, result: Result<T>) -> Result<T> {
        match (self.work, self.session.facts.status()) {
            (Work::None, Status::Idle) | (Work::Open(_), Status::Open | Status::Failed) => result,
            (Work::None, _) => {
                let undone =
                    self.session.within(self.session.client.batch_execute("ROLLBACK")).await;
                self.broken |= undone.is_err();
                result.and_then(|_| {
                    let message = "the statement left a transaction open, which was rolled back; use transaction()";
                    Err(Error::new(ErrorKind::Rejected, operation, message))
                })
            }
            (Work::Open(_), Status::Idle) => {
                self.work = Work::Ended;
                result.and_then(|_| {
                    let message = "the statement ended the transaction; let transaction() do that";
                    Err(Error::new(ErrorKind::Rejected, operation, message))
                })
            }
            (Work::Ended, _) => result,
        }
    }

    /// The statement as it is prepared here, and whether that happened just now.
    async fn known(&mut self, sql: &str) -> std::result::Result<(Known, bool), Trouble> {
        if let Some(known) = self.statements.get(sql) {
            return Ok((known, false));
        }
        if hygiene::is_copy(sql) {
            return Err(Trouble::Refused(NO_COPY.into()));
        }
        no_nul(sql)?;
        let statement = self.session.within(self.session.client.prepare(sql)).await?;
        let known = Known { statement, suspicious: hygiene::is_suspicious(sql) };
        self.statements.put(sql, known.clone());
        Ok((known, true))
    }

    /// Runs a prepared statement, once more if the schema has changed since it was prepared.
    pub(super) async fn run(
        &mut self,
        sql: &str,
        ask: Ask<'_>,
    ) -> std::result::Result<Answer, Trouble> {
        loop {
            let (known, fresh) = self.known(sql).await?;
            if known.suspicious {
                self.session.facts.touch();
            }
            match self.ask(sql, &known.statement, ask).await {
                Err(trouble) if !fresh && trouble.is_stale() => {
                    self.statements.forget(sql);
                    if self.work != Work::None {
                        return Err(trouble);
                    }
                    // It failed before it did anything.
                    self.session.settle().await?;
                }
                Err(trouble) if !fresh && trouble.doubts_types() => {
                    let idle = self.work == Work::None;
                    if !(idle || trouble.is_refusal()) {
                        return Err(trouble);
                    }
                    // Was it the value, or is the column of another type now?
                    self.session.settle().await?;
                    self.statements.forget(sql);
                    let (again, _) = self.known(sql).await?;
                    if again.statement.params() == known.statement.params() {
                        return Err(trouble);
                    }
                }
                answer => return answer,
            }
        }
    }

    async fn ask(
        &self,
        sql: &str,
        statement: &Statement,
        ask: Ask<'_>,
    ) -> std::result::Result<Answer, Trouble> {
        let session = &self.session;
        match ask {
            Ask::Rows(params) => fetch(session, statement, params).await.map(Answer::Rows),
            Ask::Count(params) => {
                check(params, statement)?;
                let params = params.iter().map(|param| Encoded(*param));
                let count = session.within(session.client.execute_raw(statement, params)).await?;
                Ok(Answer::Count(changed(session, count)))
            }
            Ask::Bulk(rows) => {
                for row in 0..rows.len() {
                    let params: Vec<_> =
                        (0..rows.width()).map(|place| rows.param(row, place)).collect();
                    check(&params, statement)?;
                }
                let enclose = self.work == Work::None;
                let result =
                    bulk::run(session, statement, rows, enclose, hygiene::only_reads(sql)).await;
                if enclose && result.is_err() && !session.is_closed() {
                    session.settle().await?;
                    if session.facts.status() != Status::Idle {
                        session.within(session.client.batch_execute("ROLLBACK")).await?;
                    }
                }
                result.map(Answer::Count)
            }
        }
    }

    pub(super) async fn affected(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> std::result::Result<u64, Trouble> {
        if params.is_empty() && hygiene::is_utility(sql) && !hygiene::is_copy(sql) {
            no_nul(sql)?;
            if hygiene::is_suspicious(sql) {
                self.session.facts.touch();
            }
            let count = self.session.within(self.session.client.execute_typed(sql, &[])).await?;
            return Ok(changed(&self.session, count));
        }
        Ok(self.run(sql, Ask::Count(params)).await?.count())
    }

    pub(super) async fn several(&mut self, sql: &str) -> std::result::Result<(), Trouble> {
        if hygiene::has_copy(sql) {
            return Err(Trouble::Refused(NO_COPY.into()));
        }
        no_nul(sql)?;
        if hygiene::is_suspicious(sql) {
            self.session.facts.touch();
        }
        self.session.within(self.session.client.batch_execute(sql)).await
    }

    /// The question how far the node is, ready to be asked; `None` where it cannot be answered.
    pub(super) async fn compass(
        &mut self,
    ) -> std::result::Result<Option<(u64, Statement)>, Trouble> {
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
                session.client.prepare(position::PLACE),
            )
        };
        match session.within(both).await {
            Ok((rows, place)) => {
                let system = rows.first().and_then(position::system);
                self.system = system;
                self.place = Some(place.clone());
                Ok(system.map(|system| (system, place)))
            }
            // Not allowed, or not a server that keeps a log of this kind.
            Err(trouble)
                if trouble.code().is_some_and(|code| matches!(&code[..2], "42" | "0A" | "55")) =>
            {
                session.settle().await?;
                self.blind = true;
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) async fn how_far(&mut self) -> std::result::Result<Option<Position>, Trouble> {
        let Some((system, place)) = self.compass().await? else { return Ok(None) };
        locate(&self.session, system, &place).await
    }

    /// Runs a statement right behind the question how far the node is, and drops its answer where that is not far enough.
    pub(super) async fn rows_after(
        &mut self,
        after: &Position,
        sql: &str,
        params: &[Param<'_>],
    ) -> std::result::Result<Option<Rows>, Trouble> {
        let reached = |place: Option<Position>| {
            place.is_some_and(|place| place.has_reached(after) == Some(true))
        };
        loop {
            let Some((system, place)) = self.compass().await? else { return Ok(None) };
            let (known, fresh) = match self.known(sql).await {
                Ok(known) => known,
                Err(trouble) if trouble.said().is_none() => return Err(trouble),
                // What it names may not have come here yet.
                Err(trouble) => {
                    self.session.settle().await?;
                    return match reached(locate(&self.session, system, &place).await?) {
                        true => Err(trouble),
                        false => Ok(None),
                    };
                }
            };
            if known.suspicious {
                self.session.facts.touch();
            }
            let session = &self.session;
            // The first to be polled is the first to be sent.
            let (place, rows) = futures::join!(
                locate(session, system, &place),
                fetch(session, &known.statement, params),
            );
            let reached = reached(place?);
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
}

/// The rows a command changed, of those it counts: one that only reads counts them too.
fn changed(session: &Session, count: u64) -> u64 {
    if session.facts.tag() == Tag::Read { 0 } else { count }
}

/// The driver could not send it.
fn no_nul(sql: &str) -> std::result::Result<(), Trouble> {
    match sql.contains('\0') {
        true => Err(Trouble::Refused("a statement holds no NUL".into())),
        false => Ok(()),
    }
}

/// What is asked of a prepared statement.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    Rows(&'a [Param<'a>]),
    Count(&'a [Param<'a>]),
    Bulk(&'a ParamRows),
}

pub(super) enum Answer {
    Rows(Rows),
    Count(u64),
}

impl Answer {
    pub(super) fn count(self) -> u64 {
        match self {
            Self::Rows(rows) => rows.len() as u64,
            Self::Count(count) => count,
        }
    }

    pub(super) fn rows(self) -> Rows {
        match self {
            Self::Rows(rows) => rows,
            Self::Count(_) => RowsBuilder::new(Vec::new()).finish(),
        }
    }
}

fn check(params: &[Param<'_>], statement: &Statement) -> std::result::Result<(), Trouble> {
    param::check(params.iter().copied(), statement.params()).map_err(Trouble::Refused)
}

async fn fetch(
    session: &Session,
    statement: &Statement,
    params: &[Param<'_>],
) -> std::result::Result<Rows, Trouble> {
    check(params, statement)?;
    let params = params.iter().map(|param| Encoded(*param));
    let collect = async {
        let stream = session.client.query_raw(statement, params).await?;
        pin!(stream).try_collect::<Vec<Row>>().await
    };
    let found = session.within(collect).await?;
    Ok(rows::rows(statement.columns(), found))
}

async fn locate(
    session: &Session,
    system: u64,
    place: &Statement,
) -> std::result::Result<Option<Position>, Trouble> {
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = session.within(session.client.query(place, &none)).await?;
    Ok(rows.first().and_then(|row| position::place(system, row)))
}
