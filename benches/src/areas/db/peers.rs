//! Who is compared, opened.

use std::sync::Arc;
use std::time::Duration;

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, Connection, Target};
use resonant_db::pool::{Manager, Verdict};
use resonant_db::{ConnectionPool, Database, PoolConfig};
use resonant_testkit::{FaultProxy, PostgresCluster};
use sqlx::postgres::PgPoolOptions;
use tokio_postgres::{Client, NoTls, Statement};

use crate::Outcome;

const SLOTS: u32 = 16;
pub(super) const KEYS: usize = 10_000;

/// Where the rows are.
pub(super) struct Place {
    server: PostgresCluster,
    far: FaultProxy,
}

impl Place {
    pub(super) async fn open() -> Outcome<Self> {
        let server = PostgresCluster::builder().setting("max_connections", "300").start().await?;
        let primary = server.primary();
        primary
            .sql(&format!(
                "CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL, score float8 NOT NULL); \
                 INSERT INTO item SELECT n, 'item ' || n, n / 7.0 FROM generate_series(0, {}) AS n; ANALYZE item",
                KEYS - 1
            ))
            .await?;
        let far = FaultProxy::start(primary.address()).await?;
        far.delay(Duration::from_micros(500)).await?;
        Ok(Self { server, far })
    }

    pub(super) fn url(&self) -> String {
        self.server.primary().url()
    }

    /// The same rows, 1 ms away.
    pub(super) fn far_url(&self) -> String {
        self.server.primary().url_through(&self.far)
    }
}

pub(super) type Bb8 = bb8_postgres::PostgresConnectionManager<NoTls>;

fn pool() -> PoolConfig {
    PoolConfig::default().min_size(SLOTS).max_size(SLOTS)
}

fn deadpool(url: &str) -> Outcome<deadpool_postgres::Pool> {
    let manager = deadpool_postgres::Manager::from_config(
        url.parse()?,
        NoTls,
        deadpool_postgres::ManagerConfig {
            recycling_method: deadpool_postgres::RecyclingMethod::Fast,
        },
    );
    Ok(deadpool_postgres::Pool::builder(manager)
        .max_size(SLOTS as usize)
        .wait_timeout(Some(Duration::from_secs(10)))
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .build()?)
}

async fn bb8(url: &str) -> Outcome<bb8::Pool<Bb8>> {
    Ok(bb8::Pool::builder()
        .max_size(SLOTS)
        .min_idle(SLOTS)
        .test_on_check_out(false)
        .build(Bb8::new(url.parse()?, NoTls))
        .await?)
}

/// Pools that lend connections nobody asks anything.
pub(super) struct Lenders {
    pub(super) ours: ConnectionPool<Existing>,
    pub(super) deadpool: deadpool_postgres::Pool,
    pub(super) bb8: bb8::Pool<Bb8>,
}

impl Lenders {
    pub(super) async fn open(place: &Place) -> Outcome<Self> {
        let url = place.url();
        let ours = ConnectionPool::new("lent", Existing(url.clone()), pool())?;
        ours.warm_up().await?;
        let deadpool = deadpool(&url)?;
        let mut open = Vec::new();
        for _ in 0..SLOTS {
            open.push(deadpool.get().await?);
        }
        drop(open);
        Ok(Self { ours, deadpool, bb8: bb8(&url).await? })
    }
}

/// Pools that read one row.
pub(super) struct Readers {
    pub(super) sql: &'static str,
    pub(super) ours: Database,
    pub(super) deadpool: deadpool_postgres::Pool,
    pub(super) bb8: bb8::Pool<Bb8>,
    pub(super) sqlx: sqlx::PgPool,
    pub(super) raw: Vec<(Arc<Client>, Statement)>,
}

impl Readers {
    pub(super) async fn open(place: &Place, url: String, sql: &'static str) -> Outcome<Self> {
        let ours = Database::builder().primary(&url).pool(pool()).connect().await?;
        let deadpool = deadpool(&url)?;
        let mut open = Vec::new();
        for _ in 0..SLOTS {
            let client = deadpool.get().await?;
            client.prepare_cached(sql).await?;
            open.push(client);
        }
        drop(open);
        let sqlx = PgPoolOptions::new()
            .min_connections(SLOTS)
            .max_connections(SLOTS)
            .test_before_acquire(false)
            .connect(&place.url())
            .await?;
        let config: tokio_postgres::Config = url.parse()?;
        let mut raw = Vec::new();
        for _ in 0..4 {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            let statement = client.prepare(sql).await?;
            raw.push((Arc::new(client), statement));
        }
        Ok(Self { sql, ours, deadpool, bb8: bb8(&url).await?, sqlx, raw })
    }
}

/// A manager over the backend's own connections, as `Database` has one inside.
pub(super) struct Existing(String);

impl Manager for Existing {
    type Connection = Box<dyn Connection>;

    async fn connect(&self) -> resonant_db::Result<Self::Connection> {
        let backend = Postgres::from_url(&self.0)?;
        backend.connect(&Target::new(&self.0, Access::ReadWrite, None)).await
    }

    async fn check(&self, connection: &mut Self::Connection) -> resonant_db::Result<()> {
        connection.ping().await
    }

    fn verdict(&self, connection: &mut Self::Connection) -> Verdict {
        (**connection).verdict()
    }
}
