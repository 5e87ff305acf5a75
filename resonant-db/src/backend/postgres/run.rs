//! Running one statement: prepared here, known from another connection, or through a pooler that keeps nothing.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::backend::{Access, Column, ParamRows, RowsBuilder};
use crate::{Param, Rows};

use super::connection::{NO_COPY, PostgresConnection, Work};
use super::error::Trouble;
use super::facts::{Status, Tag};
use super::lessons::Lesson;
use super::param::{self, Encoded};
use super::rows::Layout;
use super::session::Session;
use super::statements::Known;
use super::{bulk, hygiene, login, rows};

type Outcome<T> = std::result::Result<T, Trouble>;

/// What is asked of a statement.
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

impl PostgresConnection {
    /// The statement as it is prepared here, and whether that happened just now.
    pub(super) async fn known(&mut self, sql: &str) -> Outcome<(Arc<Known>, bool)> {
        match self.statements.get(sql) {
            Some(known) => Ok((known, false)),
            None => Ok((self.prepared(sql).await?, true)),
        }
    }

    async fn prepared(&mut self, sql: &str) -> Outcome<Arc<Known>> {
        refuse(sql)?;
        let statement = self.session.within(self.session.prepare(sql)).await?;
        Ok(self.keep(sql, statement))
    }

    /// Keeps a statement that was prepared, and what it taught.
    fn keep(&mut self, sql: &str, statement: Statement) -> Arc<Known> {
        self.origin.lessons.learn(sql, &statement, &mut self.met);
        let layout = Layout::of(statement.columns());
        let known = Arc::new(Known { statement, suspicious: hygiene::is_suspicious(sql), layout });
        if !self.session.facts.is_pooled() {
            self.statements.put(sql, Arc::clone(&known));
        }
        known
    }

    /// What another connection has learned, where that is enough for this one to run the statement.
    fn lesson(&self, sql: &str) -> Option<Arc<Lesson>> {
        let lesson = self.origin.lessons.recall(sql)?;
        lesson.is_enough(&self.met).then_some(lesson)
    }

    /// The same, learned now if need be.
    pub(super) async fn learned(&mut self, sql: &str) -> Outcome<(Arc<Lesson>, bool)> {
        if let Some(lesson) = self.lesson(sql) {
            return Ok((lesson, false));
        }
        refuse(sql)?;
        let statement = self.session.within(self.session.prepare(sql)).await?;
        Ok((self.origin.lessons.learn(sql, &statement, &mut self.met), true))
    }

    /// Runs a statement, once more if the schema has changed since it was prepared.
    pub(super) async fn run(&mut self, sql: &str, ask: Ask<'_>) -> Outcome<Answer> {
        let single = !matches!(ask, Ask::Bulk(_));
        if single && self.session.facts.is_pooled() {
            return Box::pin(self.run_pooled(sql, ask)).await;
        }
        let mut found = self.statements.get(sql);
        if single
            && found.is_none()
            && let Some(lesson) = self.lesson(sql)
            && let Some(answer) = Box::pin(self.run_at_once(sql, &lesson, ask)).await
        {
            return answer;
        }
        loop {
            let (known, fresh) = match found.take() {
                Some(known) => (known, false),
                // It may have been kept meanwhile.
                None => self.known(sql).await?,
            };
            if known.suspicious {
                self.session.facts.touch();
            }
            match self.ask(sql, &known, ask).await {
                Err(trouble) if !fresh && trouble.is_stale() => {
                    self.forget(sql);
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
                    self.forget(sql);
                    let (again, _) = self.known(sql).await?;
                    if again.statement.params() == known.statement.params() {
                        return Err(trouble);
                    }
                }
                answer => return answer,
            }
        }
    }

    pub(super) fn forget(&mut self, sql: &str) {
        self.statements.forget(sql);
        self.origin.lessons.forget(sql);
    }

    /// Runs a statement that this connection has not prepared, by what another one has learned, and prepares it in the
    /// same round trip for the next time. `None` when it was not run, so that it is to be prepared first.
    async fn run_at_once(
        &mut self,
        sql: &str,
        lesson: &Lesson,
        ask: Ask<'_>,
    ) -> Option<Outcome<Answer>> {
        if check(ask.params(), &lesson.params).is_err() {
            return None;
        }
        if hygiene::is_suspicious(sql) {
            self.session.facts.touch();
        }
        let session = &self.session;
        // The first to be polled is the first to be sent.
        let (prepared, answer) =
            futures::join!(session.within(session.prepare(sql)), typed(session, sql, lesson, ask),);
        match (prepared, answer) {
            (Ok(statement), Ok(answer)) => {
                self.keep(sql, statement);
                Some(Ok(answer))
            }
            // Prepared, and yet it failed: is that so because the types are others by now?
            (Ok(statement), Err(trouble)) => {
                let held = lesson.still_holds(&statement);
                self.keep(sql, statement);
                if held || trouble.said().is_none() {
                    return Some(Err(trouble));
                }
                if self.work != Work::None {
                    return Some(Err(Trouble::Outdated));
                }
                // It did nothing.
                self.session.settle().await.err().map(Err)
            }
            (Err(_), Ok(answer)) => Some(Ok(answer)),
            (Err(first), Err(trouble)) => {
                self.forget(sql);
                // What was said first is the cause, unless nothing at all was said to the statement itself.
                Some(Err(if trouble.said().is_some() { first } else { trouble }))
            }
        }
    }

    /// Through a pooler: nothing is kept prepared, and each statement carries its own limit and access.
    async fn run_pooled(&mut self, sql: &str, ask: Ask<'_>) -> Outcome<Answer> {
        loop {
            let (lesson, fresh) = self.learned(sql).await?;
            let session = &self.session;
            let answer = match check(ask.params(), &lesson.params) {
                Ok(()) => self.enclosed(typed(session, sql, &lesson, ask)).await,
                Err(refused) => Err(refused),
            };
            match answer {
                Err(trouble) if !fresh && (trouble.is_stale() || trouble.doubts_types()) => {
                    self.forget(sql);
                    if self.work != Work::None && !trouble.is_refusal() {
                        return Err(trouble);
                    }
                    self.session.settle().await?;
                    let (again, _) = self.learned(sql).await?;
                    if again.params == lesson.params {
                        return Err(trouble);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// What a statement through a pooler begins with, where it needs that.
    pub(super) fn opening(&self) -> Option<String> {
        if self.work != Work::None || !self.session.facts.is_pooled() {
            return None;
        }
        let access = match self.access {
            Access::ReadOnly => "BEGIN READ ONLY",
            Access::ReadWrite => "BEGIN",
        };
        match self.session.limit {
            Some(limit) => {
                let limit = login::millis(limit);
                Some(format!("{access}; SET LOCAL statement_timeout = {limit}"))
            }
            None if self.access == Access::ReadOnly => Some(access.into()),
            None => None,
        }
    }

    /// Does some work in a transaction of its own where a pooler makes that necessary. All of it leaves at once.
    pub(super) async fn enclosed<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.enclosed_by(self.opening(), work).await
    }

    /// The same, with what the transaction begins with, if there is to be one.
    pub(super) async fn enclosed_by<T>(
        &self,
        opening: Option<String>,
        work: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        let Some(opening) = opening else { return work.await };
        let session = &self.session;
        let (begun, answer, ended) = futures::join!(
            session.within(session.client.batch_execute(&opening)),
            work,
            session.within(session.client.batch_execute("COMMIT")),
        );
        begun?;
        let answer = answer?;
        ended?;
        match session.facts.tag() {
            Tag::Rollback => Err(Trouble::Refused("the server rolled the statement back".into())),
            _ => Ok(answer),
        }
    }

    async fn ask(&self, sql: &str, known: &Known, ask: Ask<'_>) -> Outcome<Answer> {
        let (session, statement) = (&self.session, &known.statement);
        match ask {
            Ask::Rows(params) => fetch(session, known, params).await.map(Answer::Rows),
            Ask::Count(params) => {
                check(params, statement.params())?;
                let params = params.iter().map(|param| Encoded(*param));
                let changes = pin!(session.client.execute_raw(statement, params));
                let count = session.within(changes).await?;
                Ok(Answer::Count(changed(session, count)))
            }
            Ask::Bulk(rows) => {
                for row in 0..rows.len() {
                    let params: Vec<_> =
                        (0..rows.width()).map(|place| rows.param(row, place)).collect();
                    check(&params, statement.params())?;
                }
                let enclose = (self.work == Work::None)
                    .then(|| self.opening().unwrap_or_else(|| "BEGIN".into()));
                let enclosed = enclose.is_some();
                let result =
                    bulk::run(session, statement, rows, enclose, hygiene::only_reads(sql)).await;
                if enclosed && result.is_err() && !session.is_closed() {
                    session.settle().await?;
                    if session.facts.status() != Status::Idle {
                        session.within(session.client.batch_execute("ROLLBACK")).await?;
                    }
                }
                result.map(Answer::Count)
            }
        }
    }
}

impl<'a> Ask<'a> {
    fn params(self) -> &'a [Param<'a>] {
        match self {
            Self::Rows(params) | Self::Count(params) => params,
            Self::Bulk(_) => &[],
        }
    }
}

/// What cannot be run as a statement that answers rows or a count.
fn refuse(sql: &str) -> Outcome<()> {
    if hygiene::is_copy(sql) {
        return Err(Trouble::Refused(NO_COPY.into()));
    }
    no_nul(sql)
}

/// The driver could not send it.
pub(super) fn no_nul(sql: &str) -> Outcome<()> {
    match sql.contains('\0') {
        true => Err(Trouble::Refused("a statement holds no NUL".into())),
        false => Ok(()),
    }
}

/// The rows a command changed, of those it counts: one that only reads counts them too.
pub(super) fn changed(session: &Session, count: u64) -> u64 {
    if session.facts.only_read() { 0 } else { count }
}

fn check(params: &[Param<'_>], declared: &[Type]) -> Outcome<()> {
    param::check(params.iter().copied(), declared).map_err(Trouble::Refused)
}

pub(super) async fn fetch(session: &Session, known: &Known, params: &[Param<'_>]) -> Outcome<Rows> {
    let statement = &known.statement;
    check(params, statement.params())?;
    let params = params.iter().map(|param| Encoded(*param));
    // Pinned where it is made: handed over it would lie in the future twice.
    let collect = pin!(async {
        let stream = session.client.query_raw(statement, params).await?;
        pin!(stream).try_collect::<Vec<Row>>().await
    });
    let found = session.within(collect).await?;
    Ok(known.layout.rows(statement.columns(), found))
}

/// Runs a statement without preparing it.
async fn typed(session: &Session, sql: &str, lesson: &Lesson, ask: Ask<'_>) -> Outcome<Answer> {
    match ask {
        Ask::Count(params) => {
            let encoded: Vec<_> = params.iter().map(|param| Encoded(*param)).collect();
            let params: Vec<(&(dyn ToSql + Sync), Type)> = encoded
                .iter()
                .zip(&lesson.params)
                .map(|(param, declared)| (param as &(dyn ToSql + Sync), declared.clone()))
                .collect();
            let count = session.within(session.client.execute_typed(sql, &params)).await?;
            Ok(Answer::Count(changed(session, count)))
        }
        ask => fetch_typed(session, sql, lesson, ask.params()).await.map(Answer::Rows),
    }
}

pub(super) async fn fetch_typed(
    session: &Session,
    sql: &str,
    lesson: &Lesson,
    params: &[Param<'_>],
) -> Outcome<Rows> {
    check(params, &lesson.params)?;
    let params = params
        .iter()
        .zip(&lesson.params)
        .map(|(param, declared)| (Encoded(*param), declared.clone()));
    let collect = pin!(async {
        let stream = session.client.query_typed_raw(sql, params).await?;
        pin!(stream).try_collect::<Vec<Row>>().await
    });
    let found = session.within(collect).await?;
    Ok(match found.first().cloned() {
        Some(first) => rows::rows(first.columns(), found),
        None => {
            RowsBuilder::new(lesson.columns.iter().map(|name| Column::new(name.as_str())).collect())
                .finish()
        }
    })
}
