//! PostgreSQL keeps the contract of backends.

use std::sync::Arc;

use resonant_db::backend::Backend;
use resonant_db::backend::postgres::Postgres;
use resonant_db::testing::Place;
use resonant_testkit::postgres::TempDatabase;

#[derive(Debug)]
struct Temp {
    backend: Arc<Postgres>,
    database: TempDatabase,
}

impl Temp {
    async fn new() -> Self {
        let database = super::database().await;
        let backend = Postgres::from_url(&database.url()).expect("a good URL");
        Self { backend: Arc::new(backend), database }
    }
}

impl Place for Temp {
    fn backend(&self) -> Arc<dyn Backend> {
        self.backend.clone()
    }
    fn url(&self) -> String {
        self.database.url()
    }
}

resonant_db::conformance!(postgres, Temp::new().await);
