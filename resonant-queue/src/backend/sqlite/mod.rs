//! Queues in an SQLite file: durable, with nothing to install.
//!
//! One thread writes and commits in groups what all callers want; two threads read. No async thread is ever blocked.
//! Messages are rows in the order of partition and sequence, so reading from a cursor costs the same at any depth; a
//! finished message's row is deleted and its page used again. The layout is specified in `docs/formats/queue.md`.
//!
//! Several processes of one machine may share a file: they lease partitions by the machine's clock. A process that
//! wants the file alone asks for [`exclusive`](SqliteBuilder::exclusive): then a restart goes on at once.

mod feed;
mod file;
mod leases;
mod publish;
mod reader;
mod schema;
mod settle;
mod state;
mod store;
mod wakes;
mod writer;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use self::file::Options;
use self::reader::Reader;
use self::store::SqliteStore;
use self::wakes::Wakes;
use self::writer::Writer;
use super::{Backend, Capabilities, QueueSpec, QueueStore};
use crate::error::{Error, ErrorKind, Result};

/// How long an opening waits for a lock: a process that was just killed may not be gone yet.
const LOCK: Duration = Duration::from_secs(3);

/// What a confirmed message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Power loss: every transaction is synced to the disk before it is confirmed (`synchronous=FULL`).
    #[default]
    Full,
    /// The end of the process, however sudden. Power loss or a crash of the system may undo what was confirmed last,
    /// in order, without damage to the file (`synchronous=NORMAL`).
    Normal,
}

/// A file with queues. Clones share it.
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What all queues of a file share. The threads end with it.
struct Shared {
    options: Options,
    writer: Writer,
    reader: Reader,
    wakes: Arc<Wakes>,
}

/// Settings of a file on their way to it.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is opened"]
pub struct SqliteBuilder {
    options: Options,
}

impl SqliteBuilder {
    /// What a confirmed message survives. Default [`Durability::Full`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Takes the file alone, by a lock on `<path>.lock` that the system frees when the process ends, however it
    /// ends. Then nobody has to wait for the leases of a process that is gone: a restart goes on at once. Default
    /// false: processes of one machine share the file.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.options.exclusive = exclusive;
        self
    }

    /// Opens the file, creating it if there is none.
    ///
    /// # Errors
    ///
    /// `Unavailable` if it cannot be opened or is in use; `Incompatible` if it is of another program or a newer
    /// version; `Unsupported` where the file system cannot hold a write-ahead log.
    pub async fn open(self) -> Result<Sqlite> {
        let options = self.options;
        let lock = Arc::new(lock(&options).await?);
        let wakes = Arc::new(Wakes::default());
        let opening = {
            let (options, wakes) = (options.clone(), Arc::clone(&wakes));
            move || -> Result<(Writer, Reader)> {
                let conn = file::open_writer(&options)?;
                let reader = Reader::start(&options, &lock)?;
                let writer = Writer::start(conn, wakes, options.exclusive, lock)?;
                Ok((writer, reader))
            }
        };
        let (writer, reader) = tokio::task::spawn_blocking(opening).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "open", "the opening was stopped; try again")
                .with_source(error)
        })??;
        Ok(Sqlite { shared: Arc::new(Shared { options, writer, reader, wakes }) })
    }
}

async fn lock(options: &Options) -> Result<File> {
    let deadline = tokio::time::Instant::now() + LOCK;
    loop {
        if let Some(file) = file::try_lock(options)? {
            return Ok(file);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(file::in_use(options));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Sqlite {
    /// Opens a file with the defaults: [`Durability::Full`], shared between processes.
    ///
    /// # Errors
    ///
    /// As [`SqliteBuilder::open`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(path).open().await
    }

    /// A lease store in this file, for an engine that has none of its own and is used by processes of one machine.
    pub fn leases(&self) -> Arc<dyn resonant_common::join::LeaseStore> {
        Arc::new(leases::SqliteLeases(Arc::clone(&self.shared)))
    }

    /// Begins to open a file.
    pub fn builder(path: impl Into<PathBuf>) -> SqliteBuilder {
        let options =
            Options { path: path.into(), durability: Durability::default(), exclusive: false };
        SqliteBuilder { options }
    }
}

#[async_trait]
impl Backend for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("sqlite").durable(true).exclusive(self.shared.options.exclusive)
    }

    async fn declare(&self, spec: &QueueSpec) -> Result<Arc<dyn QueueStore>> {
        let asked = spec.clone();
        let queue = self.shared.writer.call("build", move |tx| store::declare(tx, &asked)).await?;
        Ok(Arc::new(SqliteStore::new(Arc::clone(&self.shared), queue)))
    }
}
