//! Asking the shards of a statement and making their answers one.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, timeout, timeout_at};

use super::builder::reads;
use super::database::{ShardedDatabase, reference_write, split_write};
use super::live::{self, Stamp, TURNS};
use super::merge::{Context, Window, merged};
use super::route::{Access, Merge, Program, Split, Target};
use super::router::{RouteKind, program};
use super::single::Want;
use crate::{Error, ErrorKind, Param, Result, Rows, Session};

/// What of an answer over all shards there is; made by
/// [`ShardedDatabase::query_all_within`](ShardedDatabase::query_all_within).
#[derive(Debug)]
#[non_exhaustive]
pub struct Partial {
    /// The rows of the shards that answered, made one as [`query_all`](ShardedDatabase::query_all) does.
    pub rows: Rows,
    /// The shards that did not, in the order of declaration. Empty: the answer is whole.
    pub missing: Vec<MissingShard>,
}

/// A shard whose rows are not in an answer.
#[non_exhaustive]
pub struct MissingShard {
    /// Its name.
    pub name: String,
    /// Why: its own error, or [`TimedOut`](ErrorKind::TimedOut) where the deadline came first.
    pub error: Error,
}

impl fmt::Debug for MissingShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.error)
    }
}

/// A statement on its way: who asks, for what.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) operation: &'static str,
    pub(super) sql: &'a str,
    pub(super) params: &'a [Param<'a>],
    /// One for each shard, for those who read what they have written.
    pub(super) sessions: Option<&'a [Session]>,
}

impl ShardedDatabase {
    /// As [`query_all`](ShardedDatabase::query_all), but answers with what there is: a shard that fails, or has not answered
    /// within `limit`, is listed and left out.
    ///
    /// Counts and sums are then those of the other shards, and LIMIT takes from their rows.
    ///
    /// # Errors
    ///
    /// As [`query_all`](ShardedDatabase::query_all) for a statement that is refused; the first shard's error when none
    /// answered.
    ///
    /// # Cancel safety
    ///
    /// As a read: it has no effect when it is dropped. Statements that are still running at the deadline are stopped where the
    /// engine can do that.
    pub async fn query_all_within(
        &self,
        limit: Duration,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Partial> {
        let ask = Ask { operation: "query_all_within", sql, params, sessions: None };
        let compiled = self.inner.router.everywhere(sql);
        let program = self.readable(ask, &compiled)?;
        let target = self.counted(self.inner.router.target(program, params, ask.operation))?;
        if target != Target::Every {
            let rows = timeout(limit, self.by_key(ask)).await;
            let rows = rows.unwrap_or_else(|_| Err(late(ask.operation, limit)))?;
            return Ok(Partial { rows, missing: Vec::new() });
        }
        let deadline = Instant::now() + limit;
        let shards: Vec<u32> = (0..self.inner.router.count()).collect();
        let window =
            self.counted(Window::of(&program.merge, params, &self.context(ask, &shards)))?;
        self.inner.meters.routed(RouteKind::Every, 1);
        let text = program.merge.sql.as_deref().unwrap_or(sql);
        let (mut present, mut rows, mut missing);
        let mut turn = 0;
        loop {
            (present, rows, missing) = (Vec::new(), Vec::new(), Vec::new());
            let mut stamps = Vec::new();
            let each = shards.iter().map(|shard| async {
                let answer = async {
                    let stamps = self.entered(&[*shard], turn).await?;
                    let rows = self.on(ask, *shard, program.access, text, params).await?;
                    Ok((stamps, rows))
                };
                match timeout_at(deadline, answer).await {
                    Ok(answer) => answer,
                    Err(_) => Err(late(ask.operation, limit)),
                }
            });
            for (shard, answer) in shards.iter().zip(join_all(each).await) {
                match answer {
                    Ok((stamp, answer)) => {
                        present.push(*shard);
                        stamps.extend(stamp);
                        rows.push(answer);
                    }
                    Err(error) => {
                        let name = self.inner.router.name(*shard).to_owned();
                        missing.push(MissingShard { name, error });
                    }
                }
            }
            match timeout_at(deadline, self.all_held(&present, &stamps)).await {
                Ok(held) => match held? {
                    true => break,
                    false => turn += 1,
                },
                Err(_) => return Err(late(ask.operation, limit)),
            }
        }
        if rows.is_empty() && !missing.is_empty() {
            return Err(missing.swap_remove(0).error);
        }
        let merged = merged(&self.context(ask, &present), &program.merge, window, &rows);
        let rows = self.counted(merged)?;
        self.inner.meters.merged(rows.len());
        Ok(Partial { rows, missing })
    }

    /// Runs a statement by its keys.
    pub(super) async fn by_key(&self, ask: Ask<'_>) -> Result<Rows> {
        let Ask { operation, sql, params, .. } = ask;
        let compiled = self.inner.router.compiled(sql);
        let program = self.counted(program(&compiled, operation))?;
        for turn in 0..TURNS {
            match self.counted(self.inner.router.target(program, params, operation))? {
                Target::One(shard) => {
                    live::pause(turn).await;
                    self.inner.meters.routed(RouteKind::Single, 1);
                    if let Some(answer) = self.settled(ask, program, shard, Want::Rows).await? {
                        return Ok(answer.rows());
                    }
                }
                Target::Any | Target::Every => {
                    self.inner.meters.routed(RouteKind::Any, 1);
                    return self.on_any(ask, program).await;
                }
                Target::Several => {
                    if !reads(program.access) {
                        return self.counted(Err(split_write(operation)));
                    }
                    let mut stamps = Vec::new();
                    let (mut cut, mut alone) =
                        self.counted(self.cut(program, params, operation))?;
                    if self.inner.live.is_some() {
                        let shards: Vec<u32> = cut.shards().collect();
                        stamps = self.entered(&shards, turn).await?;
                        // Cut again: what was learned just now may have changed who owns what.
                        (cut, alone) = self.counted(self.cut(program, params, operation))?;
                        if !cut.shards().eq(shards) {
                            continue;
                        }
                    }
                    let parts = cut.parts(alone, params);
                    if let Some(rows) = self.gather(ask, program, parts, &stamps).await? {
                        return Ok(rows);
                    }
                }
            }
        }
        Err(live::restless(operation))
    }

    /// Runs a read on all shards, unless fewer are enough.
    pub(super) async fn everywhere(&self, ask: Ask<'_>) -> Result<Rows> {
        let compiled = self.inner.router.everywhere(ask.sql);
        let program = self.readable(ask, &compiled)?;
        let target = self.inner.router.target(program, ask.params, ask.operation);
        if self.counted(target)? != Target::Every {
            return self.by_key(ask).await;
        }
        let shards: Vec<u32> = (0..self.inner.router.count()).collect();
        for turn in 0..TURNS {
            let stamps = self.entered(&shards, turn).await?;
            let parts = shards.iter().map(|shard| (*shard, ask.params.to_vec()));
            if let Some(rows) = self.gather(ask, program, parts.collect(), &stamps).await? {
                return Ok(rows);
            }
        }
        Err(live::restless(ask.operation))
    }

    pub(super) fn readable<'c>(
        &self,
        ask: Ask<'_>,
        compiled: &'c super::route::Compiled,
    ) -> Result<&'c Program> {
        let program = self.counted(program(compiled, ask.operation))?;
        if !reads(program.access) {
            let message = "the statement writes; use on_all, or execute with a key";
            return self.counted(Err(Error::new(ErrorKind::Refused, ask.operation, message)));
        }
        Ok(program)
    }

    /// Asks each shard its part, all at the same time, and fails with the first that fails. `None`: buckets have moved
    /// meanwhile, and the answers may not be one.
    async fn gather(
        &self,
        ask: Ask<'_>,
        program: &Program,
        parts: Vec<(u32, Vec<Param<'_>>)>,
        stamps: &[Stamp],
    ) -> Result<Option<Rows>> {
        let merge: &Merge = &program.merge;
        let shards: Vec<u32> = parts.iter().map(|(shard, _)| *shard).collect();
        let context = self.context(ask, &shards);
        let window = self.counted(Window::of(merge, ask.params, &context))?;
        self.inner.meters.routed(kind(program), 1);
        let text = merge.sql.as_deref().unwrap_or(ask.sql);
        let answers =
            parts.iter().map(|(shard, params)| self.on(ask, *shard, program.access, text, params));
        let answers = try_join_all(answers).await?;
        if !self.all_held(&shards, stamps).await? {
            return Ok(None);
        }
        let rows = self.counted(merged(&context, merge, window, &answers))?;
        self.inner.meters.merged(rows.len());
        Ok(Some(rows))
    }

    /// Before several shards are asked, for the `turn`th time.
    pub(super) async fn entered(&self, shards: &[u32], turn: u32) -> Result<Vec<Stamp>> {
        let Some(live) = &self.inner.live else { return Ok(Vec::new()) };
        if turn > 0 {
            // Between two groups of buckets there is time for a read, if it does not always begin at the wrong moment.
            tokio::time::sleep(Duration::from_millis(u64::from(turn.min(20)))).await;
        }
        live.enter_all(&self.inner.shards, shards).await
    }

    /// Asks the shards whose word does not hold any more. One that does not answer stays as it was.
    pub(super) async fn refreshed(&self) {
        if let Some(live) = &self.inner.live {
            live.refresh(&self.inner.shards).await;
        }
    }

    /// What has come and gone on each shard, as far as is known.
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        let live = self.inner.live.as_ref();
        let stamps = live.map(|live| (0..self.inner.router.count()).map(|at| live.stamp(at)));
        stamps.into_iter().flatten().collect()
    }

    /// After all have answered: whether nothing has moved meanwhile.
    pub(super) async fn all_held(&self, shards: &[u32], stamps: &[Stamp]) -> Result<bool> {
        match &self.inner.live {
            Some(live) => live.held_all(&self.inner.shards, shards, stamps).await,
            None => Ok(true),
        }
    }

    pub(super) fn context<'a>(&'a self, ask: Ask<'_>, shards: &'a [u32]) -> Context<'a> {
        Context {
            operation: ask.operation,
            engine: self.inner.router.engine(),
            catalogue: &self.inner.catalogue,
            shards,
            most: self.inner.router.schema().merge_rows(),
        }
    }

    pub(super) async fn on(
        &self,
        ask: Ask<'_>,
        shard: u32,
        access: Access,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows> {
        let session = ask.sessions.and_then(|sessions| sessions.get(shard as usize));
        let floor = self.inner.live.as_ref().and_then(|live| live.floor(shard));
        if let (Some(session), Some(floor)) = (session, &floor) {
            session.join(floor);
        }
        let shard = self.at(shard);
        match (session, reads(access)) {
            (None, true) if floor.is_some() => {
                let floor = floor.unwrap_or_else(|| shard.database.session());
                shard.run("query", floor.read().query(sql, params)).await
            }
            (None, true) => shard.run("query", shard.database.read().query(sql, params)).await,
            (None, false) => shard.run("query", shard.database.write().query(sql, params)).await,
            (Some(session), true) => shard.run("query", session.read().query(sql, params)).await,
            (Some(session), false) => shard.run("query", session.write().query(sql, params)).await,
        }
    }

    /// Any shard answers the same; one that cannot be reached hands on to the next.
    async fn on_any(&self, ask: Ask<'_>, program: &Program) -> Result<Rows> {
        let reads = reads(program.access);
        if !reads && !program.names_keys() {
            self.inner.meters.refused();
            return Err(reference_write(ask.operation));
        }
        let (count, turn) =
            (self.inner.router.count(), self.inner.turn.fetch_add(1, Ordering::Relaxed));
        let mut answer = self.on(ask, turn % count, program.access, ask.sql, ask.params).await;
        for further in 1..count {
            match &answer {
                Err(error) if reads && error.kind() == ErrorKind::Unavailable => {
                    let shard = turn.wrapping_add(further) % count;
                    answer = self.on(ask, shard, program.access, ask.sql, ask.params).await;
                }
                _ => break,
            }
        }
        answer
    }
}

/// How a statement that several shards answer is routed.
fn kind(program: &Program) -> RouteKind {
    match program.split {
        Split::Everywhere => RouteKind::Every,
        _ => RouteKind::Split,
    }
}

fn late(operation: &'static str, limit: Duration) -> Error {
    Error::new(ErrorKind::TimedOut, operation, format!("no answer within {limit:?}"))
}
