//! Rows piece by piece: the connection's thread runs the statement as far as the pieces are taken.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::backend::{ParamRows, Streaming};
use crate::{Error, ErrorKind, Param, Result, Rows};

use super::connection::SqliteConnection;

/// A piece that waits to be taken, and one that is being made, are all that is in memory.
const WAITING: usize = 1;
const STREAM: &str = "stream";

/// A statement whose rows are being taken.
pub(super) struct Flow {
    pieces: mpsc::Receiver<Option<Rows>>,
    /// How it ended.
    end: oneshot::Receiver<Result<()>>,
}

impl SqliteConnection {
    /// The next piece, within the limit of a statement. At the end, `None` or why there is no more.
    async fn piece(&mut self) -> Result<Option<Option<Rows>>> {
        let Some(flow) = &mut self.flow else { return Ok(None) };
        let next = match self.worker.limit() {
            None => Ok(flow.pieces.recv().await),
            Some(limit) => timeout(limit, flow.pieces.recv()).await,
        };
        if let Ok(Some(piece)) = next {
            return Ok(Some(piece));
        }
        // It has come to its end, or has to be stopped.
        let Some(flow) = self.flow.take() else { return Ok(None) };
        drop(flow.pieces);
        self.worker.ended(STREAM, flow.end, next.is_err()).await.map(|()| None)
    }
}

fn no_copy(operation: &'static str) -> Error {
    let message = "SQLite has no COPY; use execute_many, or a stream of rows";
    Error::new(ErrorKind::Unsupported, operation, message)
}

#[async_trait]
impl Streaming for SqliteConnection {
    async fn open_rows(&mut self, sql: &str, params: &[Param<'_>]) -> Result<()> {
        let (sql, params) = (sql.to_owned(), ParamRows::single(params));
        let (to, pieces) = mpsc::channel(WAITING);
        let end = self.worker.begin(move |engine| engine.stream(&sql, &params, &to));
        self.flow = Some(Flow { pieces, end });
        // The first piece says that the statement is one that can be run.
        self.piece().await.map(drop)
    }

    async fn next_rows(&mut self) -> Result<Option<Rows>> {
        self.piece().await.map(Option::flatten)
    }

    async fn open_copy_out(&mut self, _sql: &str) -> Result<()> {
        Err(no_copy("copy_out"))
    }

    async fn next_copy(&mut self) -> Result<Option<Vec<u8>>> {
        Err(no_copy("copy_out"))
    }

    async fn open_copy_in(&mut self, _sql: &str) -> Result<()> {
        Err(no_copy("copy_in"))
    }

    async fn send_copy(&mut self, _data: &[u8]) -> Result<()> {
        Err(no_copy("copy_in"))
    }

    async fn finish_copy_in(&mut self) -> Result<u64> {
        Err(no_copy("copy_in"))
    }
}
