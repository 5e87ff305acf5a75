//! A statement of one shard: sent there, and believed if its buckets were there when it ran.

use std::collections::BTreeSet;

use super::builder::reads;
use super::database::ShardedDatabase;
use super::gather::Ask;
use super::live::{Live, Stamp, is_gone};
use super::route::{Program, Target};
use crate::{Error, ErrorKind, Result, Rows, Transaction};

/// What is asked of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Rows,
    Count,
}

/// What it answered.
pub(super) enum Answer {
    Rows(Rows),
    Count(u64),
}

impl Answer {
    pub(super) fn rows(self) -> Rows {
        match self {
            Answer::Rows(rows) => rows,
            Answer::Count(_) => crate::backend::RowsBuilder::new(Vec::new()).finish(),
        }
    }

    /// Whether a write has changed anything, where that can be told: one that answers no columns was asked for rows and has none
    /// to give.
    fn wrote(&self) -> Option<bool> {
        match self {
            Answer::Rows(rows) if rows.columns().is_empty() => None,
            _ => Some(self.count() > 0),
        }
    }

    /// How many rows there were.
    pub(super) fn count(&self) -> u64 {
        match self {
            Answer::Rows(rows) => rows.len() as u64,
            Answer::Count(count) => *count,
        }
    }
}

impl ShardedDatabase {
    /// Runs a statement on the shard it belongs to. `None`: its buckets have gone from there and it did nothing, or only read;
    /// it is to be routed again.
    pub(super) async fn settled(
        &self,
        ask: Ask<'_>,
        program: &Program,
        at: u32,
        want: Want,
    ) -> Result<Option<Answer>> {
        let Some(live) = &self.inner.live else {
            return self.send(ask, program, at, want).await.map(Some);
        };
        let shard = self.at(at);
        let stamp = live.enter(shard, at).await?;
        let (is_here, leaving) = self.standing(live, ask, program, at)?;
        if !is_here {
            return Ok(None);
        }
        let reads = reads(program.access);
        let answer = match leaving && !reads {
            true => self.enclosed(live, ask, program, at, want, stamp).await,
            false => self.send(ask, program, at, want).await,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_gone(&error) => {
                live.ask(shard, at).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // What was enclosed has seen to that itself.
        if (leaving && !reads) || self.was_here(live, ask, program, at, stamp).await? {
            return Ok(Some(answer));
        }
        // The shard refuses to write rows of buckets that have gone. So what has written them did so before, and what found
        // none may have come too late.
        match (reads, program.names_one(), answer.wrote()) {
            (true, ..) | (false, true, Some(false)) => Ok(None),
            (false, true, Some(true)) => Ok(Some(answer)),
            _ => {
                let message =
                    "buckets it touches moved while it ran: it may have missed the rows of some";
                let error = Error::new(ErrorKind::Conflict, ask.operation, message);
                Err(error.with_may_have_applied())
            }
        }
    }

    /// Whether a statement belongs to a shard, as far as is known, and whether its buckets are about to go from there.
    fn standing(
        &self,
        live: &Live,
        ask: Ask<'_>,
        program: &Program,
        at: u32,
    ) -> Result<(bool, bool)> {
        let router = &self.inner.router;
        let leaving = live.is_switching(at) && router.touches_leaving(program, ask.params);
        let target = router.target(program, ask.params, ask.operation)?;
        Ok((target == Target::One(at), leaving))
    }

    /// After the answer: whether its buckets were there when it ran.
    pub(super) async fn was_here(
        &self,
        live: &Live,
        ask: Ask<'_>,
        program: &Program,
        at: u32,
        stamp: Stamp,
    ) -> Result<bool> {
        // In this order: what is read second may only be newer.
        let holds = live.holds(at);
        let (mut is_here, leaving) = self.standing(live, ask, program, at)?;
        if !holds || leaving {
            live.ask(self.at(at), at).await?;
            is_here = self.standing(live, ask, program, at)?.0;
        }
        Ok(is_here && live.is_unbroken(at, stamp))
    }

    async fn send(&self, ask: Ask<'_>, program: &Program, at: u32, want: Want) -> Result<Answer> {
        if want == Want::Rows {
            let rows = self.on(ask, at, program.access, ask.sql, ask.params).await?;
            return Ok(Answer::Rows(rows));
        }
        let session = ask.sessions.and_then(|sessions| sessions.get(at as usize));
        let shard = self.at(at);
        let write = session.map_or_else(|| shard.database.write(), crate::Session::write);
        shard.run(ask.operation, write.execute(ask.sql, ask.params)).await.map(Answer::Count)
    }

    /// A write to buckets that are about to go: committed only if they were there to the end.
    async fn enclosed(
        &self,
        live: &Live,
        ask: Ask<'_>,
        program: &Program,
        at: u32,
        want: Want,
        stamp: Stamp,
    ) -> Result<Answer> {
        let mut touched = BTreeSet::new();
        self.inner.router.touched(program, ask.params, &mut touched);
        let touched = &touched;
        let work = async |transaction: &mut Transaction<'_>| {
            live.hold(transaction, at, touched).await?;
            let answer = match want {
                Want::Rows => Answer::Rows(transaction.query(ask.sql, ask.params).await?),
                Want::Count => Answer::Count(transaction.execute(ask.sql, ask.params).await?),
            };
            live.before_commit(transaction, at, stamp, Some(touched)).await?;
            Ok(answer)
        };
        let session = ask.sessions.and_then(|sessions| sessions.get(at as usize));
        let shard = self.at(at);
        match session {
            Some(session) => shard.run(ask.operation, session.transaction(work)).await,
            None => shard.run(ask.operation, shard.database.transaction(work)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Column, RowsBuilder};

    #[test]
    fn a_write_that_answers_no_columns_does_not_tell_whether_it_wrote() {
        let rows = |columns| Answer::Rows(RowsBuilder::new(columns).finish());
        assert_eq!(Answer::Count(0).wrote(), Some(false));
        assert_eq!(Answer::Count(2).wrote(), Some(true));
        assert_eq!(rows(vec![Column::new("id")]).wrote(), Some(false));
        assert_eq!(rows(Vec::new()).wrote(), None);
    }
}
