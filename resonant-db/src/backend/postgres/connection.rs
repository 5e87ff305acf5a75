//! A connection: the session, what it knows, and how a call begins and ends.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use tokio_postgres::{SimpleQueryStream, Statement};

use crate::backend::{Access, ErrorExt, Target};
use crate::{Error, ErrorKind, Param, Result};

use super::error::{Place, Trouble, translate};
use super::facts::Status;
use super::flow::Flow;
use super::login::Login;
use super::run::{Ask, changed, no_nul};
use super::session::Session;
use super::statements::{Known, Recent};
use super::{Node, hygiene};

pub(super) const NO_COPY: &str =
    "COPY from or to the client answers no rows: use copy_in or copy_out";

pub(super) struct PostgresConnection {
    pub(super) session: Session,
    pub(super) node: Arc<str>,
    /// What it may do now, of what it was opened for.
    pub(super) access: Access,
    opened: Access,
    /// What the server lets statements outside a transaction do; `None` where that is not known.
    mode: Option<Access>,
    /// The answer to what it was told last, until it has come.
    told: Option<Pin<Box<SimpleQueryStream>>>,
    pub(super) statements: Recent<Arc<Known>>,
    pub(super) origin: Arc<Node>,
    /// Types of the user's own that the driver has looked up here.
    pub(super) met: HashSet<u32>,
    /// What is taken piece by piece.
    pub(super) flow: Option<Flow>,
    /// How much had been sent before that.
    pub(super) mark: u64,
    pub(super) always_reset: bool,
    pub(super) work: Work,
    /// A call is under way; seen between calls, it was dropped.
    pub(super) busy: bool,
    pub(super) used: bool,
    pub(super) broken: bool,
    pub(super) system: Option<u64>,
    pub(super) place: Option<Statement>,
    /// The server does not say how far it is.
    pub(super) blind: bool,
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
    pub(super) async fn open(node: &Arc<Node>, target: &Target) -> Result<Self> {
        let session = Session::open(node, target, Login::default()).await?;
        Ok(Self {
            session,
            node: Arc::clone(&target.name),
            access: target.access,
            opened: target.access,
            mode: Some(target.access),
            told: None,
            statements: Recent::new(node.settings.statements),
            origin: Arc::clone(node),
            met: HashSet::new(),
            flow: None,
            mark: 0,
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

    pub(super) fn is_pooled(&self) -> bool {
        self.session.facts.is_pooled()
    }

    /// Whether the server says by itself what it is.
    pub(super) fn reports_role(&self) -> bool {
        self.session.facts.reports_standby()
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

    /// Begins a call that may run outside a transaction: there the server is told first what it is to let through. That goes
    /// out together with the call.
    pub(super) fn enter_guarded(&mut self, operation: &'static str) -> Result<u64> {
        let mark = self.enter(operation)?;
        if self.work == Work::None
            && self.mode != Some(self.access)
            && !self.session.facts.is_pooled()
        {
            let sql = match self.access {
                Access::ReadOnly => "SET default_transaction_read_only = on",
                // As the server has it, not `off`: a value of the session's own would outlast the server being closed for writes.
                Access::ReadWrite => "SET default_transaction_read_only TO DEFAULT",
            };
            self.session.facts.expect_setting();
            // It goes out ahead of the call; `leave` looks whether it was taken.
            let told = self.session.client.simple_query_raw(sql).now_or_never();
            self.told = told.and_then(|told| told.ok()).map(Box::pin);
            self.mode = Some(self.access);
        }
        Ok(mark)
    }

    pub(super) fn restrict_to(&mut self, access: Access) {
        self.access = match self.opened {
            Access::ReadOnly => Access::ReadOnly,
            Access::ReadWrite => access,
        };
    }

    /// Begins a call that begins a transaction: one that only reads says so itself, one that may write is as the session is.
    pub(super) fn enter_transaction(&mut self, operation: &'static str) -> Result<u64> {
        match self.access {
            Access::ReadOnly => self.enter(operation),
            Access::ReadWrite => self.enter_guarded(operation),
        }
    }

    /// The session's settings are those it was opened with.
    pub(super) fn was_reset(&mut self) {
        self.mode = Some(self.opened);
    }

    /// A call was cut off: what the server was told meanwhile may not have come through.
    pub(super) fn was_cut_off(&mut self) {
        (self.mode, self.told) = (None, None);
        self.session.facts.expect_no_setting();
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
            Err(trouble) => Err(Box::pin(self.failed(operation, mark, &trouble)).await),
        };
        let result = if self.broken { result } else { self.review(operation, result).await };
        let result = if self.broken { result } else { self.confirm_mode(operation, result) };
        self.busy = false;
        result
    }

    /// Whether the server has taken what it was told ahead of the call, as far as it has answered. If not, the call went out
    /// with it all the same: what it did, it did with the access of before.
    fn confirm_mode<T>(&mut self, operation: &'static str, result: Result<T>) -> Result<T> {
        loop {
            match self.told.as_mut().and_then(|told| told.next().now_or_never()) {
                // A call that was refused here has waited for nothing.
                None => return result,
                Some(Some(Ok(_))) => {}
                Some(None) => {
                    self.told = None;
                    return result;
                }
                Some(Some(Err(_))) => break,
            }
        }
        self.broken = true;
        match result {
            // A transaction that was begun is not committed.
            Ok(_) if operation == "begin" => Err(self.without_access(operation)),
            Ok(_) => Err(self.without_access(operation).with_may_have_applied()),
            Err(refused) if refused.sqlstate().is_some() => Err(refused),
            // Nobody knows what became of it.
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable) => {
                Err(error.with_may_have_applied())
            }
            refused => refused,
        }
    }

    fn without_access(&self, operation: &'static str) -> Error {
        let message = format!("{}: the session did not take its access; it is closed", self.node);
        Error::new(ErrorKind::Unavailable, operation, message)
    }

    async fn failed(&mut self, operation: &'static str, mark: u64, trouble: &Trouble) -> Error {
        // The error comes before the answer is complete: the status is that of the session only then.
        if matches!(trouble, Trouble::Silent(_)) && self.session.facts.is_pooled() {
            // It has no limit at the server that would stop it.
            self.session.cancel().await;
        }
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

    pub(super) async fn affected(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> std::result::Result<u64, Trouble> {
        if params.is_empty() && hygiene::is_utility(sql) && !hygiene::is_copy(sql) {
            no_nul(sql)?;
            self.lasting(sql)?;
            if hygiene::is_suspicious(sql) {
                self.session.facts.touch();
            }
            let run = self.session.within(self.session.client.execute_typed(sql, &[]));
            let count = match self.access {
                // Some of them do not run in a transaction.
                Access::ReadWrite => run.await?,
                Access::ReadOnly => self.enclosed(run).await?,
            };
            return Ok(changed(&self.session, count));
        }
        Ok(self.run(sql, Ask::Count(params)).await?.count())
    }

    pub(super) async fn several(&mut self, sql: &str) -> std::result::Result<(), Trouble> {
        if hygiene::has_copy(sql) {
            return Err(Trouble::Refused(NO_COPY.into()));
        }
        no_nul(sql)?;
        self.lasting(sql)?;
        if self.access == Access::ReadOnly && self.opening().is_some() {
            let message = "through a pooler several statements at once cannot be kept from writing";
            return Err(Trouble::Refused(message.into()));
        }
        if hygiene::is_suspicious(sql) {
            self.session.facts.touch();
        }
        self.session.within(self.session.client.batch_execute(sql)).await
    }

    /// Refuses what would be left behind in a session that a pooler gives to somebody else.
    fn lasting(&self, sql: &str) -> std::result::Result<(), Trouble> {
        let shared = self.session.facts.is_pooled() && self.work == Work::None;
        if shared && hygiene::outlasts(sql) {
            let message = "a pooler stands in between, and the session is another's after this statement; in a transaction \
                           SET LOCAL lasts to its end";
            return Err(Trouble::Refused(message.into()));
        }
        Ok(())
    }
}
