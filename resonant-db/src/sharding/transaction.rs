//! A transaction that cannot leave its shard.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;

use super::builder::reads;
use super::database::Inner;
use super::live::{Stamp, gone};
use super::route::{Program, Target};
use super::router::program;
use crate::{Error, ErrorKind, Param, Result, Rows, Transaction};

/// An open transaction on one shard; see [`ShardedDatabase::transaction`](super::ShardedDatabase::transaction).
pub struct ShardTransaction<'t, 'c> {
    pub(super) transaction: &'t mut Transaction<'c>,
    pub(super) inner: &'t Inner,
    pub(super) shard: u32,
    /// What had come and gone when it began.
    pub(super) stamp: Option<Stamp>,
    /// The buckets of its statements so far.
    pub(super) touched: BTreeSet<u32>,
}

impl ShardTransaction<'_, '_> {
    /// Runs a statement and answers its rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the statement is not proven to stay on the shard; nothing has been sent then, and the
    /// transaction goes on. Else as [`Transaction::query`].
    pub async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
        let leaving = self.guard("query", sql, params).await?;
        let rows = self.transaction.query(sql, params).await?;
        self.confirm("query", leaving, sql, params).await?;
        Ok(rows)
    }

    /// As [`query`](ShardTransaction::query), each row as a value of yours.
    ///
    /// # Errors
    ///
    /// As [`query`](ShardTransaction::query); [`ErrorKind::Decode`] when a row does not fit.
    pub async fn query_as<T: DeserializeOwned>(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        self.query(sql, params).await?.decode()
    }

    /// Runs a statement and answers how many rows it inserted, updated or deleted.
    ///
    /// # Errors
    ///
    /// As [`query`](ShardTransaction::query).
    pub async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let leaving = self.guard("execute", sql, params).await?;
        let affected = self.transaction.execute(sql, params).await?;
        self.confirm("execute", leaving, sql, params).await?;
        Ok(affected)
    }

    /// What a statement has found must not mislead whoever decides by it: its buckets were there when it ran. `leaving`: they
    /// were about to go when it was sent.
    async fn confirm(
        &mut self,
        operation: &'static str,
        leaving: bool,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<()> {
        let (Some(live), Some(stamp)) = (&self.inner.live, self.stamp) else { return Ok(()) };
        // In this order: what is read second may only be newer.
        let holds = live.holds(self.shard);
        let compiled = self.inner.router.compiled(sql);
        let program = program(&compiled, operation)?;
        let leaving = leaving || self.is_leaving(program, params);
        if !holds || leaving || live.has_departed(self.shard, stamp) {
            live.before_commit(self.transaction, self.shard, stamp, Some(&self.touched)).await?;
        }
        Ok(())
    }

    fn is_leaving(&self, program: &Program, params: &[Param<'_>]) -> bool {
        let live = self.inner.live.as_ref();
        live.is_some_and(|live| live.is_switching(self.shard))
            && self.inner.router.touches_leaving(program, params)
    }

    /// Refuses what belongs elsewhere. Answers whether its buckets are about to go.
    async fn guard(
        &mut self,
        operation: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<bool> {
        let router = &self.inner.router;
        let compiled = router.compiled(sql);
        let program = program(&compiled, operation)?;
        // In this order: what has ceased to leave is seen to be elsewhere.
        let leaving = self.is_leaving(program, params);
        let refused = match router.target(program, params, operation)? {
            Target::One(shard) if shard == self.shard => {
                let Some(live) = &self.inner.live else { return Ok(false) };
                let mut touched = BTreeSet::new();
                router.touched(program, params, &mut touched);
                if !reads(program.access) {
                    live.hold(self.transaction, shard, &touched).await?;
                }
                self.touched.append(&mut touched);
                return Ok(leaving);
            }
            Target::Any if reads(program.access) || program.names_keys() => {
                return Ok(false);
            }
            Target::One(shard) => format!("the statement belongs to {}", router.name(shard)),
            _ => "the statement belongs to no single shard".to_owned(),
        };
        // It may have been there when this began: then all of it is run again where it is now.
        if let (Some(live), Some(stamp)) = (&self.inner.live, self.stamp) {
            if live.has_departed(self.shard, stamp) {
                return Err(gone(operation));
            }
            // Where it has gone may be known a moment earlier than that it has.
            if live.is_switching(self.shard) {
                live.before_commit(self.transaction, self.shard, stamp, None).await?;
            }
        }
        self.inner.meters.refused();
        let message = format!(
            "{refused}, the transaction is on {}; use one for each shard",
            router.name(self.shard)
        );
        Err(Error::new(ErrorKind::Refused, operation, message))
    }
}

impl fmt::Debug for ShardTransaction<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTransaction")
            .field("shard", &self.inner.router.name(self.shard))
            .finish_non_exhaustive()
    }
}
