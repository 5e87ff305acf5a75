//! A voter within one process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Ballot, Cell, Vote, Voter};
use crate::error::Result;

/// A voter on tokio's clock that forgets with its process: for tests, and for programs that are alone.
#[derive(Debug)]
pub struct MemoryVoter {
    began: Instant,
    cells: Mutex<HashMap<String, Cell>>,
}

impl MemoryVoter {
    /// A voter that has granted nothing yet.
    pub fn new() -> Self {
        Self { began: Instant::now(), cells: Mutex::default() }
    }

    /// Forgets a name: for voters that are to be found out.
    #[cfg(feature = "testing")]
    pub(crate) fn forget(&self, name: &str) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Takes a record without a look at it: for voters that are to be found out.
    #[cfg(feature = "testing")]
    pub(crate) fn replace_record(&self, name: &str, record: super::Stored) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.entry(name.to_owned()).or_default().replace_record(record);
    }
}

impl Default for MemoryVoter {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Voter for MemoryVoter {
    async fn cast(&self, name: &str, ballot: Ballot) -> Result<Vote> {
        let now = self.began.elapsed();
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(cells.entry(name.to_owned()).or_default().cast(now, ballot))
    }
}
