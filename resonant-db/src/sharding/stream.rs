//! Rows of several shards as they come, in one order, in bounded memory.
//!
//! Of each shard there is one piece of rows here, of the size [`Read::stream`](crate::Read::stream) takes: whoever does not
//! ask for more holds all servers back.

use std::fmt;
use std::sync::atomic::Ordering;

use futures::Stream;
use futures::future::{join_all, try_join_all};

use super::database::ShardedDatabase;
use super::gather::Ask;
use super::live::{self, TURNS};
use super::merge::{Context, Weave, Window, weave, width};
use super::route::{Merge, Target};
use super::router::RouteKind;
use crate::backend::RowBlock;
use crate::database::{RowStream, cut_short};
use crate::row::RowsIter;
use crate::{Param, Result, Row, Rows, ValueRef};

/// The rows of a statement over several shards as they come; made by [`ShardedDatabase::stream`] and
/// [`ShardedDatabase::stream_all`].
///
/// It keeps a connection to each of its shards, and a snapshot of each, until it ends or is dropped: then the statements of
/// all shards are stopped.
pub struct ShardedRowStream {
    home: Home,
    state: State,
}

/// Whose rows they are.
struct Home {
    database: ShardedDatabase,
    operation: &'static str,
    shards: Vec<u32>,
}

enum State {
    /// Computed already: groups that are folded.
    Held(RowsIter),
    Open(Box<Open>),
    /// A call is under way; seen between calls, it was dropped.
    Cut,
    Ended,
}

struct Open {
    streams: Vec<RowStream>,
    /// The next row of each shard, once it was asked for one.
    fronts: Vec<Option<Row>>,
    begun: bool,
    merge: Merge,
    /// Made when the first rows are here. `None`: the shards follow one another.
    weave: Option<Weave>,
    width: usize,
    /// Whose front was handed out.
    taken: usize,
    window: Window,
}

impl ShardedDatabase {
    /// As [`query`](ShardedDatabase::query), but answers the rows as they come, however many there are.
    ///
    /// # Errors
    ///
    /// As [`query`](ShardedDatabase::query); `Refused` for a statement that writes, `Unsupported` for an engine that answers as
    /// a whole only.
    pub async fn stream(&self, sql: &str, params: &[Param<'_>]) -> Result<ShardedRowStream> {
        self.streamed(Ask { operation: "stream", sql, params, sessions: None }, false).await
    }

    /// As [`query_all`](ShardedDatabase::query_all), but answers the rows as they come, however many there are.
    ///
    /// Rows in an order are woven into one while they come; without ORDER BY those of each shard follow one another. About
    /// 1 MiB of rows of each shard is in memory, or one row where that is larger: who does not ask for more holds all servers
    /// back. [`merge_rows`](super::ShardedDatabaseBuilder::merge_rows) bounds nothing here but groups that are folded.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::ShardedDatabase) -> resonant_db::Result<()> {
    /// # use resonant_db::params;
    /// let mut rows = db.stream_all("SELECT id, at FROM events ORDER BY at", params![]).await?;
    /// while let Some(row) = rows.next().await? {
    ///     println!("{}", row.get::<i64>("id")?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query_all`](ShardedDatabase::query_all); `Unsupported` for an engine that answers as a whole only.
    pub async fn stream_all(&self, sql: &str, params: &[Param<'_>]) -> Result<ShardedRowStream> {
        self.streamed(Ask { operation: "stream_all", sql, params, sessions: None }, true).await
    }

    pub(super) async fn streamed(&self, ask: Ask<'_>, all: bool) -> Result<ShardedRowStream> {
        for turn in 0..TURNS {
            if let Some(stream) = self.opened_all(ask, all, turn).await? {
                return Ok(stream);
            }
        }
        Err(live::restless(ask.operation))
    }

    /// `None`: buckets have moved before all snapshots were taken.
    async fn opened_all(
        &self,
        ask: Ask<'_>,
        all: bool,
        turn: u32,
    ) -> Result<Option<ShardedRowStream>> {
        let router = &self.inner.router;
        let Ask { operation, sql, params, .. } = ask;
        let compiled = if all { router.everywhere(sql) } else { router.compiled(sql) };
        let mut program = self.readable(ask, &compiled)?;
        let mut target = self.counted(router.target(program, params, operation))?;
        let by_key;
        if all && target != Target::Every {
            by_key = router.compiled(sql);
            program = self.counted(super::router::program(&by_key, operation))?;
            target = self.counted(router.target(program, params, operation))?;
        }
        let mut stamps = Vec::new();
        let mut asked: Vec<u32> = Vec::new();
        if self.inner.live.is_some() {
            asked = match target {
                Target::Any => Vec::new(),
                Target::One(shard) => vec![shard],
                Target::Several => {
                    self.counted(self.cut(program, params, operation))?.0.shards().collect()
                }
                Target::Every => (0..router.count()).collect(),
            };
            stamps = self.entered(&asked, turn).await?;
            // What was learned just now may have changed who owns what.
            target = self.counted(router.target(program, params, operation))?;
        }
        let cut;
        let parts: Vec<(u32, Vec<Param<'_>>)> = match target {
            Target::One(shard) => {
                self.inner.meters.routed(RouteKind::Single, 1);
                vec![(shard, params.to_vec())]
            }
            Target::Any => {
                self.inner.meters.routed(RouteKind::Any, 1);
                let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
                vec![(turn % router.count(), params.to_vec())]
            }
            Target::Several => {
                let found = self.counted(self.cut(program, params, operation))?;
                cut = found.0;
                cut.parts(found.1, params)
            }
            Target::Every => (0..router.count()).map(|shard| (shard, params.to_vec())).collect(),
        };
        let shards: Vec<u32> = parts.iter().map(|(shard, _)| *shard).collect();
        if self.inner.live.is_some() && target != Target::Any && shards != asked {
            return Ok(None);
        }
        let whole = !matches!(target, Target::Several | Target::Every);
        if !whole && program.merge.columns.is_some() {
            let rows = if all { self.everywhere(ask).await } else { self.by_key(ask).await }?;
            let state = State::Held(rows.into_iter());
            let home = Home { database: self.clone(), operation, shards };
            return Ok(Some(ShardedRowStream { home, state }));
        }
        let merge = if whole { Merge::default() } else { (*program.merge).clone() };
        let window = {
            let context = Context { most: usize::MAX, ..self.context(ask, &shards) };
            self.counted(Window::of(&merge, params, &context))?
        };
        match target {
            Target::Several => self.inner.meters.routed(RouteKind::Split, 1),
            Target::Every => self.inner.meters.routed(RouteKind::Every, 1),
            Target::Any | Target::One(_) => {}
        }
        let text = merge.unbounded.as_deref().or(merge.sql.as_deref()).unwrap_or(sql);
        let opening = parts.iter().map(|(shard, params)| self.opened(ask, *shard, text, params));
        let streams = try_join_all(opening).await?;
        // Each has its snapshot now: what moves from here on changes nothing in them.
        if target != Target::Any && !self.all_held(&asked, &stamps).await? {
            return Ok(None);
        }
        let fronts = vec![None; streams.len()];
        let open =
            Open { streams, fronts, begun: false, weave: None, width: 0, taken: 0, window, merge };
        let state = State::Open(Box::new(open));
        let home = Home { database: self.clone(), operation, shards };
        Ok(Some(ShardedRowStream { home, state }))
    }

    async fn opened(
        &self,
        ask: Ask<'_>,
        shard: u32,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<RowStream> {
        let session = ask.sessions.and_then(|sessions| sessions.get(shard as usize));
        let floor = self.inner.live.as_ref().and_then(|live| live.floor(shard));
        if let (Some(session), Some(floor)) = (session, &floor) {
            session.join(floor);
        }
        let shard = self.at(shard);
        let session = session.or(floor.as_ref());
        let read = session.map_or_else(|| shard.database.read(), crate::Session::read);
        shard.run(ask.operation, read.stream(sql, params)).await
    }
}

impl ShardedRowStream {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`ShardedDatabase::query_all`]. The stream is over then; what it has given so far was right.
    ///
    /// # Cancel safety
    ///
    /// A dropped future that was waiting for rows ends the stream, and the statements of all shards are stopped. The next call
    /// answers `Rejected`, as rows are missing, and only those after it `None`.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => Ok(None),
            State::Cut => Err(cut_short(self.home.operation)),
            State::Held(mut rows) => {
                let row = rows.next();
                if row.is_some() {
                    self.state = State::Held(rows);
                }
                Ok(row)
            }
            State::Open(mut open) => {
                // Gone unless it comes through: a stream of which a part is missing must not go on.
                self.state = State::Cut;
                let row = self.home.advance(&mut open).await;
                self.state = State::Ended;
                let row = row?;
                if row.is_some() {
                    self.state = State::Open(open);
                }
                Ok(row)
            }
        }
    }

    /// The same as a [`Stream`], for its combinators. It keeps what it waits for: a call for its next row that is dropped
    /// loses nothing, and the one after it goes on.
    pub fn into_stream(self) -> impl Stream<Item = Result<Row>> + Send + use<> {
        futures::stream::try_unfold(self, async |mut rows| {
            Ok(rows.next().await?.map(|row| (row, rows)))
        })
    }
}

impl Home {
    async fn advance(&self, open: &mut Open) -> Result<Option<Row>> {
        loop {
            if open.window.take == Some(0) {
                return Ok(None);
            }
            let Some(row) = self.front(open).await? else { return Ok(None) };
            if open.window.skip > 0 {
                open.window.skip -= 1;
                continue;
            }
            open.window.take = open.window.take.map(|take| take - 1);
            return Ok(Some(if open.merge.hidden == 0 { row } else { narrowed(row, open.width) }));
        }
    }

    async fn front(&self, open: &mut Open) -> Result<Option<Row>> {
        if open.merge.order.is_empty() {
            while let Some(stream) = open.streams.get_mut(open.taken) {
                if let Some(row) = self.asked(open.taken, stream).await? {
                    return Ok(Some(row));
                }
                open.taken += 1;
            }
            return Ok(None);
        }
        if open.begun {
            let at = open.taken;
            if let (Some(stream), Some(front)) = (open.streams.get_mut(at), open.fronts.get_mut(at))
            {
                *front = self.asked(at, stream).await?;
            }
        } else {
            let asked = open.streams.iter_mut().enumerate();
            let asked = asked.map(|(at, stream)| self.asked(at, stream));
            open.fronts = join_all(asked).await.into_iter().collect::<Result<_>>()?;
            open.begun = true;
        }
        let ask = Ask { operation: self.operation, sql: "", params: &[], sessions: None };
        let context = self.database.context(ask, &self.shards);
        let weave = match &mut open.weave {
            Some(weave) => weave,
            none => {
                let mut widths = open.fronts.iter().flatten().map(|row| row.columns().len());
                let Some(columns) = widths.next() else { return Ok(None) };
                if widths.any(|other| other != columns) {
                    return Err(context.refused("the shards answer different columns"));
                }
                open.width = width(&context, &open.merge, columns)?;
                none.insert(weave(&context, &open.merge, columns)?)
            }
        };
        let Some(at) = self.database.counted(weave.next(&context, &open.fronts))? else {
            return Ok(None);
        };
        open.taken = at;
        self.database.inner.meters.merged(1);
        Ok(open.fronts.get_mut(at).and_then(Option::take))
    }

    async fn asked(&self, at: usize, stream: &mut RowStream) -> Result<Option<Row>> {
        let row = stream.next().await;
        match (self.shards.get(at), row) {
            (Some(shard), Err(error)) => self.database.at(*shard).noted(Err(error)),
            (_, row) => row,
        }
    }
}

/// A row without the columns behind `width`.
fn narrowed(row: Row, width: usize) -> Row {
    let columns = row.columns().iter().take(width).cloned().collect();
    let rows = Rows::new(columns, Box::new(Narrow(row.clone())));
    rows.first().unwrap_or(row)
}

struct Narrow(Row);

impl RowBlock for Narrow {
    fn len(&self) -> usize {
        1
    }

    fn value(&self, _: usize, column: usize) -> std::result::Result<ValueRef<'_>, &'static str> {
        self.0.value(column).map_err(|_| "the shard answered bytes that are no value")
    }
}

impl fmt::Debug for ShardedRowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedRowStream")
            .field("shards", &self.home.shards.len())
            .field("ended", &matches!(self.state, State::Ended))
            .finish_non_exhaustive()
    }
}
