//! The look at a shard before its first statement: is it the one it should be, and are its tables what is declared?

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::catalogue::{self, Catalogue};
use super::guard::Guard;
use super::schema::Schema;
use crate::{Database, Error, ErrorKind, Result};

/// How long a declared table that is not there is not looked for again.
const PATIENCE: Duration = Duration::from_secs(1);

const UNSEEN: u8 = 0;
/// Some declared tables are not there yet.
const PARTLY: u8 = 1;
const SEEN: u8 = 2;

/// Checks a shard before its first statement, and again after its schema was changed through us.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) guard: Option<Guard>,
    /// None: an engine whose catalogue is not read.
    pub(super) catalogue: Option<Declared>,
    pub(super) state: State,
}

/// What the catalogue is compared with.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) shard: u32,
    pub(super) name: String,
    pub(super) schema: Arc<Schema>,
    pub(super) shared: Arc<Catalogue>,
    /// Whether the server has to hash as we do.
    pub(super) hashes: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    seen: AtomicU8,
    next: Mutex<Option<Instant>>,
}

impl Inspection {
    /// Checks what was not checked before. A dropped check is done again by the next caller.
    pub(super) async fn check(&self, database: &Database) -> Result<()> {
        self.known(database).await?;
        let Some(declared) = &self.catalogue else { return Ok(()) };
        match self.state.seen.load(Ordering::Acquire) {
            SEEN => return Ok(()),
            PARTLY if !self.state.is_due() => return Ok(()),
            _ => {}
        }
        let snapshot = catalogue::read(database, &declared.schema, None).await?;
        snapshot.verify(&declared.schema).map_err(|reason| declared.refused(&reason))?;
        if declared.hashes {
            catalogue::check_hash(database, &declared.name).await?;
        }
        let complete = snapshot.is_complete(&declared.schema);
        declared.shared.note(declared.shard, snapshot);
        self.state.looked(complete);
        Ok(())
    }

    /// Checks that the shard is the one it should be, whatever its tables are.
    pub(super) async fn known(&self, database: &Database) -> Result<()> {
        match &self.guard {
            Some(guard) => guard.check(database).await,
            None => Ok(()),
        }
    }

    /// What is done to a whole shard, such as a migration, makes the catalogue worth another look.
    pub(super) fn changed(&self) {
        self.state.seen.store(UNSEEN, Ordering::Release);
    }
}

impl Declared {
    fn refused(&self, reason: &str) -> Error {
        let message =
            format!("the catalogue of {} contradicts what is declared: {reason}", self.name);
        Error::new(ErrorKind::Config, "connect", message)
    }
}

impl State {
    fn is_due(&self) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.is_none_or(|next| Instant::now() >= next)
    }

    fn looked(&self, complete: bool) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PATIENCE);
        self.seen.store(if complete { SEEN } else { PARTLY }, Ordering::Release);
    }
}
