//! Many rows at once: each shard gets its own, in one transaction.

use futures::future::join_all;

use super::database::{ShardedDatabase, summed};
use super::router::{RouteKind, program};
use crate::{Param, Result};

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
        let groups = self.grouped(sql, rows)?;
        let names =
            groups.iter().map(|(shard, _)| self.inner.router.name(*shard)).collect::<Vec<_>>();
        let work = groups.iter().map(|(shard, rows)| {
            self.inner.meters.routed(RouteKind::Single, rows.len() as u64);
            let shard = self.at(*shard);
            let rows = rows.iter().map(AsRef::as_ref);
            shard.run("execute_many", shard.database.write().execute_many(sql, rows))
        });
        let results = join_all(work).await;
        summed("execute_many", names.into_iter().zip(results))
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
