//! What goes to several shards, by explicit request.

use std::borrow::Cow;

use futures::future::join_all;

use super::database::{ShardedDatabase, summed};
use super::gather::Ask;
use super::live::{Stamp, is_gone};
use super::route::{Split, Target};
use super::router::{RouteKind, program};
use crate::{Error, ErrorKind, Param, Result, Rows, Transaction};

impl ShardedDatabase {
    /// Runs a write whose keys may live on several shards: each shard gets its own rows or keys, all at the same time.
    ///
    /// It is atomic on each shard and **not** across them: ask for it where that is good enough, or where the statement can
    /// be sent again.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) with the reason and a rewrite, before anything is sent. When a shard fails, the error names it
    /// and the others have applied their part. A part whose buckets move to another shard at this moment fails as
    /// [`Conflict`](ErrorKind::Conflict) and is not applied.
    pub async fn execute_split(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        const OPERATION: &str = "execute_split";
        let router = &self.inner.router;
        let compiled = router.compiled(sql);
        let program = self.counted(program(&compiled, OPERATION))?;
        if self.counted(router.target(program, params, OPERATION))? != Target::Several {
            return self.execute(sql, params).await;
        }
        self.refreshed().await;
        // Before it is cut: what has gone since is told by these.
        let stamps = self.stamps();
        let cut;
        let parts: Vec<(u32, Cow<'_, str>, Vec<Param<'_>>)> = match &program.split {
            Split::Rows(rows) => {
                let parts = self.counted(router.row_parts(rows, sql, params, OPERATION))?;
                parts.into_iter().map(|(shard, sql, params)| (shard, sql.into(), params)).collect()
            }
            _ => {
                let found = self.counted(self.cut(program, params, OPERATION))?;
                cut = found.0;
                let parts = cut.parts(found.1, params);
                parts.into_iter().map(|(shard, params)| (shard, sql.into(), params)).collect()
            }
        };
        self.inner.meters.routed(RouteKind::Split, 1);
        let work = parts.iter().map(|(shard, sql, params)| {
            let stamp = stamps.get(*shard as usize).copied();
            self.part(*shard, sql, params, stamp)
        });
        let names = parts.iter().map(|(shard, _, _)| router.name(*shard));
        summed(OPERATION, names.zip(join_all(work).await))
    }

    /// One shard's part of a write.
    async fn part(
        &self,
        at: u32,
        sql: &str,
        params: &[Param<'_>],
        stamp: Option<Stamp>,
    ) -> Result<u64> {
        const OPERATION: &str = "execute_split";
        let shard = self.at(at);
        let (Some(live), Some(stamp)) = (&self.inner.live, stamp) else {
            return shard.run(OPERATION, shard.database.write().execute(sql, params)).await;
        };
        let work = async |transaction: &mut Transaction<'_>| {
            let affected = transaction.execute(sql, params).await?;
            live.before_commit(transaction, at, stamp, None).await?;
            Ok(affected)
        };
        let result = shard.run(OPERATION, shard.database.transaction(work)).await;
        match result {
            Err(error) if is_gone(&error) => {
                live.ask(shard, at).await?;
                let message =
                    "buckets of its part moved to another shard: nothing of it was applied there";
                Err(Error::new(ErrorKind::Conflict, OPERATION, message).with_source(error))
            }
            result => result,
        }
    }

    /// Reads every shard, all at the same time, and makes their answers one.
    ///
    /// - Without ORDER BY the rows follow one another, shard by shard in the order of declaration.
    /// - ORDER BY holds over all shards, by numbers, dates, timestamps, UUIDs, bytes, and by text whose collation is known to
    ///   order by bytes: `COLLATE "C"` in the statement or, on PostgreSQL, in the catalogue. With it LIMIT and OFFSET cut the
    ///   whole, and no shard sends more rows than could be needed.
    /// - `count`, `sum`, `avg`, `min` and `max` are exact, also in groups that reach over shards: sums and averages of whole
    ///   and decimal numbers. DISTINCT holds over all shards.
    ///
    /// # Errors
    ///
    /// [`Refused`](ErrorKind::Refused) for joins that are not on the key, and for what cannot be made one from parts: other aggregates,
    /// HAVING over groups without the key, windows that are not partitioned by the key, LIMIT without ORDER BY, sums of binary
    /// fractions, text whose order or equality is unknown, and more rows than
    /// [`merge_rows`](super::ShardedDatabaseBuilder::merge_rows). Else the first shard's error.
    pub async fn query_all(&self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        self.everywhere(Ask { operation: "query_all", sql, params, sessions: None }).await
    }
}
