//! The engines that ship keep the contract, and a broken one is found out.

use std::sync::Arc;

use resonant_db::backend::Backend;
use resonant_db::backend::sqlite::{self, Sqlite};
use resonant_db::testing::Place;
use tempfile::TempDir;

#[derive(Debug)]
pub(super) struct Memory(Arc<Sqlite>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(Arc::new(Sqlite::from_url("sqlite::memory:").expect("a good URL")))
    }
}

impl Place for Memory {
    fn backend(&self) -> Arc<dyn Backend> {
        self.0.clone()
    }
    fn url(&self) -> String {
        // What waits for a lock here waits for itself: one task holds both connections.
        "sqlite::memory:?busy_timeout=50ms".into()
    }
}

#[derive(Debug)]
pub(super) struct File {
    backend: Arc<Sqlite>,
    folder: TempDir,
}

impl File {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = sqlite::url(folder.path().join("a b%.db"));
        Self { backend: Arc::new(Sqlite::from_url(&url).expect("a good URL")), folder }
    }
}

impl Place for File {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }
    fn url(&self) -> String {
        sqlite::url(self.folder.path().join("a b%.db")) + "?synchronous=normal"
    }
}

resonant_db::conformance!(sqlite_file, File::new());
resonant_db::conformance!(sqlite_memory, Memory::new());
