//! Many rows at once: each shard gets its own, in one transaction.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::database::{ShardedDatabase, summed};
use super::live::{TURNS, gone, is_gone, pause, restless};
use super::router::{RouteKind, program};
use crate::{Param, Result, Transaction};

impl ShardedDatabase {
    /// Runs a statement once for each row of parameters. Each row goes to the shard of its key; the rows of one shard are
    /// one transaction and keep their order; the shards work at the same time.
    ///
    /// Rows are held in memory until they are sent: give some thousands at a time.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::ErrorKind::Refused) when a row cannot be routed: nothing has been sent then. When a shard fails, the
    /// error names it; the other shards have applied their rows. Make the statement idempotent to send all again.
    pub async fn execute_many<'p, R>(&self, sql: &str, rows: R) -> Result<u64>
    where
        R: IntoIterator<Item: AsRef<[Param<'p>]> + Send + Sync>,
    {
        const OPERATION: &str = "execute_many";
        let mut groups = self.grouped(sql, rows)?;
        let mut ended: Vec<(u32, Result<u64>)> = Vec::new();
        for turn in 0..TURNS {
            pause(turn).await;
            let work = groups.iter().map(|(shard, rows)| {
                self.inner.meters.routed(RouteKind::Single, rows.len() as u64);
                self.one_shard(sql, *shard, rows)
            });
            let results = join_all(work).await;
            let mut again = Vec::new();
            for ((shard, rows), result) in groups.into_iter().zip(results) {
                match result {
                    // Nothing of it was applied there: its rows go where their buckets are now.
                    Err(error) if is_gone(&error) => again.extend(rows),
                    result => ended.push((shard, result)),
                }
            }
            if again.is_empty() {
                let names = ended.into_iter();
                let named = names.map(|(shard, result)| (self.inner.router.name(shard), result));
                return summed(OPERATION, named);
            }
            groups = self.grouped(sql, again)?;
        }
        let rest = groups.into_iter().map(|(shard, _)| (shard, Err(restless(OPERATION))));
        let named = ended.into_iter().chain(rest);
        summed(OPERATION, named.map(|(shard, result)| (self.inner.router.name(shard), result)))
    }

    /// One shard's rows; fails with what [`is_gone`] tells when some of their buckets are elsewhere.
    async fn one_shard<'p, T>(&self, sql: &str, at: u32, rows: &[T]) -> Result<u64>
    where
        T: AsRef<[Param<'p>]> + Send + Sync,
    {
        const OPERATION: &str = "execute_many";
        let shard = self.at(at);
        let all = || rows.iter().map(AsRef::as_ref);
        let Some(live) = &self.inner.live else {
            return shard.run(OPERATION, shard.database.write().execute_many(sql, all())).await;
        };
        let before = live.enter(shard, at).await?;
        let compiled = self.inner.router.compiled(sql);
        let program = program(&compiled, OPERATION)?;
        let mut touched = BTreeSet::new();
        for row in all() {
            // What was learned just now may have changed who owns what.
            if self.inner.write_shard(OPERATION, program, row)? != at {
                return Err(gone(OPERATION));
            }
            self.inner.router.touched(program, row, &mut touched);
        }
        let touched = &touched;
        let work = async |transaction: &mut Transaction<'_>| {
            live.hold(transaction, at, touched).await?;
            let affected = transaction.execute_many(sql, all()).await?;
            live.before_commit(transaction, at, before, Some(touched)).await?;
            Ok(affected)
        };
        let result = shard.run(OPERATION, shard.database.transaction(work)).await;
        if result.as_ref().is_err_and(is_gone) {
            live.ask(shard, at).await?;
        }
        result
    }

    fn grouped<'p, R>(&self, sql: &str, rows: R) -> Result<Vec<(u32, Vec<R::Item>)>>
    where
        R: IntoIterator<Item: AsRef<[Param<'p>]>>,
    {
        const OPERATION: &str = "execute_many";
        let compiled = self.inner.router.compiled(sql);
        let program = self.counted(program(&compiled, OPERATION))?;
        let mut groups: Vec<(u32, Vec<R::Item>)> = Vec::new();
        for row in rows {
            let shard = self.counted(self.inner.write_shard(OPERATION, program, row.as_ref()))?;
            match groups.iter_mut().find(|(owner, _)| *owner == shard) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((shard, vec![row])),
            }
        }
        Ok(groups)
    }
}
