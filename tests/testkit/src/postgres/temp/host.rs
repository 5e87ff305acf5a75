//! The server the databases are on: ours, or one that somebody else runs.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::OnceCell;

use super::{PgRow, TempDatabase};
use crate::background;
use crate::binaries::{Engine, Servers};
use crate::dirs;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{PgNode, PostgresCluster};
use crate::process::{Launch, run_tool};
use crate::wait::{ANSWER, Wait};

/// Names another server to make the databases on.
const VARIABLE: &str = "RESONANT_TEST_PG";

/// Databases of processes that were killed are dropped after this long.
const ABANDONED_AFTER_SECONDS: u32 = 6 * 3600;

/// Between the columns and between the rows of what psql prints, and for NULL: characters that no test data has.
const COLUMN: char = '\u{1f}';
const ROW: char = '\u{1e}';
const NULL: char = '\u{1d}';

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
        if let Server::Named(_) = host.server {
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

    /// Drops a database. On a server of our own that is done behind the test's back, as the server ends with the process
    /// anyway; elsewhere it is waited for, because nobody else would do it.
    pub(super) fn drop_database(this: &Arc<Self>, name: &str) {
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        match &this.server {
            Server::Own(_) => {
                let host = Arc::clone(this);
                if let Ok(runtime) = background::handle() {
                    runtime.spawn(async move { host.sql(host.admin(), &sql).await });
                }
            }
            Server::Named(named) => {
                let dropped =
                    named.psql(this.admin(), &sql).and_then(|launch| launch.base_command());
                if let Ok(mut command) = dropped {
                    let _ = command
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .status();
                }
            }
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

/// A server that somebody else runs. It is asked with `psql`, which knows every way to log in.
struct Named {
    /// Up to the database's name, the password left out.
    before: String,
    password: Option<String>,
    /// The URL up to the database's name as it was given, for the code under test.
    given: String,
    database: String,
    after: String,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Named")
            .field("url", &format!("{}{}", self.before, self.database))
            .finish_non_exhaustive()
    }
}

impl Named {
    fn parse(url: &str) -> Result<Self> {
        let bad = || {
            let message = format!(
                "{VARIABLE} must be a URL like postgresql://user:password@host:5432/database"
            );
            Error::new(ErrorKind::Config, message)
        };
        let rest = url
            .strip_prefix("postgresql://")
            .or_else(|| url.strip_prefix("postgres://"))
            .ok_or_else(bad)?;
        let (rest, after) = match rest.split_once('?') {
            Some((rest, parameters)) => (rest, format!("?{parameters}")),
            None => (rest, String::new()),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { "postgres" } else { database };
        let (login, host) = authority.rsplit_once('@').ok_or_else(bad)?;
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decode(password))),
            None => (login, None),
        };
        Ok(Self {
            before: format!("postgresql://{user}@{host}/"),
            password,
            given: format!("postgresql://{authority}/"),
            database: database.to_owned(),
            after,
        })
    }

    fn url(&self, database: &str) -> String {
        format!("{}{database}{}", self.given, self.after)
    }

    async fn sql(&self, database: &str, sql: &str) -> Result<Vec<PgRow>> {
        let printed = match run_tool(self.psql(database, sql)?, ANSWER).await {
            Ok(printed) => printed,
            Err(error) if error.kind() == ErrorKind::Exited => return Err(complaint(&error)),
            Err(error) => return Err(error),
        };
        // The last row is concluded by a line feed of its own.
        let Some(printed) = printed.strip_suffix('\n') else { return Ok(Vec::new()) };
        let value = |value: &str| (value != NULL.to_string()).then(|| value.to_owned());
        Ok(printed
            .split(ROW)
            .map(|row| PgRow::new(row.split(COLUMN).map(value).collect()))
            .collect())
    }

    fn psql(&self, database: &str, sql: &str) -> Result<Launch> {
        let psql = Servers::from_env().find(Engine::PostgreSql)?.join("psql");
        let launch = Launch::new("psql", psql, dirs::run_dir()?)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"])
            .args([
                "-F",
                &COLUMN.to_string(),
                "-R",
                &ROW.to_string(),
                "-P",
                &format!("null={NULL}"),
            ])
            .arg("-d")
            .arg(format!("{}{database}{}", self.before, self.after))
            .arg("-c")
            .arg(sql);
        Ok(match &self.password {
            Some(password) => launch.env("PGPASSWORD", password),
            None => launch,
        })
    }
}

/// psql's `ERROR:  42P04: database "x" already exists` as an error with its code.
fn complaint(error: &Error) -> Error {
    let log = error.log().unwrap_or_default();
    let line = log
        .lines()
        .find_map(|line| line.split_once("ERROR:  ").or_else(|| line.split_once("FATAL:  ")));
    match line.and_then(|(_, rest)| rest.split_once(": ")) {
        Some((code, message)) if code.len() == 5 => {
            Error::new(ErrorKind::Rejected, format!("{VARIABLE}: {message}")).with_code(code)
        }
        _ => Error::new(ErrorKind::Lost, format!("the server of {VARIABLE} does not answer"))
            .with_log(log),
    }
}

/// Undoes the percent signs of a URL.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_leaves_the_url_that_is_seen_in_the_process_list() {
        let named =
            Named::parse("postgres://ada:p%40ss@db.example:5433/app?sslmode=require").unwrap();
        assert_eq!(named.password.as_deref(), Some("p@ss"));
        assert_eq!(named.before, "postgresql://ada@db.example:5433/");
        assert_eq!(named.url("x"), "postgresql://ada:p%40ss@db.example:5433/x?sslmode=require");
        assert!(!format!("{named:?}").contains("p%40ss"));
    }

    #[test]
    fn a_url_of_another_kind_is_refused_by_the_name_of_the_variable() {
        let error = Named::parse("host=db user=ada").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(VARIABLE), "{error}");
    }
}
