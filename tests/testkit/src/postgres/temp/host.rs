//! The server the databases are on: ours, or one that somebody else runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use super::named::{Named, VARIABLE};
use super::{PgRow, TempDatabase};
use crate::background;
use crate::error::Result;
use crate::postgres::{PgNode, PostgresCluster};
use crate::wait::{ANSWER, Wait};

/// Databases that nobody dropped, because the shell that should have was killed too, are dropped after this long.
const ABANDONED_AFTER_SECONDS: u32 = 6 * 3600;

#[derive(Debug)]
pub(super) struct Host {
    server: Server,
    /// `rk_SECONDS_PID_`, the seconds by the server's clock: what all names start with.
    prefix: String,
    next: AtomicU64,
}

#[derive(Debug)]
enum Server {
    Own(PgNode),
    Named(Named),
}

impl Host {
    /// The one of this process.
    pub(super) async fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceCell<Arc<Host>> = OnceCell::const_new();
        SHARED.get_or_try_init(|| async { Self::open().await.map(Arc::new) }).await.cloned()
    }

    async fn open() -> Result<Self> {
        let server = match std::env::var(VARIABLE) {
            Ok(url) if !url.is_empty() => Server::Named(Named::parse(&url)?),
            _ => {
                let cluster =
                    PostgresCluster::builder().setting("max_connections", "300").start().await?;
                Server::Own(cluster.primary())
            }
        };
        let mut host = Self { server, prefix: String::new(), next: AtomicU64::new(0) };
        let admin = host.admin().to_owned();
        let rows = host.sql(&admin, "SELECT extract(epoch FROM now())::bigint").await?;
        let now = super::first_value(&rows, VARIABLE, "the time")?;
        host.prefix = format!("rk_{now}_{}_", std::process::id());
        if let Server::Named(named) = &host.server {
            named.leave_nothing(&host.prefix)?;
            host.sweep().await;
        }
        Ok(host)
    }

    /// Makes a database as a copy of another.
    pub(super) async fn create(self: &Arc<Self>, template: &str) -> Result<TempDatabase> {
        let name = format!("{}{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
        let mut wait = Wait::new(format!("copying {template}"), ANSWER);
        loop {
            match self.sql(self.admin(), &sql).await {
                Ok(_) => return Ok(TempDatabase { host: Arc::clone(self), name }),
                // 55006: somebody, autovacuum perhaps, is in the template at this moment.
                Err(error) if error.code() == Some("55006") => wait.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes a database to everybody, so that it can be copied at any time.
    pub(super) async fn seal(&self, name: &str) -> Result<()> {
        self.sql(self.admin(), &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await?;
        let terminate = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        self.sql(self.admin(), &terminate).await?;
        Ok(())
    }

    pub(super) fn url(&self, database: &str) -> String {
        match &self.server {
            Server::Own(node) => node.url_for(database),
            Server::Named(named) => named.url(database),
        }
    }

    pub(super) async fn sql(&self, database: &str, sql: &str) -> Result<Vec<PgRow>> {
        match &self.server {
            Server::Own(node) => node.session_in(database).await?.sql(sql).await,
            Server::Named(named) => named.sql(database, sql).await,
        }
    }

    /// Drops a database behind the test's back. What a process does not get round to goes with our own server, or is done by the
    /// shell that [`Named::leave_nothing`] starts.
    pub(super) fn drop_database(this: &Arc<Self>, name: &str) {
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let host = Arc::clone(this);
        if let Ok(runtime) = background::handle() {
            runtime.spawn(async move { host.sql(host.admin(), &sql).await });
        }
    }

    /// The database that statements about databases are sent to.
    fn admin(&self) -> &str {
        match &self.server {
            Server::Own(_) => "postgres",
            Server::Named(named) => &named.database,
        }
    }

    /// Drops what killed processes left on a server that outlives us. Best effort.
    async fn sweep(&self) {
        let abandoned = format!(
            "SELECT datname FROM pg_database d WHERE datname ~ '^rk_[0-9]+_[0-9]+_[0-9]+$' \
             AND split_part(datname, '_', 2)::bigint < extract(epoch FROM now()) - {ABANDONED_AFTER_SECONDS} \
             AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)"
        );
        for row in self.sql(self.admin(), &abandoned).await.unwrap_or_default() {
            if let Some(name) = row.get(0) {
                let _ = self.sql(self.admin(), &format!("DROP DATABASE IF EXISTS {name}")).await;
            }
        }
    }
}
