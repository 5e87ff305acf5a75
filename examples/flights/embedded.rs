//! The engines of the embedded form: SQLite files in a folder, and a cache in memory.

use std::path::Path;
use std::sync::Arc;

use resonant_cache::DistributedCache;
use resonant_db::Database;
use resonant_queue::Sqlite;

use crate::failure::{Failure, While};
use crate::home::Engines;
use crate::pipeline;
use crate::store::Store;
use crate::table::Table;

/// When something counts as stored.
pub(crate) const DURABILITY: &str = "queue and shards are SQLite in WAL mode with synchronous=FULL; nothing is \
                                     acknowledged before it is on disk";

const SHARDS: usize = 4;
const CACHE_BYTES: u64 = 16 << 20;

/// Opens or makes them in `folder`.
pub(crate) async fn open(folder: &Path) -> Result<Engines, Failure> {
    let url = format!("sqlite:{}", folder.join("journal.db").display());
    let notes = Database::connect(&url).await.doing("opening the journal")?;
    let shards = (0..SHARDS).map(|shard| {
        let file = folder.join(format!("shard_{shard}.db"));
        vec![format!("sqlite:{}", file.display())]
    });
    let store = Store::make(&Vec::from_iter(shards), Table::Sqlite).await?;
    let engine = Sqlite::builder(folder.join("queue.db"))
        .exclusive(true)
        .open()
        .await
        .doing("opening the queue")?;
    let queue = pipeline::queue(engine).await?;
    let cache = DistributedCache::memory(CACHE_BYTES);
    Ok(Engines { store: Arc::new(store), queue, cache, notes })
}
