//! A database that is used on more runtimes than one.

use std::time::Duration;

use resonant_db::{Database, ErrorKind, PoolConfig, params};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{LIMIT, database};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a_read_ends_by_its_deadline_where_nobody_drives_the_sessions_runtime() {
    let (first, second) = (runtime(), runtime());
    let (database, db) = first.block_on(async {
        let database = database().await;
        let db = Database::builder()
            .primary(database.url())
            .pool(PoolConfig::default().min_size(1).max_size(1))
            .statement_timeout(Duration::from_millis(200))
            .connect()
            .await
            .expect("connect");
        (database, db)
    });
    let read = async { timeout(LIMIT, db.read().query("SELECT 1", params![])).await };
    let error = second.block_on(read).expect("a deadline").expect_err("nobody sends it");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    first.block_on(async move { drop((db, database)) });
}
