//! Leases in the same file, by the machine's clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::{Acquired, Lease, LeaseError, LeaseErrorKind, LeaseStore, LeaseView};
use rusqlite::{OptionalExtension, params};

use super::Shared;
use super::feed::unsigned;
use super::publish::stamp;
use super::writer::{Fault, Tx};
use crate::clock;

pub(super) struct SqliteLeases(pub(super) Arc<Shared>);

impl fmt::Debug for SqliteLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteLeases").field(&self.0.options.path).finish()
    }
}

struct Row {
    owner: Option<String>,
    epoch: i64,
    ttl: i64,
    expires: i64,
}

impl Row {
    fn live(&self, now: u64) -> Option<LeaseView> {
        let remaining = unsigned(self.expires).checked_sub(now)?;
        // What seems to run for long was granted before the clock was set back: who lives renews it, who died does not.
        let possible = remaining <= unsigned(self.ttl).saturating_mul(2);
        let owner = self.owner.clone().filter(|_| remaining > 0 && possible)?;
        Some(LeaseView {
            owner,
            epoch: unsigned(self.epoch),
            remaining: Duration::from_millis(remaining),
        })
    }
}

fn row(conn: &rusqlite::Connection, name: &str) -> rusqlite::Result<Option<Row>> {
    conn.prepare_cached("SELECT owner, epoch, ttl, expires FROM leases WHERE name = ?1")?
        .query_row([name], |row| {
            Ok(Row {
                owner: row.get(0)?,
                epoch: row.get(1)?,
                ttl: row.get(2)?,
                expires: row.get(3)?,
            })
        })
        .optional()
}

fn unavailable(operation: &'static str) -> impl FnOnce(crate::Error) -> LeaseError {
    move |error| {
        LeaseError::new(
            LeaseErrorKind::Unavailable,
            operation,
            "the queue's file does not answer; it is asked again",
        )
        .with_source(error)
    }
}

/// Changes a live lease of this owner and epoch; says whether it was one.
fn change(tx: &Tx<'_>, lease: &Lease, ttl: u64, expires: u64) -> Result<bool, Fault> {
    let changed = tx
        .conn
        .prepare_cached(
            "UPDATE leases SET expires = ?4, ttl = ?6 WHERE name = ?1 AND owner = ?2 AND epoch = ?3 AND expires > ?5",
        )?
        .execute(params![lease.name, lease.owner, stamp(lease.epoch), stamp(expires), stamp(tx.now), stamp(ttl)])?;
    Ok(changed > 0)
}

fn lost(operation: &'static str, lease: &Lease) -> LeaseError {
    let message = format!(
        "the lease {:?} of epoch {} has run out or was taken over",
        lease.name, lease.epoch
    );
    LeaseError::new(LeaseErrorKind::Lost, operation, message)
}

#[async_trait]
impl LeaseStore for SqliteLeases {
    async fn acquire(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, LeaseError> {
        let lease = Lease { name: name.to_owned(), owner: owner.to_owned(), epoch: 0, ttl };
        self.0
            .writer
            .call("acquire", move |tx| {
                let known = row(tx.conn, &lease.name)?;
                if let Some(view) = known.as_ref().and_then(|row| row.live(tx.now)) {
                    return Ok(Acquired::Held(view));
                }
                let epoch = known.map_or(0, |row| unsigned(row.epoch)) + 1;
                let ttl = clock::as_millis(ttl);
                tx.conn
                    .prepare_cached(
                        "INSERT INTO leases (name, owner, epoch, expires, ttl) VALUES (?1, ?2, ?3, ?4, ?5)
                         ON CONFLICT DO UPDATE SET owner = ?2, epoch = ?3, expires = ?4, ttl = ?5",
                    )?
                    .execute(params![
                        lease.name,
                        lease.owner,
                        stamp(epoch),
                        stamp(tx.now + ttl),
                        stamp(ttl)
                    ])?;
                Ok(Acquired::Granted(Lease { epoch, ..lease }))
            })
            .await
            .map_err(unavailable("acquire"))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        let asked = lease.clone();
        let millis = clock::as_millis(ttl);
        let renewed = self
            .0
            .writer
            .call("renew", move |tx| change(tx, &asked, millis, tx.now + millis))
            .await
            .map_err(unavailable("renew"))?;
        if renewed { Ok(Lease { ttl, ..lease.clone() }) } else { Err(lost("renew", lease)) }
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let asked = lease.clone();
        let released = self
            .0
            .writer
            .call("release", move |tx| change(tx, &asked, 0, 0))
            .await
            .map_err(unavailable("release"))?;
        if released { Ok(()) } else { Err(lost("release", lease)) }
    }

    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError> {
        let name = name.to_owned();
        let row = self
            .0
            .reader
            .call("inspect", move |conn| row(conn, &name))
            .await
            .map_err(unavailable("inspect"))?;
        Ok(row.and_then(|row| row.live(clock::now_millis())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sqlite;

    /// A lease that ends far in the future because the clock was set back does not outlive its owner.
    #[tokio::test]
    async fn a_clock_set_back_blocks_no_lease() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let file = Sqlite::open(directory.path().join("q.db")).await?;
        let leases = SqliteLeases(Arc::clone(&file.shared));
        let ttl = Duration::from_secs(5);
        for (left, epoch) in [(ttl, 1), (2 * ttl, 1), (Duration::from_secs(3600), 2)] {
            let _ = leases.acquire("a", "first", ttl).await?;
            let set = move |tx: &mut Tx<'_>| {
                let expires = stamp(tx.now + clock::as_millis(left));
                Ok(tx.conn.execute("UPDATE leases SET expires = ?1", [expires])?)
            };
            file.shared.writer.call("test", set).await?;
            let answer = match leases.acquire("a", "second", ttl).await? {
                Acquired::Granted(lease) => lease.epoch,
                Acquired::Held(view) => view.epoch,
            };
            assert_eq!(answer, epoch, "{left:?} left");
        }
        Ok(())
    }
}
