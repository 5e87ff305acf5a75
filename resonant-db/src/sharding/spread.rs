//! What goes to several shards, by explicit request.

use futures::future::{join_all, try_join_all};

use super::database::{ShardedDatabase, summed};
use super::merge::merged;
use super::route::{Split, Target};
use super::router::program;
use crate::{Error, ErrorKind, Param, Result, Rows};

impl ShardedDatabase {
    /// Runs a write whose keys may live on several shards: each shard gets its own rows or keys, all at the same time.
    ///
    /// It is atomic on each shard and **not** across them: ask for it where that is good enough, or where the statement can
    /// be sent again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] with the reason and a rewrite, before anything is sent. When a shard fails, the error names it
    /// and the others have applied their part.
    pub async fn execute_split(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        const OPERATION: &str = "execute_split";
        let router = &self.inner.router;
        let compiled = router.compiled(sql);
        let program = self.counted(program(&compiled, OPERATION))?;
        if self.counted(router.target(program, params, OPERATION))? != Target::Several {
            return self.execute(sql, params).await;
        }
        let parts: Vec<(u32, String, Vec<Param<'_>>)> = match &program.split {
            Split::Rows(rows) => self.counted(router.row_parts(rows, sql, params, OPERATION))?,
            _ => {
                let parts = self.counted(self.key_parts(program, params, OPERATION))?;
                parts.into_iter().map(|(shard, params)| (shard, sql.to_owned(), params)).collect()
            }
        };
        self.inner.split.increment(1);
        let work = parts.iter().map(|(shard, sql, params)| {
            let shard = self.at(*shard);
            shard.run(OPERATION, shard.database.write().execute(sql, params))
        });
        let names = parts.iter().map(|(shard, _, _)| router.name(*shard));
        summed(OPERATION, names.zip(join_all(work).await))
    }

    /// Reads every shard and answers all rows, one shard after the other in the order of declaration. An answer of one row
    /// of `count`, `sum`, `min` and `max` is folded into one row.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] for joins that are not on the key, and for what would need merging: ORDER BY, LIMIT, other
    /// aggregates, and GROUP BY, DISTINCT and windows that do not hold the key. Sums of anything but whole numbers and
    /// minima and maxima of anything but numbers are refused once they are seen. Else the first shard's error.
    pub async fn query_all(&self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        const OPERATION: &str = "query_all";
        let program = self.counted(self.inner.router.everywhere(sql, OPERATION))?;
        if !super::builder::reads(program.access) {
            let message = "the statement writes; use on_all, or execute with a key";
            return self.counted(Err(Error::new(ErrorKind::Refused, OPERATION, message)));
        }
        let target = self.counted(self.inner.router.target(&program, params, OPERATION))?;
        if target != Target::Every {
            return self.query(sql, params).await;
        }
        self.inner.split.increment(1);
        let answers = self
            .inner
            .shards
            .iter()
            .map(|shard| shard.run(OPERATION, shard.database.read().query(sql, params)));
        let answers = try_join_all(answers).await?;
        self.counted(merged(OPERATION, program.folds.as_deref(), answers))
    }
}
