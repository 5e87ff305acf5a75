//! The engines that ship pass the suite; engines that break a promise do not.

use std::sync::Arc;

use async_trait::async_trait;
use resonant_queue::backend::Backend;
use resonant_queue::testing::Place;
use resonant_queue::{Memory, Sqlite};

#[derive(Debug, Default)]
struct InMemory(Memory);

#[async_trait]
impl Place for InMemory {
    async fn open(&self) -> Arc<dyn Backend> {
        Arc::new(self.0.clone())
    }
}

#[derive(Debug)]
struct InFile {
    directory: tempfile::TempDir,
    exclusive: bool,
}

impl InFile {
    fn new(exclusive: bool) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), exclusive }
    }
}

#[async_trait]
impl Place for InFile {
    async fn open(&self) -> Arc<dyn Backend> {
        let path = self.directory.path().join("queue.db");
        Arc::new(Sqlite::builder(path).exclusive(self.exclusive).open().await.unwrap())
    }
}

resonant_queue::conformance!(memory, InMemory::default());
resonant_queue::conformance!(sqlite_alone, InFile::new(true));
resonant_queue::conformance!(sqlite_shared, InFile::new(false));
