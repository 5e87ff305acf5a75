//! [`ShardedDatabase`]: one handle over all shards.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::future::join_all;
use resonant_common::join::Finding;
use serde::de::DeserializeOwned;

use super::builder::ShardedDatabaseBuilder;
use super::catalogue::Catalogue;
use super::config::ShardedConfig;
use super::function::{BucketMap, Bucketed};
use super::gather::Ask;
use super::live::{self, Live, TURNS};
use super::meters::Meters;
use super::route::{Cut, Program, Split, Target};
use super::router::{RouteExplanation, RouteKind, ShardRouter, program, several};
use super::shard::Shard;
use super::single::Want;
use super::transaction::ShardTransaction;
use crate::{Database, Error, ErrorKind, Param, Result, Row, Rows, Session, ToParam, Transaction};

/// Several databases that hold the rows of one, each row on the shard of its key.
///
/// A statement is proven to touch only the shards it is sent to, or it is [refused](ErrorKind::Refused) with the reason and
/// a rewrite. Reads go to a shard's replicas, writes to its primary. Clones are cheap and share everything.
///
/// # A dead shard
///
/// It stops neither the start nor the other shards. After five failures in a row, each of them
/// [`Unavailable`](ErrorKind::Unavailable) or [`TimedOut`](ErrorKind::TimedOut), its statements are refused at once as
/// `Unavailable`, with its last error as the source and [`retry_after`](Error::retry_after) saying for how long: one second
/// at first, up to thirty. Then one statement is let through to try it; [`ping`](ShardedDatabase::ping) may try at any time.
///
/// # What stays with each shard
///
/// Unique constraints without the key, sequences, defaults, triggers and foreign keys see the rows of their own shard only.
/// The key column has to be NOT NULL.
///
/// # Cancel safety
///
/// As of [`Database`]: any future may be dropped; of a dropped write it is unknown whether it took effect on its shard.
#[derive(Clone)]
pub struct ShardedDatabase {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) router: ShardRouter,
    pub(super) shards: Vec<Shard>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) meters: Meters,
    /// Whose turn it is among shards that would all answer the same.
    pub(super) turn: AtomicU32,
    /// What the shards say of their buckets, where they are asked.
    pub(super) live: Option<Live>,
    pub(super) buckets: Option<Arc<Bucketed>>,
    #[cfg(feature = "postgres")]
    pub(super) origin: Origin,
}

/// What moving buckets needs to know of the settings.
#[cfg(feature = "postgres")]
pub(super) struct Origin {
    /// Of the primaries.
    pub(super) urls: Vec<String>,
    /// Buckets with keys that are pinned to a shard.
    pub(super) pinned: Vec<u32>,
}

impl ShardedDatabase {
    /// A builder without shards.
    pub fn builder() -> ShardedDatabaseBuilder {
        ShardedDatabaseBuilder::default()
    }

    /// A builder that starts from settings.
    pub fn from_config(config: ShardedConfig) -> ShardedDatabaseBuilder {
        ShardedDatabaseBuilder::from_config(config)
    }

    /// The name of the shard a key belongs to.
    ///
    /// # Errors
    ///
    /// As [`ShardRouter::shard_for`].
    pub fn shard_for(&self, key: impl ToParam) -> Result<&str> {
        self.inner.router.shard_for(key)
    }

    /// The database of a shard, for what is meant for that shard alone. Nothing checks what is sent there.
    pub fn shard(&self, name: &str) -> Option<&Database> {
        self.inner.shards.iter().find(|shard| shard.name == name).map(|shard| &shard.database)
    }

    /// All shards, in the order of declaration.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = (&str, &Database)> {
        self.inner.shards.iter().map(|shard| (shard.name.as_str(), &shard.database))
    }

    /// The router, which explains and checks statements without running them.
    pub fn router(&self) -> &ShardRouter {
        &self.inner.router
    }

    /// Where a statement goes with these parameters, and why.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when it would be refused.
    pub fn explain_route(&self, sql: &str, params: &[Param<'_>]) -> Result<RouteExplanation> {
        self.inner.router.explain_route(sql, params)
    }

    /// Where a statement that [`query_all`](ShardedDatabase::query_all) sends goes, and how the answers are made one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when it would be refused.
    pub fn explain_route_all(&self, sql: &str, params: &[Param<'_>]) -> Result<RouteExplanation> {
        self.inner.router.explain_route_all(sql, params)
    }

    /// Runs a statement on the shard of its key and answers its rows. A read whose keys live on several shards is sent to
    /// each of them, and their answers are made one as [`query_all`](ShardedDatabase::query_all) says.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] with the reason and a rewrite; else as [`Read::query`](crate::Read::query).
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        self.by_key(Ask { operation: "query", sql, params, sessions: None }).await
    }

    /// As [`query`](ShardedDatabase::query), each row as a value of yours.
    ///
    /// # Errors
    ///
    /// As [`query`](ShardedDatabase::query); [`ErrorKind::Decode`] when a row does not fit.
    pub async fn query_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        self.query(sql, params).await?.decode()
    }

    /// The only row as a value of yours.
    ///
    /// # Errors
    ///
    /// As [`query_as`](ShardedDatabase::query_as); `NotFound` when there is no row, `Rejected` when there are several.
    pub async fn query_one_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<T> {
        let rows = self.query(sql, params).await?;
        only("query_one_as", &rows)?.map_or_else(
            || {
                Err(Error::new(
                    ErrorKind::NotFound,
                    "query_one_as",
                    "one row was asked for and there is none",
                ))
            },
            |row| row.decode(),
        )
    }

    /// The only row as a value of yours, if there is one.
    ///
    /// # Errors
    ///
    /// As [`query_as`](ShardedDatabase::query_as); `Rejected` when there are several rows.
    pub async fn query_opt_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Option<T>> {
        let rows = self.query(sql, params).await?;
        only("query_opt_as", &rows)?.map(|row| row.decode()).transpose()
    }

    /// Runs a statement on the shard of its key and answers how many rows it inserted, updated or deleted.
    ///
    /// A write whose keys live on several shards is refused, because it could not be atomic: send one for each key, or
    /// rows by [`execute_many`](ShardedDatabase::execute_many).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] with the reason and a rewrite; else as [`Write::execute`](crate::Write::execute).
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        self.written(Ask { operation: "execute", sql, params, sessions: None }).await
    }

    /// Runs a write on the shard of its key.
    pub(super) async fn written(&self, ask: Ask<'_>) -> Result<u64> {
        let Ask { operation, sql, params, .. } = ask;
        let compiled = self.inner.router.compiled(sql);
        let program = self.counted(program(&compiled, operation))?;
        for turn in 0..TURNS {
            live::pause(turn).await;
            let shard = self.counted(self.inner.write_shard(operation, program, params))?;
            self.inner.meters.routed(RouteKind::Single, 1);
            // Where its keys turn out to be none it is not bound to a shard.
            if self.inner.live.is_none() || !program.names_keys() || self.is_anywhere(ask, program)
            {
                let shard_of = self.at(shard);
                let session = ask.sessions.and_then(|sessions| sessions.get(shard as usize));
                let write = session.map_or_else(|| shard_of.database.write(), Session::write);
                return shard_of.run(operation, write.execute(sql, params)).await;
            }
            if let Some(answer) = self.settled(ask, program, shard, Want::Count).await? {
                return Ok(answer.count());
            }
        }
        Err(live::restless(operation))
    }

    /// Whether any shard will do, as far as the parameters tell.
    fn is_anywhere(&self, ask: Ask<'_>, program: &Program) -> bool {
        let target = self.inner.router.target(program, ask.params, ask.operation);
        matches!(target, Ok(Target::Any))
    }

    /// The owners of the buckets as all shards say now, for [`BucketMap::plan`]; `None` without the two bucketed functions.
    /// Without a [`live_map`](ShardedDatabaseBuilder::live_map) it is the map that was given.
    ///
    /// # Errors
    ///
    /// As [`query`](ShardedDatabase::query) when a shard does not answer.
    pub async fn bucket_map(&self) -> Result<Option<BucketMap>> {
        let Some(buckets) = &self.inner.buckets else { return Ok(None) };
        if let Some(live) = &self.inner.live {
            for asked in live.ask_all(&self.inner.shards).await {
                asked?;
            }
        }
        Ok(Some(buckets.map().snapshot()))
    }

    /// Runs something on every shard at once: a schema, a migration. What it does is not looked at.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] while buckets are moved, where there is a [`live_map`](ShardedDatabaseBuilder::live_map): nothing was changed.
    /// Names the shards that failed, with the first one's error as its source; the others have applied it.
    pub async fn on_all(&self, sql: &str) -> Result<()> {
        self.at_rest("on_all").await?;
        let each = self.inner.shards.iter().map(|shard| {
            let work = shard.database.write().batch(sql);
            shard.change("on_all", work)
        });
        let results = join_all(each).await.into_iter().map(|result| result.map(|()| 0));
        let names = self.inner.shards.iter().map(|shard| shard.name.as_str());
        summed("on_all", names.zip(results)).map(drop)
    }

    /// Fails while buckets move: what is done to every shard would miss rows that are on their way, or change tables under
    /// them. A shard that does not answer says nothing.
    pub(super) async fn at_rest(&self, operation: &'static str) -> Result<()> {
        let Some(live) = &self.inner.live else { return Ok(()) };
        live.ask_all(&self.inner.shards).await;
        let moving = (0_u32..).zip(&self.inner.shards).find(|(at, _)| live.is_moving(*at));
        let Some((_, shard)) = moving else { return Ok(()) };
        let message = format!(
            "buckets are being moved from or to {}; nothing was changed: wait for the end, or roll the move back",
            shard.name
        );
        Err(Error::new(ErrorKind::Conflict, operation, message))
    }

    /// Runs `work` in a transaction on the shard of `key`. Statements for another shard are refused before they are sent.
    /// Run again on a conflict, as [`Database::transaction`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] for a key without a shard or a statement of another shard; else as
    /// [`Database::transaction`].
    pub async fn transaction<T, F>(&self, key: impl ToParam, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut ShardTransaction<'_, '_>) -> Result<T> + Clone,
    {
        self.enclose(key.to_param(), None, work).await
    }

    /// A transaction on the shard of a key, perhaps of a session for each shard.
    pub(super) async fn enclose<T, F>(
        &self,
        key: Param<'_>,
        sessions: Option<&[Session]>,
        work: F,
    ) -> Result<T>
    where
        F: AsyncFnOnce(&mut ShardTransaction<'_, '_>) -> Result<T> + Clone,
    {
        const OPERATION: &str = "transaction";
        let inner = &*self.inner;
        for turn in 0..TURNS {
            live::pause(turn).await;
            let shard = inner.router.place(OPERATION, key)?;
            let here = self.at(shard);
            let stamp = match &inner.live {
                Some(live) => Some((live, live.enter(here, shard).await?)),
                None => None,
            };
            if inner.router.place(OPERATION, key)? != shard {
                continue;
            }
            let guarded = async |transaction: &mut Transaction<'_>| {
                let stamped = stamp.map(|(_, stamp)| stamp);
                let touched = BTreeSet::new();
                let mut guarded =
                    ShardTransaction { transaction, inner, shard, stamp: stamped, touched };
                let value = (work.clone())(&mut guarded).await?;
                if let Some((live, stamp)) = stamp {
                    let touched = Some(&guarded.touched);
                    live.before_commit(guarded.transaction, shard, stamp, touched).await?;
                }
                Ok(value)
            };
            let session = sessions.and_then(|sessions| sessions.get(shard as usize));
            let result = match session {
                Some(session) => here.run(OPERATION, session.transaction(guarded)).await,
                None => here.run(OPERATION, here.database.transaction(guarded)).await,
            };
            match (result, stamp) {
                (Err(error), Some((live, _))) if live::is_gone(&error) => {
                    live.ask(here, shard).await?;
                }
                (result, _) => return result,
            }
        }
        Err(live::restless(OPERATION))
    }

    /// Asks every shard for a sign of life, at once. The error names the shards that gave none.
    pub fn ping(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let results = join_all(inner.shards.iter().map(Shard::ping)).await;
            let names = inner.shards.iter().map(|shard| shard.name.as_str());
            summed("ping", names.zip(results.into_iter().map(|result| result.map(|()| 0))))
                .map(drop)
        }
    }

    /// What the shards say of their own health, without asking a server: each database's findings, and `db.shard.down`
    /// for a shard that keeps failing and is left alone for a while.
    pub fn findings(&self) -> Vec<Finding> {
        self.inner.shards.iter().flat_map(Shard::findings).collect()
    }

    /// Closes all shards; see [`Database::close`].
    ///
    /// # Errors
    ///
    /// As [`Database::close`], for any of them.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let closed = self.inner.shards.iter().map(|shard| shard.database.close(deadline));
        join_all(closed).await.into_iter().collect()
    }

    /// The shard at an index the router gave, which is below their number.
    pub(super) fn at(&self, shard: u32) -> &Shard {
        &self.inner.shards[shard as usize]
    }

    pub(super) fn counted<T>(&self, routed: Result<T>) -> Result<T> {
        if routed.is_err() {
            self.inner.meters.refused();
        }
        routed
    }

    /// A statement that is cut up by its keys: who owns which, and the parameters that stand in the key list alone.
    pub(super) fn cut<'c, 'a>(
        &self,
        program: &'c Program,
        params: &[Param<'a>],
        operation: &'static str,
    ) -> Result<(Cut<'a>, &'c [usize])> {
        match &program.split {
            Split::Keys { alone } => {
                Ok((self.inner.router.cut(program, params, operation)?, alone))
            }
            Split::No(reason) => Err(several(reason).error(operation)),
            _ => Err(several("it is no list of keys").error(operation)),
        }
    }
}

impl Inner {
    /// The one shard a write goes to.
    pub(super) fn write_shard(
        &self,
        operation: &'static str,
        program: &Program,
        params: &[Param<'_>],
    ) -> Result<u32> {
        match self.router.target(program, params, operation)? {
            Target::One(shard) => Ok(shard),
            Target::Any if program.names_keys() => Ok(0),
            Target::Any | Target::Every => Err(reference_write(operation)),
            Target::Several => Err(match &program.split {
                Split::No(reason) => several(reason).error(operation),
                _ => split_write(operation),
            }),
        }
    }
}

/// The only row, if there is one.
pub(super) fn only(operation: &'static str, rows: &Rows) -> Result<Option<Row>> {
    match rows.len() {
        0 | 1 => Ok(rows.first()),
        count => {
            let message = format!("one row was asked for and there are {count}; add a condition");
            Err(Error::new(ErrorKind::Rejected, operation, message))
        }
    }
}

/// The sum of what shards answered, or an error that names those that failed.
pub(super) fn summed<'n>(
    operation: &'static str,
    results: impl IntoIterator<Item = (&'n str, Result<u64>)>,
) -> Result<u64> {
    let (mut sum, mut failed, mut first) = (0, Vec::new(), None::<Error>);
    for (name, result) in results {
        match result {
            Ok(affected) => sum += affected,
            Err(error) => {
                failed.push(name);
                first.get_or_insert(error);
            }
        }
    }
    let Some(first) = first else { return Ok(sum) };
    let message = format!("failed on {}: {}", failed.join(", "), first.message());
    let unknown = first.may_have_applied();
    let error = Error::new(first.kind(), operation, message).with_source(first);
    Err(if unknown { error.with_may_have_applied() } else { error })
}

pub(super) fn reference_write(operation: &'static str) -> Error {
    let message = "the statement names no key, so every shard would have to run it; use on_all for what all shards share";
    Error::new(ErrorKind::Refused, operation, message)
}

pub(super) fn split_write(operation: &'static str) -> Error {
    let message = "the keys live on several shards and a write to several is not atomic; \
                   send one for each key, or use execute_split where that is good enough";
    Error::new(ErrorKind::Refused, operation, message)
}

impl fmt::Debug for ShardedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardedDatabase").field(&self.inner.router).finish()
    }
}
