//! A connection as the crate sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use resonant_common::join::Position;

use crate::backend::{BeginOptions, Connection, ParamRows, Streaming, Target};
use crate::pool::Verdict;
use crate::{Error, ErrorKind, Param, Result, Rows};

use super::engine::Engine;
use super::flow::Flow;
use super::options::Options;
use super::position;
use super::tidy::Tally;
use super::worker::Worker;

pub(super) struct SqliteConnection {
    pub(super) worker: Worker,
    /// What is taken piece by piece.
    pub(super) flow: Option<Flow>,
    node: Arc<str>,
    system: u64,
    in_transaction: bool,
}

impl SqliteConnection {
    pub(super) async fn open(
        options: Options,
        target: &Target,
        system: u64,
        tally: Arc<Tally>,
    ) -> Result<Self> {
        let worker = Worker::start(options, target, tally).await?;
        Ok(Self {
            worker,
            flow: None,
            node: Arc::clone(&target.name),
            system,
            in_transaction: false,
        })
    }
}

#[async_trait]
impl Connection for SqliteConnection {
    async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        let (sql, params) = (sql.to_owned(), ParamRows::single(params));
        self.worker.run("query", move |engine| engine.query(&sql, &params)).await
    }

    async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let (sql, params) = (sql.to_owned(), ParamRows::single(params));
        self.worker.run("execute", move |engine| engine.execute(&sql, &params)).await
    }

    async fn execute_many(&mut self, sql: &str, rows: ParamRows) -> Result<u64> {
        let sql = sql.to_owned();
        self.worker.run("execute_many", move |engine| engine.execute_many(&sql, &rows)).await
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        let sql = sql.to_owned();
        self.worker.run("batch", move |engine| engine.batch(&sql)).await
    }

    async fn begin(&mut self, options: BeginOptions) -> Result<()> {
        self.worker.run("begin", move |engine| engine.begin(options)).await?;
        self.in_transaction = true;
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        self.worker.run("commit", Engine::commit).await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn rollback(&mut self) -> Result<()> {
        self.worker.run("rollback", Engine::rollback).await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn ping(&mut self) -> Result<()> {
        self.worker.run("ping", Engine::ping).await
    }

    async fn position(&mut self) -> Result<Option<Position>> {
        Ok(Some(position::now(self.system)))
    }

    async fn query_after(
        &mut self,
        after: &Position,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<Rows>> {
        if after.system != self.system {
            let message = format!(
                "{}: the session's token is of another database; begin a new session",
                self.node
            );
            return Err(Error::new(ErrorKind::Config, "session", message));
        }
        // Every commit acknowledged before now is visible, whatever the clocks say.
        self.query(sql, params).await.map(Some)
    }

    fn verdict(&self) -> Verdict {
        let facts = self.worker.facts();
        if facts.broken.load(Ordering::Acquire) || facts.altered.load(Ordering::Acquire) {
            Verdict::Discard
        } else if self.worker.is_pending() || self.in_transaction {
            Verdict::Clean
        } else {
            Verdict::Reuse
        }
    }

    fn streaming(&mut self) -> Option<&mut dyn Streaming> {
        Some(self)
    }

    async fn clean(&mut self) -> Result<()> {
        // Who hands over pieces learns of it by this.
        self.flow = None;
        self.worker.reset().await?;
        self.in_transaction = false;
        Ok(())
    }

    async fn close(mut self: Box<Self>) {
        self.flow = None;
        self.worker.close().await;
    }
}

impl fmt::Debug for SqliteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConnection")
            .field("node", &self.node)
            .field("in_transaction", &self.in_transaction)
            .finish_non_exhaustive()
    }
}
