//! The suites of every engine and of every lease store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resonant_queue::backend::Backend;
use resonant_queue::testing::Place;
use resonant_testkit::postgres::TempDatabase;
use tokio::sync::OnceCell;

use super::{database, postgres};

#[derive(Debug, Default)]
struct InPostgres {
    database: OnceCell<TempDatabase>,
}

#[async_trait]
impl Place for InPostgres {
    async fn open(&self) -> Arc<dyn Backend> {
        let database = self.database.get_or_init(database).await;
        Arc::new(postgres(&database.url()).await)
    }
}

resonant_queue::conformance!(in_postgres, InPostgres::default());

#[tokio::test]
async fn its_leases_are_leases() {
    let database = database().await;
    let leases = postgres(&database.url()).await.leases();
    resonant_common::join::testing::suite(leases, "queue", Duration::from_millis(400)).await;
}
