//! One shard: what its ledger says, and a version applied or taken back together with its line in there.
//!
//! The ledger and its lock are sqlx's, so that of the two programs either may have run before, or run at the same time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::files::{Migration, Script};
use crate::sharding::schema::Engine;
use crate::{Database, Error, ErrorKind, Result, Transaction, TransactionOptions, params};

/// How long between two looks at a lock another runner has.
const LOOK: Duration = Duration::from_millis(200);

/// How a shard is worked on.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    pub(super) table: String,
    pub(super) engine: Engine,
    /// How long a statement waits for a lock of a table before it gives way.
    pub(super) lock_timeout: Duration,
    /// How often it then tries again.
    pub(super) attempts: u32,
    /// How long another runner is waited for.
    pub(super) patience: Duration,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Line {
    pub(super) version: i64,
    pub(super) success: bool,
    /// In hexadecimal.
    pub(super) checksum: String,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// What came of an attempt.
enum Turn {
    Done,
    /// Another runner has done it already.
    Known,
    /// Another runner is at it.
    Locked,
}

const OPERATION: &str = "migrate";

impl Ledger {
    /// Everything the ledger says; nothing where there is none.
    pub(super) async fn read(&self, database: &Database) -> Result<Vec<Line>> {
        let exists = match self.engine {
            Engine::Postgres => "SELECT to_regclass($1::text) IS NOT NULL AS there",
            Engine::Sqlite => "SELECT count(*) > 0 AS there FROM sqlite_master WHERE name = $1",
        };
        let there: bool = database.write().query_one_as(exists, params![self.table]).await?;
        if !there {
            return Ok(Vec::new());
        }
        database.write().query_as(&self.lines(""), params![]).await
    }

    fn lines(&self, condition: &str) -> String {
        let hex = match self.engine {
            Engine::Postgres => "encode(checksum, 'hex')",
            Engine::Sqlite => "lower(hex(checksum))",
        };
        let table = &self.table;
        format!(
            "SELECT version, success, {hex} AS checksum FROM {table} {condition} ORDER BY version"
        )
    }

    fn create(&self) -> String {
        let (moment, now, bytes) = match self.engine {
            Engine::Postgres => ("TIMESTAMPTZ", "now()", "BYTEA"),
            Engine::Sqlite => ("TIMESTAMP", "CURRENT_TIMESTAMP", "BLOB"),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {} (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
             installed_on {moment} NOT NULL DEFAULT {now}, success BOOLEAN NOT NULL, checksum {bytes} NOT NULL, \
             execution_time BIGINT NOT NULL)",
            self.table
        )
    }

    /// Brings one version up or down; how long that took, or `None` when it was so already.
    pub(super) async fn step(
        &self,
        database: &Database,
        migration: &Migration,
        way: Way,
    ) -> Result<Option<Duration>> {
        let script = match way {
            Way::Up => &migration.up,
            Way::Down => migration.down.as_ref().ok_or_else(|| {
                let message = format!("the version {} has no .down.sql", migration.version);
                Error::new(ErrorKind::Config, OPERATION, message)
            })?,
        };
        let deadline = Instant::now() + self.patience;
        let mut attempt = 1;
        loop {
            let begun = Instant::now();
            let turn = if script.no_transaction {
                self.alone(database, migration, script, way).await
            } else {
                self.enclosed(database, migration, script, way).await
            };
            match turn {
                Ok(Turn::Done) => return Ok(Some(begun.elapsed())),
                Ok(Turn::Known) => return Ok(None),
                Ok(Turn::Locked) if Instant::now() >= deadline => {
                    let message = "another program migrates this shard and does not come to an end";
                    return Err(Error::new(ErrorKind::TimedOut, OPERATION, message));
                }
                Ok(Turn::Locked) => sleep(LOOK).await,
                // Who holds the table's lock goes first, and so does everybody who waits behind us.
                Err(error) if error.kind() == ErrorKind::Conflict && attempt < self.attempts => {
                    attempt += 1;
                    sleep(self.lock_timeout / 2).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The version and its line in one transaction. A conflict, such as a lock that was not to be had, is left to `step`.
    async fn enclosed(
        &self,
        database: &Database,
        migration: &Migration,
        script: &Script,
        way: Way,
    ) -> Result<Turn> {
        database
            .transaction_with(TransactionOptions::default().max_attempts(1), async |transaction| {
                if !self.locked(transaction).await? {
                    return Ok(Turn::Locked);
                }
                transaction.batch(&self.create()).await?;
                if self.has(transaction, migration).await? == (way == Way::Up) {
                    return Ok(Turn::Known);
                }
                transaction.batch(&script.sql).await?;
                self.note(transaction, migration, way).await?;
                Ok(Turn::Done)
            })
            .await
    }

    /// Limits of the transaction, and the runner's lock until its end.
    async fn locked(&self, transaction: &mut Transaction<'_>) -> Result<bool> {
        if self.engine == Engine::Sqlite {
            // There is one writer, and this is it.
            return Ok(true);
        }
        let limits = format!(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}",
            self.lock_timeout.as_millis().max(1)
        );
        transaction.batch(&limits).await?;
        let name: String =
            transaction.query_one_as("SELECT current_database()::text", params![]).await?;
        // Tried and not waited for: who waits in a transaction stops CREATE INDEX CONCURRENTLY of whoever has it.
        let sql = "SELECT pg_try_advisory_xact_lock($1::bigint)";
        transaction.query_one_as(sql, params![lock_of(&name)]).await
    }

    async fn has(&self, transaction: &mut Transaction<'_>, migration: &Migration) -> Result<bool> {
        let sql = format!("SELECT count(*) FROM {} WHERE version = $1", self.table);
        let lines: i64 = transaction.query_one_as(&sql, params![migration.version]).await?;
        Ok(lines > 0)
    }

    async fn note(
        &self,
        transaction: &mut Transaction<'_>,
        migration: &Migration,
        way: Way,
    ) -> Result<()> {
        let Migration { version, description, checksum, .. } = migration;
        match way {
            Way::Up => {
                let sql = format!(
                    "INSERT INTO {} (version, description, success, checksum, execution_time) \
                     VALUES ($1, $2, TRUE, $3, -1)",
                    self.table
                );
                transaction.execute(&sql, params![version, description, checksum]).await?;
            }
            Way::Down => {
                let sql = format!("DELETE FROM {} WHERE version = $1", self.table);
                transaction.execute(&sql, params![version]).await?;
            }
        }
        Ok(())
    }

    /// A version outside a transaction; its line follows at once.
    async fn alone(
        &self,
        database: &Database,
        migration: &Migration,
        script: &Script,
        way: Way,
    ) -> Result<Turn> {
        let prepared = database
            .transaction(async |transaction| {
                if !self.locked(transaction).await? {
                    return Ok(Turn::Locked);
                }
                transaction.batch(&self.create()).await?;
                let known = self.has(transaction, migration).await? == (way == Way::Up);
                Ok(if known { Turn::Known } else { Turn::Done })
            })
            .await?;
        if !matches!(prepared, Turn::Done) {
            return Ok(prepared);
        }
        match self.engine {
            Engine::Sqlite => {
                database.write().execute(&script.sql, params![]).await?;
            }
            Engine::Postgres => {
                if !self.run_alone(database, script).await? {
                    return Ok(Turn::Locked);
                }
            }
        }
        database
            .transaction(async |transaction| {
                if self.has(transaction, migration).await? == (way == Way::Up) {
                    return Ok(Turn::Known);
                }
                self.note(transaction, migration, way).await?;
                Ok(Turn::Done)
            })
            .await
    }

    /// Runs a script on a session that has the runner's lock; whether it got that.
    #[cfg(feature = "postgres")]
    async fn run_alone(&self, database: &Database, script: &Script) -> Result<bool> {
        let limits = format!(
            "SET statement_timeout = 0; SET lock_timeout = {}",
            self.lock_timeout.as_millis().max(1)
        );
        let concurrently = script.sql.to_ascii_lowercase().contains("concurrently");
        let work = database.write().with_client(async |client| {
            client.batch_execute(&limits).await?;
            let name: String =
                client.query_one("SELECT current_database()::text", &[]).await?.try_get(0)?;
            let lock = lock_of(&name);
            let sql = "SELECT pg_try_advisory_lock($1::bigint)";
            if !client.query_one(sql, &[&lock]).await?.try_get::<_, bool>(0)? {
                return Ok(false);
            }
            if concurrently {
                // What an earlier attempt left is no index, and IF NOT EXISTS would take it for one.
                for row in client.query(INVALID, &[&script.sql]).await? {
                    let name: String = row.try_get(0)?;
                    client
                        .batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"))
                        .await?;
                }
            }
            client.batch_execute(&script.sql).await?;
            client.query_one("SELECT pg_advisory_unlock($1::bigint)", &[&lock]).await?;
            Ok(true)
        });
        work.await
    }

    #[cfg(not(feature = "postgres"))]
    async fn run_alone(&self, _: &Database, _: &Script) -> Result<bool> {
        let message = "this build has no PostgreSQL: switch on the feature postgres";
        Err(Error::new(ErrorKind::Unsupported, OPERATION, message))
    }
}

/// Indexes a script names that were left unfinished.
#[cfg(feature = "postgres")]
const INVALID: &str = r"SELECT i.indexrelid::regclass::text FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relkind = 'i' AND $1::text ~* ('\m' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '\M')";

/// The number sqlx locks a database by: the CRC-32 of its name, times a number of its own.
fn lock_of(database: &str) -> i64 {
    let mut sum = u32::MAX;
    for byte in database.bytes() {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    0x3d32_ad9e * i64::from(!sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_that_of_sqlx() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(lock_of("123456789"), 0x3d32_ad9e * 0xcbf4_3926);
        assert_eq!(lock_of(""), 0);
    }
}
