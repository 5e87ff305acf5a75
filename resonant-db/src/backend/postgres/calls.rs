//! The calls of a connection.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;
use resonant_common::join::Position;

use crate::backend::{
    Access, BeginOptions, Capabilities, Connection, Isolation, ParamRows, Streaming, Survey,
};
use crate::pool::Verdict;
use crate::{Error, ErrorKind, Param, Result, Role, Rows};

use super::connection::{PostgresConnection, Work};
use super::error::Trouble;
use super::facts::{Status, Tag};
use super::flow::Flow;
use super::login;
use super::run::{Answer, Ask};

/// What is undone when there is reason to: everything of a session but its prepared statements, which the driver relies
/// on.
const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; SELECT pg_advisory_unlock_all(); \
                     DISCARD SEQUENCES; DISCARD TEMP";
/// A standby has no listeners.
const UNLISTEN: &str = "UNLISTEN *";

#[async_trait]
impl Connection for PostgresConnection {
    async fn survey(&mut self, declared: Capabilities) -> Result<Survey> {
        self.look_around(declared).await
    }

    async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        let mark = self.enter_guarded("query")?;
        let answer = self.run(sql, Ask::Rows(params)).await.map(Answer::rows);
        self.leave("query", mark, answer).await
    }

    async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let mark = self.enter_guarded("execute")?;
        let count = self.affected(sql, params).await;
        self.leave("execute", mark, count).await
    }

    async fn execute_many(&mut self, sql: &str, rows: ParamRows) -> Result<u64> {
        if rows.is_empty() {
            return Ok(0);
        }
        let mark = self.enter_guarded("execute_many")?;
        let count = self.run(sql, Ask::Bulk(&rows)).await.map(Answer::count);
        self.leave("execute_many", mark, count).await
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        let mark = self.enter_guarded("batch")?;
        let done = self.several(sql).await;
        self.leave("batch", mark, done).await
    }

    async fn begin(&mut self, options: BeginOptions) -> Result<()> {
        if self.work != Work::None {
            let message = "a transaction is open already; use a savepoint inside it";
            return Err(Error::new(ErrorKind::Rejected, "begin", message));
        }
        let mark = self.enter_transaction("begin")?;
        let access = match self.access {
            Access::ReadOnly => Access::ReadOnly,
            Access::ReadWrite => options.access,
        };
        let mut sql = begin(options.isolation, access);
        if let (Some(limit), true) = (self.session.limit, self.session.facts.is_pooled()) {
            sql.push_str(&format!("; SET LOCAL statement_timeout = {}", login::millis(limit)));
        }
        let begun = self.session.within(self.session.client.batch_execute(&sql)).await;
        if begun.is_ok() {
            self.work = Work::Open(access);
        }
        self.leave("begin", mark, begun).await
    }

    async fn commit(&mut self) -> Result<()> {
        if self.work == Work::None {
            let message = "no transaction is open";
            return Err(Error::new(ErrorKind::Rejected, "commit", message));
        }
        let mark = self.enter("commit")?;
        let done = self.session.within(self.session.client.batch_execute("COMMIT")).await;
        let undone = done.is_ok() && self.session.facts.tag() == Tag::Rollback;
        if done.is_ok() {
            self.work = Work::None;
        }
        self.leave("commit", mark, done).await?;
        if undone {
            // The server says ROLLBACK and calls it a success.
            let message =
                "the server rolled back instead, because a statement of the transaction had failed";
            return Err(Error::new(ErrorKind::Rejected, "commit", message));
        }
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        match self.work {
            Work::None => return Ok(()),
            Work::Ended => {
                self.work = Work::None;
                return Ok(());
            }
            Work::Open(_) => {}
        }
        let mark = self.enter("rollback")?;
        let done = self.session.within(self.session.client.batch_execute("ROLLBACK")).await;
        if done.is_ok() {
            self.work = Work::None;
        }
        self.leave("rollback", mark, done).await
    }

    async fn ping(&mut self) -> Result<()> {
        let mark = self.enter("ping")?;
        let answer = self.session.within(self.session.client.check_connection()).await;
        self.leave("ping", mark, answer).await
    }

    async fn position(&mut self) -> Result<Option<Position>> {
        let mark = self.enter("position")?;
        let position = self.how_far().await;
        self.leave("position", mark, position).await
    }

    async fn role(&mut self) -> Result<Option<Role>> {
        let mark = self.enter("role")?;
        let asked = self.session.client.query_typed("SELECT pg_is_in_recovery()", &[]);
        let rows = self.session.within(asked).await;
        let role = rows.map(|rows| {
            let standby = rows.first()?.try_get(0).ok()?;
            Some(if standby { Role::Replica } else { Role::Primary })
        });
        self.leave("role", mark, role).await
    }

    async fn query_after(
        &mut self,
        after: &Position,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<Rows>> {
        let mark = self.enter_guarded("query")?;
        let known = self.compass().await;
        if let Some((system, _)) = self.leave("query", mark, known).await?
            && system != after.system
        {
            let message = format!(
                "{}: the session's token is of another database; begin a new session",
                self.node
            );
            return Err(Error::new(ErrorKind::Config, "session", message));
        }
        let mark = self.enter_guarded("query")?;
        let rows = self.rows_after(after, sql, params).await;
        self.leave("query", mark, rows).await
    }

    fn restrict(&mut self, access: Access) {
        self.restrict_to(access);
    }

    fn streaming(&mut self) -> Option<&mut dyn Streaming> {
        Some(self)
    }

    fn native(&mut self) -> Option<&mut (dyn Any + Send)> {
        Some(self)
    }

    fn verdict(&self) -> Verdict {
        let facts = &self.session.facts;
        let spoilt = matches!(self.flow, Some(Flow::In(_)));
        let gone = self.session.is_closed() || self.session.was_left_behind();
        if self.broken || gone || facts.is_undermined() || spoilt {
            Verdict::Discard
        } else if self.busy
            || self.work != Work::None
            || facts.status() != Status::Idle
            || (facts.is_touched() && !facts.is_pooled())
            || (self.always_reset && self.used && !facts.is_pooled())
        {
            Verdict::Clean
        } else {
            Verdict::Reuse
        }
    }

    async fn clean(&mut self) -> Result<()> {
        let cleaned = self.restore().await;
        let mark = self.session.facts.sent();
        match cleaned {
            Ok(()) => Ok(()),
            Err(trouble) => {
                self.broken = true;
                Err(self.explain("clean", mark, &trouble))
            }
        }
    }

    async fn close(mut self: Box<Self>) {
        self.flow = None;
        let busy = self.busy && !self.broken;
        self.session.close(busy).await;
    }
}

impl PostgresConnection {
    async fn restore(&mut self) -> std::result::Result<(), Trouble> {
        self.flow = None;
        let session = &self.session;
        if self.busy {
            session.drain().await?;
            self.was_cut_off();
        }
        let session = &self.session;
        session.adopt().await?;
        if session.facts.status() != Status::Idle {
            session.within(session.client.batch_execute("ROLLBACK")).await?;
        }
        let touched = session.facts.is_touched() || (self.always_reset && self.used);
        // A pooler has given the session that was touched to somebody else.
        if touched && !session.facts.is_pooled() {
            let unlisten = match session.facts.standby() {
                Some(true) => "",
                _ => UNLISTEN,
            };
            session.within(session.client.batch_execute(&format!("{RESET}; {unlisten}"))).await?;
            session.facts.untouch();
            self.was_reset();
        }
        self.work = Work::None;
        (self.busy, self.used) = (false, false);
        Ok(())
    }
}

fn begin(isolation: Isolation, access: Access) -> String {
    let isolation = match isolation {
        Isolation::Engine => "",
        Isolation::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
        Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
        Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
    };
    let access = match access {
        Access::ReadOnly => " READ ONLY",
        // As the server has it by default.
        Access::ReadWrite => "",
    };
    format!("BEGIN{isolation}{access}")
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection")
            .field("node", &self.node)
            .field("access", &self.access)
            .field("work", &self.work)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}
