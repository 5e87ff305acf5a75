//! Rows and bulk data piece by piece, however many there are.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::pin;

use futures::{Stream, StreamExt};
use resonant_common::error::BoxError;
use resonant_common::join::Position;

use crate::backend::{Access, Connection, Streaming};
use crate::replica_set::{Pick, Role};
use crate::{Error, ErrorKind, Param, Result, Row};

use super::node::{Handle, Lease, lease};
use super::read::Read;
use super::tour::Tour;
use super::transaction::Transaction;
use super::verdicts::Stage;
use super::write::Write;

pub(super) fn streaming(connection: &mut dyn Connection) -> Result<&mut dyn Streaming> {
    connection.streaming().ok_or_else(|| {
        let message = "this engine answers as a whole only; use query or execute_many";
        Error::new(ErrorKind::Unsupported, "stream", message)
    })
}

/// What the next call after a dropped one says: `Ok(None)` would be taken for the end.
pub(crate) fn cut_short(operation: &'static str) -> Error {
    let message = "a call was dropped before it had its answer: what comes from there on is missing; begin again";
    Error::new(ErrorKind::Rejected, operation, message)
}

/// The rows of a statement as they come; made by [`Read::stream`].
///
/// Only a piece of them is in memory: who does not ask for more holds the server back. It keeps a connection, and a
/// snapshot of the database, until it ends or is dropped.
pub struct RowStream {
    lease: Option<Lease>,
    here: VecDeque<Row>,
    /// A call is under way; seen between calls, it was dropped.
    cut: bool,
}

impl RowStream {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Read::query`](crate::Read::query). The stream is over then; what it has given so far was right.
    ///
    /// # Cancel safety
    ///
    /// A dropped future that was waiting for rows ends the stream and stops the statement. The next call answers `Rejected`, as
    /// rows are missing, and only those after it `None`. To wait for a bounded time without losing rows, keep the future and
    /// go on with it, or take them from [`into_stream`](RowStream::into_stream).
    pub async fn next(&mut self) -> Result<Option<Row>> {
        if std::mem::take(&mut self.cut) {
            return Err(cut_short("stream"));
        }
        if self.here.is_empty() {
            // Given back unless it comes through.
            let Some(mut lease) = self.lease.take() else { return Ok(None) };
            let flow = streaming(&mut *lease)?;
            self.cut = true;
            let rows = flow.next_rows().await;
            self.cut = false;
            if let Some(rows) = rows? {
                self.here.extend(rows);
                self.lease = Some(lease);
            }
        }
        Ok(self.here.pop_front())
    }
}

impl RowStream {
    /// The same as a [`Stream`], for its combinators. It keeps what it waits for: a call for its next row that is dropped
    /// loses nothing, and the one after it goes on.
    pub fn into_stream(self) -> impl Stream<Item = Result<Row>> + Send + use<> {
        futures::stream::try_unfold(self, async |mut rows| {
            Ok(rows.next().await?.map(|row| (row, rows)))
        })
    }
}

impl fmt::Debug for RowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").field("here", &self.here.len()).finish_non_exhaustive()
    }
}

/// What a `COPY … TO STDOUT` sends; made by [`Read::copy_out`].
pub struct CopyOut {
    lease: Option<Lease>,
    /// A call is under way; seen between calls, it was dropped.
    cut: bool,
}

impl CopyOut {
    /// The next data, not cut along rows; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`RowStream::next`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends it, and the next call answers `Rejected`, as [`RowStream::next`] does.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if std::mem::take(&mut self.cut) {
            return Err(cut_short("copy_out"));
        }
        let Some(mut lease) = self.lease.take() else { return Ok(None) };
        let flow = streaming(&mut *lease)?;
        self.cut = true;
        let data = flow.next_copy().await;
        self.cut = false;
        let data = data?;
        if data.is_some() {
            self.lease = Some(lease);
        }
        Ok(data)
    }
}

impl fmt::Debug for CopyOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut").field("ended", &self.lease.is_none()).finish()
    }
}

/// What is asked of a node that answers piece by piece.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Rows(&'a str, &'a [Param<'a>]),
    Copy(&'a str),
}

impl Read<'_> {
    /// Runs a statement and answers its rows as they come, in bounded memory, however many there are.
    ///
    /// The limit of a statement counts for each piece of the answer and not for the whole, so that it may take as long as
    /// it takes. Until the first rows it is sent to another node when a node fails; from then on an error ends it.
    ///
    /// # Errors
    ///
    /// As [`query`](Read::query); `Unsupported` for an engine that answers as a whole only.
    #[track_caller]
    pub fn stream(
        self,
        sql: &str,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<RowStream>> + Send {
        let site = Location::caller();
        async move {
            let lease = self.open(site, Wanted::Rows(sql, params)).await?;
            Ok(RowStream { lease: Some(lease), here: VecDeque::new(), cut: false })
        }
    }

    /// Runs a `COPY … TO STDOUT` and answers its data as they come.
    ///
    /// # Errors
    ///
    /// As [`stream`](Read::stream); `Rejected` for any other statement.
    #[track_caller]
    pub fn copy_out(self, sql: &str) -> impl Future<Output = Result<CopyOut>> + Send {
        let site = Location::caller();
        async move {
            let lease = self.open(site, Wanted::Copy(sql)).await?;
            Ok(CopyOut { lease: Some(lease), cut: false })
        }
    }

    async fn open(self, site: &'static Location<'static>, wanted: Wanted<'_>) -> Result<Lease> {
        let inner = &self.database.inner;
        let after = self.session.and_then(super::Session::position);
        inner.set.budget().deposit();
        let mut tour = Tour::new(inner, self.wish());
        while let Some(pick) = tour.next() {
            match open(pick, site, after, wanted).await {
                Ok(Ok(lease)) => {
                    lease.pick.succeeded();
                    return Ok(lease);
                }
                // It works, but is behind what the session has written.
                Ok(Err(pick)) => pick.succeeded(),
                Err((pick, stage, error)) => tour.failed(&pick, stage, error)?,
            }
        }
        Err(tour.end())
    }
}

/// A connection on which the answer has begun, or the node where it is not as far as `after`.
async fn open(
    pick: Pick<Handle>,
    site: &'static Location<'static>,
    after: Option<Position>,
    wanted: Wanted<'_>,
) -> Result<Result<Lease, Pick<Handle>>, (Pick<Handle>, Stage, Error)> {
    let mut lease = match lease(pick, Access::ReadOnly, site).await {
        Ok(lease) => lease,
        Err((error, pick)) => return Err((pick, Stage::Connecting, error)),
    };
    match begin(&mut lease, after, wanted).await {
        Ok(true) => Ok(Ok(lease)),
        Ok(false) => Ok(Err(lease.give_back())),
        Err(error) => Err((lease.give_back(), Stage::Running, error)),
    }
}

async fn begin(lease: &mut Lease, after: Option<Position>, wanted: Wanted<'_>) -> Result<bool> {
    // The primary's state is the newest there is, whatever the token says.
    if let Some(after) = after.filter(|_| lease.pick.role() != Role::Primary) {
        let position = lease.position().await?;
        if position.is_none_or(|position| position.has_reached(&after) != Some(true)) {
            return Ok(false);
        }
    }
    let flow = streaming(&mut **lease)?;
    match wanted {
        Wanted::Rows(sql, params) => flow.open_rows(sql, params).await,
        Wanted::Copy(sql) => flow.open_copy_out(sql).await,
    }?;
    Ok(true)
}

/// Sends all the data there are.
async fn copy_in<S, B, E>(connection: &mut dyn Connection, sql: &str, data: S) -> Result<u64>
where
    S: Stream<Item = Result<B, E>> + Send,
    B: AsRef<[u8]> + Send,
    E: Into<BoxError> + Send,
{
    let flow = streaming(connection)?;
    flow.open_copy_in(sql).await?;
    let mut data = pin!(data);
    while let Some(piece) = data.next().await {
        let piece = piece.map_err(|error| {
            let message = "the source of the data failed; nothing was copied";
            Error::new(ErrorKind::Rejected, "copy_in", message).with_source(error)
        })?;
        flow.send_copy(piece.as_ref()).await?;
    }
    flow.finish_copy_in().await
}

impl Write<'_> {
    /// Runs a `COPY … FROM STDIN` with data that may be of any size, all or nothing; answers how many rows there were.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::Database) -> resonant_db::Result<()> {
    /// use std::convert::Infallible;
    /// let lines = futures::stream::iter((0..1_000_000).map(|n| Ok::<_, Infallible>(format!("{n}\tname\n"))));
    /// db.write().copy_in("COPY users (id, name) FROM STDIN", lines).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`execute`](Write::execute), and nothing is copied; `Rejected` for any other statement and when the source of
    /// the data fails; `Unsupported` for an engine without COPY.
    ///
    /// # Cancel safety
    ///
    /// A dropped future copies nothing, unless its end was already on the way: then it is unknown whether it copied all.
    #[track_caller]
    pub fn copy_in<S, B, E>(self, sql: &str, data: S) -> impl Future<Output = Result<u64>> + Send
    where
        S: Stream<Item = Result<B, E>> + Send,
        B: AsRef<[u8]> + Send,
        E: Into<BoxError> + Send,
    {
        let site = Location::caller();
        async move {
            let mut lease = self.lease(site).await?;
            let result = copy_in(&mut *lease, sql, data).await;
            self.done(&mut lease, result).await
        }
    }
}

impl Transaction<'_> {
    /// Runs a `COPY … FROM STDIN`, as [`Write::copy_in`], in this transaction.
    ///
    /// # Errors
    ///
    /// As [`Write::copy_in`].
    pub async fn copy_in<S, B, E>(&mut self, sql: &str, data: S) -> Result<u64>
    where
        S: Stream<Item = Result<B, E>> + Send,
        B: AsRef<[u8]> + Send,
        E: Into<BoxError> + Send,
    {
        self.enter("copy_in")?;
        let result = copy_in(self.connection, sql, data).await;
        self.leave(result)
    }
}
