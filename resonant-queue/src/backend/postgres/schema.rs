//! The tables, and whether they are there.

use resonant_db::{Database, Row, Transaction, params};

use super::error::fault;
use crate::error::{Error, ErrorKind, Result};

/// The layout this program works with.
const VERSION: i64 = 1;

const LAYOUT: &str = "SELECT version, oldest FROM resonant_queue.layout";

/// Serialises those who create the tables at the same time. `RsnQ` and the version of the layout.
const LOCK: i64 = 0x5273_6e51_0001;

/// The statements of one version of the tables, to be run as a whole in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schema {
    /// Makes them.
    pub up: &'static str,
    /// Removes them, with everything in them.
    pub down: &'static str,
}

impl Schema {
    pub(super) fn of(version: u32) -> Option<Self> {
        let first =
            Self { up: include_str!("schema/v1.up.sql"), down: include_str!("schema/v1.down.sql") };
        (version == 1).then_some(first)
    }
}

/// Looks whether the tables are those this program works with; creates them first if it may.
pub(super) async fn check(db: &Database, create: bool, operation: &'static str) -> Result<()> {
    if create {
        create_tables(db, operation).await?;
    }
    let row =
        db.write().query_one(LAYOUT, params![]).await.map_err(|error| fault(operation, error))?;
    judge(&row, operation)
}

/// The same in the transaction of a caller; creates nothing.
pub(super) async fn check_in(tx: &mut Transaction<'_>, operation: &'static str) -> Result<()> {
    let row = tx.query_one(LAYOUT, params![]).await.map_err(|error| fault(operation, error))?;
    judge(&row, operation)
}

fn judge(row: &Row, operation: &'static str) -> Result<()> {
    let (version, oldest): (i64, i64) = row.decode().map_err(|error| fault(operation, error))?;
    if (oldest..=version).contains(&VERSION) {
        return Ok(());
    }
    let message = format!(
        "the tables in the schema resonant_queue are of version {version} and work with programs of versions {oldest} to {version}, this one is of version {VERSION}: {}",
        if version < VERSION { "migrate them first" } else { "update the program" }
    );
    Err(Error::new(ErrorKind::Incompatible, operation, message))
}

async fn create_tables(db: &Database, operation: &'static str) -> Result<()> {
    const THERE: &str = "SELECT to_regclass('resonant_queue.layout') IS NOT NULL";
    let there =
        db.write().query_one_as::<bool>(THERE, params![]).await.map_err(|e| fault(operation, e))?;
    if there {
        return Ok(());
    }
    let made = db.transaction(async |tx| {
        tx.query("SELECT pg_advisory_xact_lock($1)", params![LOCK]).await?;
        if !tx.query_one_as::<bool>(THERE, params![]).await? {
            tx.batch(include_str!("schema/v1.up.sql")).await?;
        }
        Ok(())
    });
    made.await.map_err(|error| fault(operation, error))
}
