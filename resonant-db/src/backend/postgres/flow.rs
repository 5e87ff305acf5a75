//! Answers and data piece by piece: rows, COPY out, COPY in.
//!
//! The driver reads from the socket only as fast as the pieces are taken, so the server is held back by whoever takes
//! them. Outside a transaction each has one of its own, in which the server's limit of a statement is off, as it would
//! count the time the taker needs; instead each piece must come within that limit.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::{CopyInSink, CopyOutStream, Row, RowStream};

use crate::backend::{Access, Streaming};
use crate::{Error, ErrorKind, Param, Result, Rows};

use super::connection::{PostgresConnection, Work};
use super::error::Trouble;
use super::facts::Tag;
use super::param::{self, Encoded};
use super::{hygiene, rows};

/// The most rows, and about the most bytes, of one piece.
const ROWS: usize = 256;
const BYTES: usize = 1 << 20;

/// What is under way.
pub(super) enum Flow {
    Rows(Pin<Box<RowStream>>, Option<tokio_postgres::Error>),
    Out(Pin<Box<CopyOutStream>>),
    In(Pin<Box<CopyInSink<Bytes>>>),
    /// Nothing more comes.
    Ended,
}

const STREAM: &str = "stream";

impl PostgresConnection {
    /// Begins a transaction for what comes, unless there is one.
    async fn surround(&self) -> std::result::Result<(), Trouble> {
        if self.work != Work::None {
            return Ok(());
        }
        let begin = match self.access {
            Access::ReadOnly => "BEGIN READ ONLY; SET LOCAL statement_timeout = 0",
            Access::ReadWrite => "BEGIN; SET LOCAL statement_timeout = 0",
        };
        let facts = &self.session.facts;
        // It ends with the transaction: nothing of it is left to reset. What `enter_transaction` sent may be under way, too.
        facts.expect_setting();
        let begun = self.session.within(self.session.client.batch_execute(begin)).await;
        facts.expect_no_setting();
        begun
    }

    async fn begin_rows(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> std::result::Result<Flow, Trouble> {
        // Prepared first: where that fails there is nothing to undo.
        let (mut known, mut fresh) = self.known(sql).await?;
        loop {
            if known.suspicious {
                self.session.facts.touch();
            }
            param::check(params.iter().copied(), known.statement.params())
                .map_err(Trouble::Refused)?;
            self.surround().await?;
            let session = &self.session;
            let encoded = params.iter().map(|param| Encoded(*param));
            match session.within(session.client.query_raw(&known.statement, encoded)).await {
                Ok(stream) => return Ok(Flow::Rows(Box::pin(stream), None)),
                Err(trouble) if !fresh && trouble.is_stale() && self.work == Work::None => {
                    session.settle().await?;
                    session.within(session.client.batch_execute("ROLLBACK")).await?;
                    self.statements.forget(sql);
                    (known, fresh) = self.known(sql).await?;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    async fn begin_copy(&mut self, sql: &str, inwards: bool) -> std::result::Result<Flow, Trouble> {
        if !hygiene::is_copy(sql) {
            let message = match inwards {
                true => "copy_in wants COPY … FROM STDIN",
                false => "copy_out wants COPY … TO STDOUT",
            };
            return Err(Trouble::Refused(message.into()));
        }
        super::run::no_nul(sql)?;
        self.surround().await?;
        let session = &self.session;
        let statement = session.within(session.prepare(sql)).await?;
        if !inwards {
            let stream = session.within(session.client.copy_out(&statement)).await?;
            return Ok(Flow::Out(Box::pin(stream)));
        }
        let sink = session.within(session.client.copy_in(&statement)).await;
        // The driver ends a COPY that did not begin all the same, and the server answers that too.
        self.broken |= sink.is_err();
        Ok(Flow::In(Box::pin(sink?)))
    }

    /// Opens a flow, or ends the call with what went wrong.
    async fn open_flow(
        &mut self,
        opened: std::result::Result<Flow, Trouble>,
        mark: u64,
    ) -> Result<()> {
        match opened {
            Ok(flow) => {
                (self.flow, self.mark) = (Some(flow), mark);
                Ok(())
            }
            Err(trouble) => self.leave(STREAM, mark, Err(trouble)).await,
        }
    }

    /// The flow has come to its end, well or not.
    async fn end_flow<T>(&mut self, result: std::result::Result<T, Trouble>) -> Result<T> {
        // The driver's account of a COPY in that failed is not to be relied on.
        self.broken |= result.is_err() && matches!(self.flow, Some(Flow::In(_)));
        let copied = matches!(self.flow.take(), Some(Flow::In(_)));
        let result = match result {
            Ok(value) => self.conclude().await.map(|()| value),
            failed => failed,
        };
        let result = self.leave(STREAM, self.mark, result).await;
        // PgBouncer miscounts: it would keep its session for this connection alone.
        self.broken |= copied && self.session.facts.is_pooled();
        result
    }

    async fn conclude(&self) -> std::result::Result<(), Trouble> {
        self.session.settle().await?;
        if self.work != Work::None {
            return Ok(());
        }
        self.session.within(self.session.client.batch_execute("COMMIT")).await?;
        match self.session.facts.tag() {
            Tag::Rollback => Err(Trouble::Refused("the server rolled it back".into())),
            _ => Ok(()),
        }
    }

    fn check_flow(&mut self) -> Result<()> {
        if self.broken || self.session.is_closed() {
            // Says why.
            self.flow = None;
            return self.enter(STREAM).map(drop);
        }
        Ok(())
    }

    /// The next rows: one that is waited for, and those that are here already.
    async fn piece(&mut self) -> std::result::Result<Vec<Row>, Trouble> {
        let Some(Flow::Rows(stream, failure)) = &mut self.flow else { return Ok(Vec::new()) };
        if let Some(error) = failure.take() {
            return Err(error.into());
        }
        let Some(first) = self.session.within(stream.try_next()).await? else {
            return Ok(Vec::new());
        };
        let (mut bytes, mut piece) = (first.raw_size_bytes(), vec![first]);
        while piece.len() < ROWS && bytes < BYTES {
            match stream.next().now_or_never() {
                Some(Some(Ok(row))) => {
                    bytes += row.raw_size_bytes();
                    piece.push(row);
                }
                // What is here is handed out first.
                Some(Some(Err(error))) => {
                    *failure = Some(error);
                    break;
                }
                Some(None) => {
                    self.flow = Some(Flow::Ended);
                    break;
                }
                None => break,
            }
        }
        Ok(piece)
    }
}

fn nothing_open() -> Error {
    Error::new(ErrorKind::Rejected, STREAM, "nothing is open that could be taken piece by piece")
}

#[async_trait]
impl Streaming for PostgresConnection {
    async fn open_rows(&mut self, sql: &str, params: &[Param<'_>]) -> Result<()> {
        let mark = self.enter_transaction(STREAM)?;
        let opened = self.begin_rows(sql, params).await;
        self.open_flow(opened, mark).await
    }

    async fn next_rows(&mut self) -> Result<Option<Rows>> {
        self.check_flow()?;
        match &self.flow {
            None => return Ok(None),
            Some(Flow::Ended) => return self.end_flow(Ok(None)).await,
            Some(_) => {}
        }
        match self.piece().await {
            Ok(piece) => match piece.first().cloned() {
                Some(first) => Ok(Some(rows::rows(first.columns(), piece))),
                None => self.end_flow(Ok(None)).await,
            },
            Err(trouble) => self.end_flow(Err(trouble)).await,
        }
    }

    async fn open_copy_out(&mut self, sql: &str) -> Result<()> {
        let mark = self.enter_transaction("copy_out")?;
        let opened = self.begin_copy(sql, false).await;
        self.open_flow(opened, mark).await
    }

    async fn next_copy(&mut self) -> Result<Option<Vec<u8>>> {
        self.check_flow()?;
        let Some(Flow::Out(stream)) = &mut self.flow else { return Ok(None) };
        match self.session.within(stream.try_next()).await {
            Ok(Some(data)) => Ok(Some(data.into())),
            Ok(None) => self.end_flow(Ok(None)).await,
            Err(trouble) => self.end_flow(Err(trouble)).await,
        }
    }

    async fn open_copy_in(&mut self, sql: &str) -> Result<()> {
        let mark = self.enter_transaction("copy_in")?;
        let opened = self.begin_copy(sql, true).await;
        self.open_flow(opened, mark).await
    }

    async fn send_copy(&mut self, data: &[u8]) -> Result<()> {
        self.check_flow()?;
        let Some(Flow::In(sink)) = &mut self.flow else { return Err(nothing_open()) };
        let sent = self.session.within(sink.feed(Bytes::copy_from_slice(data))).await;
        match sent {
            Ok(()) => Ok(()),
            Err(trouble) => self.end_flow(Err(trouble)).await,
        }
    }

    async fn finish_copy_in(&mut self) -> Result<u64> {
        self.check_flow()?;
        let Some(Flow::In(sink)) = &mut self.flow else { return Err(nothing_open()) };
        let count = self.session.within(sink.as_mut().finish()).await;
        self.end_flow(count).await
    }
}
