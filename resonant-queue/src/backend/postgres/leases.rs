//! Leases in the same database, by its clock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_common::join::{Acquired, Lease, LeaseError, LeaseErrorKind, LeaseStore, LeaseView};
use resonant_db::{Param, Rows, params};

use super::store::{Shared, get, one};
use super::text::{signed, unsigned};
use crate::clock;

/// How often a lease that is neither free nor held is asked for: it ran out in between.
const ATTEMPTS: usize = 3;

pub(super) struct PostgresLeases(pub(super) Arc<Shared>);

impl fmt::Debug for PostgresLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresLeases").field(&self.0.db).finish()
    }
}

fn unavailable(operation: &'static str, error: crate::Error) -> LeaseError {
    let applied = error.may_have_applied();
    let message = "the queue's database does not answer; it is asked again";
    let error = LeaseError::new(LeaseErrorKind::Unavailable, operation, message).with_source(error);
    if applied { error.with_may_have_applied() } else { error }
}

fn lost(operation: &'static str, lease: &Lease) -> LeaseError {
    let message = format!(
        "the lease {:?} of epoch {} has run out or was taken over",
        lease.name, lease.epoch
    );
    LeaseError::new(LeaseErrorKind::Lost, operation, message)
}

impl PostgresLeases {
    async fn rows(
        &self,
        operation: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Rows, LeaseError> {
        let asked = async {
            self.0.ready(operation).await?;
            self.0.rows(operation, sql, params).await
        };
        asked.await.map_err(|error| unavailable(operation, error))
    }

    /// Changes a live lease of this owner and epoch; says whether it was one.
    async fn change(
        &self,
        operation: &'static str,
        lease: &Lease,
        ttl: u64,
    ) -> Result<bool, LeaseError> {
        let sql = "UPDATE resonant_queue.leases SET expires = resonant_queue.now_ms() + $4, ttl = $4
             WHERE name = $1 AND owner = $2 AND epoch = $3 AND expires > resonant_queue.now_ms() RETURNING 1";
        let (epoch, ttl) = (signed(lease.epoch), signed(ttl));
        let params = params![lease.name, lease.owner, epoch, ttl];
        Ok(!self.rows(operation, sql, params).await?.is_empty())
    }
}

#[async_trait]
impl LeaseStore for PostgresLeases {
    async fn acquire(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, LeaseError> {
        // What seems to run for twice its time was granted before the clock was set back: who lives renews it.
        let sql = "INSERT INTO resonant_queue.leases AS l (name, owner, epoch, ttl, expires)
             VALUES ($1, $2, 1, $3, resonant_queue.now_ms() + $3)
             ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = l.epoch + 1, ttl = excluded.ttl,
                expires = resonant_queue.now_ms() + excluded.ttl
             WHERE l.expires <= resonant_queue.now_ms() OR l.expires - resonant_queue.now_ms() > 2 * l.ttl
             RETURNING l.epoch";
        let millis = signed(clock::as_millis(ttl));
        for _ in 0..ATTEMPTS {
            let rows = self.rows("acquire", sql, params![name, owner, millis]).await?;
            if !rows.is_empty() {
                let epoch = one("acquire", &rows).and_then(|row| get("acquire", &row, 0));
                let epoch = unsigned(epoch.map_err(|error| unavailable("acquire", error))?);
                let (name, owner) = (name.to_owned(), owner.to_owned());
                return Ok(Acquired::Granted(Lease { name, owner, epoch, ttl }));
            }
            if let Some(view) = self.inspect(name).await? {
                return Ok(Acquired::Held(view));
            }
        }
        let message = format!("the lease {name:?} changes hands all the time; ask again");
        Err(LeaseError::new(LeaseErrorKind::Unavailable, "acquire", message))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        if self.change("renew", lease, clock::as_millis(ttl)).await? {
            Ok(Lease { ttl, ..lease.clone() })
        } else {
            Err(lost("renew", lease))
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        if self.change("release", lease, 0).await? { Ok(()) } else { Err(lost("release", lease)) }
    }

    async fn inspect(&self, name: &str) -> Result<Option<LeaseView>, LeaseError> {
        let sql = "SELECT owner, epoch, expires - resonant_queue.now_ms() FROM resonant_queue.leases
             WHERE name = $1 AND expires > resonant_queue.now_ms() AND expires - resonant_queue.now_ms() <= 2 * ttl";
        let rows = self.rows("inspect", sql, params![name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let read = || -> crate::Result<LeaseView> {
            Ok(LeaseView {
                owner: get("inspect", &row, 0)?,
                epoch: unsigned(get("inspect", &row, 1)?),
                remaining: Duration::from_millis(unsigned(get("inspect", &row, 2)?)),
            })
        };
        read().map(Some).map_err(|error| unavailable("inspect", error))
    }
}
