//! Databases of a test's own, in tens of milliseconds: copies of a template on one server that the whole process shares, or on
//! the server that `RESONANT_TEST_PG` names.

mod host;
mod named;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use self::host::Host;
use super::PgRow;
use super::session::first_value;
use crate::error::{Error, ErrorKind, Result};

/// The door to databases for single tests.
#[derive(Debug)]
#[non_exhaustive]
pub struct Postgres;

impl Postgres {
    /// A fresh database. Await it as it is for an empty one, or give it a [`schema`](TempBuilder::schema) first.
    ///
    /// It is on a server that this process starts once and shares (about a second), or on the one that the environment
    /// variable `RESONANT_TEST_PG` names (a `postgresql://` URL of a role that may create databases; only `psql` is needed on
    /// this machine then). Nothing is left there either when the process ends or is killed.
    ///
    /// # Errors
    /// Awaiting it: `MissingBinary`, `Exited`, `TimedOut` when the server does not start, `Config` for a bad
    /// `RESONANT_TEST_PG`, `Rejected` when the schema or the creation is refused.
    ///
    /// ```no_run
    /// # async fn example() -> resonant_testkit::Result<()> {
    /// let db = resonant_testkit::Postgres::temp().await?;
    /// db.sql("CREATE TABLE t (id int)").await?;
    /// assert_eq!(db.value("SELECT count(*) FROM t").await?, "0");
    /// # Ok(()) }
    /// ```
    pub fn temp() -> TempBuilder {
        TempBuilder::default()
    }
}

/// What [`Postgres::temp`] returns; awaiting it makes the database.
#[derive(Clone, Debug, Default)]
pub struct TempBuilder {
    schema: Option<String>,
}

impl TempBuilder {
    /// Statements that every such database starts with. They run once per process, in a template that is copied from then on.
    pub fn schema(mut self, sql: impl Into<String>) -> Self {
        self.schema = Some(sql.into());
        self
    }
}

impl IntoFuture for TempBuilder {
    type Output = Result<TempDatabase>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.schema {
                None => Host::shared().await?.create("template1").await,
                Some(schema) => schema_template(schema).await?.database().await,
            }
        })
    }
}

/// A database that others are copied from, for what a string of SQL cannot prepare, such as a migration tool.
///
/// ```no_run
/// # async fn migrate(url: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example() -> resonant_testkit::Result<()> {
/// use resonant_testkit::Template;
/// use tokio::sync::OnceCell;
///
/// static TEMPLATE: OnceCell<Template> = OnceCell::const_new();
/// let template = TEMPLATE.get_or_try_init(|| Template::prepare(|url| async move { migrate(&url).await })).await?;
/// let db = template.database().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Template {
    database: TempDatabase,
}

impl Template {
    /// Makes an empty database, lets `prepare` fill it through its URL, and closes it to everybody.
    ///
    /// # Errors
    /// Those of [`Postgres::temp`], and `Rejected` with the cause when `prepare` fails.
    pub async fn prepare<F, Fut, E>(prepare: F) -> Result<Self>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let database = Host::shared().await?.create("template1").await?;
        prepare(database.url()).await.map_err(|e| {
            Error::new(ErrorKind::Rejected, "preparing a template database failed").caused_by(e)
        })?;
        database.host.seal(&database.name).await?;
        Ok(Self { database })
    }

    /// A fresh copy.
    ///
    /// # Errors
    /// `Rejected` when the server refuses, `Lost` when it is gone.
    pub async fn database(&self) -> Result<TempDatabase> {
        self.database.host.create(&self.database.name).await
    }
}

/// A database of its own for one test, dropped with its sessions when this value is dropped.
#[derive(Debug)]
pub struct TempDatabase {
    host: Arc<Host>,
    name: String,
}

impl TempDatabase {
    /// A URL for the code under test. On the kit's own server it is a superuser's, without a password.
    pub fn url(&self) -> String {
        self.host.url(&self.name)
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements and returns the rows of all of them.
    ///
    /// # Errors
    /// `Rejected` when the server refuses one, `Lost` when it is gone.
    pub async fn sql(&self, sql: &str) -> Result<Vec<PgRow>> {
        self.host.sql(&self.name, sql).await
    }

    /// The first value of the first row, as text.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql), and `Rejected` when there is no value.
    pub async fn value(&self, sql: &str) -> Result<String> {
        first_value(&self.sql(sql).await?, &self.name, sql)
    }
}

impl Drop for TempDatabase {
    fn drop(&mut self) {
        Host::drop_database(&self.host, &self.name);
    }
}

/// The template of a schema, prepared once however many tests ask at the same time.
async fn schema_template(schema: String) -> Result<Arc<Template>> {
    type Slot = Arc<OnceCell<Arc<Template>>>;
    static TEMPLATES: Mutex<Option<HashMap<u64, Slot>>> = Mutex::new(None);
    let mut hasher = DefaultHasher::new();
    schema.hash(&mut hasher);
    let slot = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(templates.get_or_insert_default().entry(hasher.finish()).or_default())
    };
    let prepare = async || {
        let database = Host::shared().await?.create("template1").await?;
        database.sql(&schema).await?;
        database.host.seal(&database.name).await?;
        Ok::<_, Error>(Arc::new(Template { database }))
    };
    slot.get_or_try_init(prepare).await.cloned()
}
