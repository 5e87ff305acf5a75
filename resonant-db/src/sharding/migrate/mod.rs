//! Migrations of all shards: checked everywhere before anything is changed, tried on one shard first, and taken up again
//! where a run was stopped.

mod files;
mod ledger;
mod report;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use self::files::Migration;
pub use self::files::Migrations;
use self::ledger::{Ledger, Line, Way};
pub use self::report::{Drift, MigrationEvent, MigrationReport, ShardMigrations};
use super::database::ShardedDatabase;
use crate::{Error, ErrorKind, Result};

const OPERATION: &str = "migrate";

type Listener = Arc<dyn Fn(MigrationEvent<'_>) + Send + Sync>;

/// Sqlx's name for it.
const TABLE: &str = "_sqlx_migrations";

/// Brings the schema of all shards to the state of a set of files; made by [`ShardedDatabase::migrator`].
///
/// | setting | default | |
/// |---|---|---|
/// | [`parallel`](Migrator::parallel) | 4 | shards that are migrated at the same time, after the first one |
/// | [`lock_timeout`](Migrator::lock_timeout) | 5 s | how long a statement waits for the lock of a table before it gives way and tries again |
/// | [`attempts`](Migrator::attempts) | 5 | how often a version is tried when it has to give way |
/// | [`patience`](Migrator::patience) | 60 s | how long another runner on the same shard is waited for |
/// | [`table`](Migrator::table) | `_sqlx_migrations` | the ledger; by default sqlx's own |
/// | [`on_event`](Migrator::on_event) | none | hears what happens as it happens |
///
/// A run first reads the ledgers of all shards. Does one contradict the files, or cannot be read, nothing is changed
/// anywhere. Then the first shard is migrated alone; when that fails the others are left as they were. Then the others,
/// several at a time; one that fails does not stop them. Calling it again goes on where it stopped.
///
/// Each version is applied together with its line in the ledger, in one transaction, under an advisory lock, so that several
/// programs may run it at once, sqlx among them. Only scripts that begin with `-- no-transaction` have a moment between both:
/// they should bear to be run twice. An index that such a script left unfinished is dropped before it runs again.
///
/// # Cancel safety
///
/// A dropped run leaves each shard with the versions that were applied, and may be called again.
#[must_use = "a migrator does nothing until it is run"]
pub struct Migrator<'m> {
    database: &'m ShardedDatabase,
    migrations: &'m Migrations,
    parallel: usize,
    ledger: Ledger,
    listener: Option<Listener>,
}

impl ShardedDatabase {
    /// Prepares to bring all shards to the state of a set of files.
    ///
    /// ```no_run
    /// # async fn example(db: resonant_db::ShardedDatabase) -> resonant_db::Result<()> {
    /// use resonant_db::sharding::Migrations;
    /// let migrations = Migrations::from_dir("migrations")?;
    /// let report = db.migrator(&migrations).on_event(|event| println!("{event:?}")).run().await?;
    /// println!("{report}");
    /// # Ok(()) }
    /// ```
    pub fn migrator<'m>(&'m self, migrations: &'m Migrations) -> Migrator<'m> {
        let ledger = Ledger {
            table: TABLE.to_owned(),
            engine: self.inner.router.engine(),
            lock_timeout: Duration::from_secs(5),
            attempts: 5,
            patience: Duration::from_secs(60),
        };
        Migrator { database: self, migrations, parallel: 4, ledger, listener: None }
    }
}

impl Migrator<'_> {
    /// How many shards are migrated at the same time, after the first one. At least 1.
    pub fn parallel(mut self, shards: usize) -> Self {
        self.parallel = shards.max(1);
        self
    }

    /// How long a statement waits for the lock of a table: whoever comes behind it waits as long.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.ledger.lock_timeout = limit;
        self
    }

    /// How often a version is tried when it could not get a lock.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.ledger.attempts = attempts.max(1);
        self
    }

    /// How long another runner on the same shard is waited for.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.ledger.patience = limit;
        self
    }

    /// The ledger's name, with its schema if it has one.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.ledger.table = name.into();
        self
    }

    /// Calls `listener` with what happens, as it happens. It must not block.
    pub fn on_event(
        mut self,
        listener: impl Fn(MigrationEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// What each shard has, lacks and contradicts; nothing is changed. A shard that cannot be asked has an
    /// [`error`](ShardMigrations::error).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a ledger with an impossible name.
    pub async fn status(&self) -> Result<MigrationReport> {
        self.check_table()?;
        let shards = self.database.inner.shards.iter();
        let asked = shards.map(async |shard| {
            let read = shard.run(OPERATION, self.ledger.read(&shard.database)).await;
            let mut state = ShardMigrations {
                name: shard.name.clone(),
                version: None,
                done: Vec::new(),
                pending: Vec::new(),
                drift: Vec::new(),
                error: None,
            };
            match read {
                Ok(lines) => self.compared(&lines, &mut state),
                Err(error) => state.error = Some(error),
            }
            state
        });
        Ok(MigrationReport { shards: futures::future::join_all(asked).await })
    }

    /// Applies on every shard what it lacks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] while buckets are moved, where there is a live map.
    /// [`ErrorKind::Config`] when a shard contradicts the files: nothing was changed. The first shard's error when one cannot
    /// be read, nothing was changed either, or failed: the message says how far each shard has come, and calling it again goes
    /// on from there.
    pub async fn run(&self) -> Result<MigrationReport> {
        self.walk(None).await
    }

    /// Takes back on every shard what it has above a version, newest first, by the `.down.sql` files.
    ///
    /// # Errors
    ///
    /// As [`run`](Migrator::run); [`ErrorKind::Config`] for a version without a `.down.sql`.
    pub async fn revert_to(&self, version: i64) -> Result<MigrationReport> {
        self.walk(Some(version)).await
    }

    /// What a shard lacks; or what it has above a version, newest first.
    fn plan<'p>(&'p self, state: &ShardMigrations, down_to: Option<i64>) -> Vec<&'p Migration> {
        let all = self.migrations.all.iter();
        let lacks = |migration: &Migration| state.pending.contains(&migration.version);
        match down_to {
            None => all.filter(|migration| lacks(migration)).collect(),
            Some(version) => all
                .rev()
                .filter(|migration| migration.version > version && !lacks(migration))
                .collect(),
        }
    }

    async fn walk(&self, down_to: Option<i64>) -> Result<MigrationReport> {
        self.database.at_rest(OPERATION).await?;
        let way = if down_to.is_some() { Way::Down } else { Way::Up };
        let mut report = self.status().await?;
        if report.shards.iter().any(|shard| shard.error.is_some() || !shard.drift.is_empty()) {
            return Err(self.stopped("nothing was changed", &report));
        }
        let plan: Vec<_> = report.shards.iter().map(|state| self.plan(state, down_to)).collect();
        let mut work = report.shards.iter_mut().zip(plan).zip(0_u32..);
        let mut whole = true;
        if let Some(((state, plan), at)) = work.next() {
            whole = self.shard(at, state, plan, way).await;
        }
        if whole {
            let mut others = Vec::new();
            for ((state, plan), at) in work {
                others.push(self.shard(at, state, plan, way));
            }
            let done: Vec<bool> =
                stream::iter(others).buffer_unordered(self.parallel).collect().await;
            whole = done.into_iter().all(|whole| whole);
        }
        if whole { Ok(report) } else { Err(self.stopped("call it again to go on", &report)) }
    }

    /// Brings one shard up or down; whether all went well.
    async fn shard(
        &self,
        at: u32,
        state: &mut ShardMigrations,
        plan: Vec<&Migration>,
        way: Way,
    ) -> bool {
        let shard = self.database.at(at);
        for migration in plan {
            let Migration { version, description, .. } = migration;
            let name = shard.name.as_str();
            self.tell(MigrationEvent::Started { shard: name, version: *version, description });
            let step = self.ledger.step(&shard.database, migration, way);
            match shard.change(OPERATION, step).await {
                Ok(took) => {
                    let took_now = took.unwrap_or_default();
                    self.tell(MigrationEvent::Finished {
                        shard: name,
                        version: *version,
                        took: took_now,
                    });
                    state.done.extend(took.map(|took| (*version, took)));
                    match way {
                        Way::Up => {
                            state.pending.retain(|pending| pending != version);
                            state.version = state.version.max(Some(*version));
                        }
                        Way::Down => {
                            state.pending.push(*version);
                            state.pending.sort_unstable();
                            let left = self.migrations.versions();
                            state.version = left.filter(|left| !state.pending.contains(left)).max();
                        }
                    }
                }
                Err(error) => {
                    let version = Some(*version);
                    self.tell(MigrationEvent::Failed { shard: name, version, error: &error });
                    state.error = Some(error);
                    return false;
                }
            }
        }
        true
    }

    fn tell(&self, event: MigrationEvent<'_>) {
        if let Some(listener) = &self.listener {
            listener(event);
        }
    }

    fn compared(&self, lines: &[Line], state: &mut ShardMigrations) {
        for line in lines {
            let file = self.migrations.all.iter().find(|file| file.version == line.version);
            let hex = |bytes: &[u8]| -> String {
                bytes.iter().map(|byte| format!("{byte:02x}")).collect()
            };
            match file {
                _ if !line.success => state.drift.push(Drift::Dirty(line.version)),
                None => state.drift.push(Drift::Unknown(line.version)),
                Some(file) if hex(&file.checksum) != line.checksum => {
                    state.drift.push(Drift::Changed(line.version));
                }
                Some(_) => {}
            }
        }
        state.version = lines.iter().map(|line| line.version).max();
        let lacks = |version: &i64| !lines.iter().any(|line| line.version == *version);
        state.pending = self.migrations.versions().filter(lacks).collect();
    }

    fn stopped(&self, then: &str, report: &MigrationReport) -> Error {
        let lines = report.to_string().replace('\n', "; ");
        let message = format!("not all shards have every version; {then}: {lines}");
        let first = report.shards.iter().find_map(|shard| shard.error.clone());
        match first {
            Some(first) => Error::new(first.kind(), OPERATION, message).with_source(first),
            None => Error::new(ErrorKind::Config, OPERATION, message),
        }
    }

    fn check_table(&self) -> Result<()> {
        let plain = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let table = &self.ledger.table;
        if table.split('.').count() <= 2 && table.split('.').all(plain) {
            return Ok(());
        }
        let message = format!("{table:?} is no plain name of a table in lower case");
        Err(Error::new(ErrorKind::Config, OPERATION, message))
    }
}

impl fmt::Debug for Migrator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrator")
            .field("migrations", &self.migrations.all.len())
            .field("parallel", &self.parallel)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}
