//! A directory of migrations, in sqlx's format.

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha384};

use crate::{Error, ErrorKind, Result};

/// A set of migrations in the order of their versions, from a directory in the format of sqlx, so that both can share it.
///
/// - `<version>_<description>.sql`, or `<version>_<description>.up.sql` with a `.down.sql` of the same version that takes it
///   back. The version is a whole number; other files are left alone, as sqlx does.
/// - A file that begins with `-- no-transaction` runs outside a transaction, for what cannot be in one, such as
///   `CREATE INDEX CONCURRENTLY`: write a single statement that may be run again.
/// - What was applied is remembered with the SHA-384 of the file; a file that is changed afterwards is told.
///
/// ```
/// use resonant_db::sharding::Migrations;
/// let migrations = Migrations::from_files([
///     ("0001_agents.sql", "CREATE TABLE agents (org_id text NOT NULL, name text)"),
///     ("0002_index.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS by_org ON agents (org_id)"),
/// ])?;
/// assert_eq!(migrations.versions().collect::<Vec<_>>(), [1, 2]);
/// # Ok::<(), resonant_db::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Migrations {
    pub(super) all: Vec<Migration>,
}

/// One migration.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Migration {
    pub(super) version: i64,
    pub(super) description: String,
    pub(super) up: Script,
    pub(super) down: Option<Script>,
    /// Of the file that applies it.
    pub(super) checksum: Vec<u8>,
}

/// What a file has to be run.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) sql: String,
    pub(super) no_transaction: bool,
}

const OPERATION: &str = "migrate";

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}

impl Migrations {
    /// Reads a directory, at once and blocking: call it at the start of a program.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the directory cannot be read, a file's name begins with no version, two files are of one
    /// version, or a `.down.sql` has no `.up.sql`.
    pub fn from_dir(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let failed = |error: std::io::Error| {
            let message = format!("the migrations in {} cannot be read", directory.display());
            refused(message).with_source(error)
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Links are followed.
            let is_file = std::fs::metadata(entry.path()).map_err(failed)?.is_file();
            if is_file && name.contains('_') && name.ends_with(".sql") {
                files.push((name, std::fs::read_to_string(entry.path()).map_err(failed)?));
            }
        }
        Self::from_files(files)
    }

    /// Takes files by name and content, such as those of `include_str!`.
    ///
    /// # Errors
    ///
    /// As [`from_dir`](Migrations::from_dir).
    pub fn from_files<N, S>(files: impl IntoIterator<Item = (N, S)>) -> Result<Self>
    where
        N: AsRef<str>,
        S: Into<String>,
    {
        let mut all: Vec<Migration> = Vec::new();
        let mut downs: Vec<(i64, Script)> = Vec::new();
        for (name, sql) in files {
            let name = name.as_ref();
            let Some((version, rest)) = name.split_once('_').filter(|_| name.ends_with(".sql"))
            else {
                continue;
            };
            let version: i64 = version.parse().map_err(|_| {
                refused(format!(
                    "the migration {name:?} begins with no version: call it 0001_name.sql"
                ))
            })?;
            let sql: String = sql.into();
            let checksum = Sha384::digest(sql.as_bytes()).to_vec();
            let script = Script { no_transaction: sql.starts_with("-- no-transaction"), sql };
            if rest.ends_with(".down.sql") {
                downs.push((version, script));
                continue;
            }
            let suffix = if rest.ends_with(".up.sql") { ".up.sql" } else { ".sql" };
            let description = rest.trim_end_matches(suffix).replace('_', " ");
            if all.iter().any(|other| other.version == version) {
                return Err(refused(format!("two migrations are of the version {version}")));
            }
            all.push(Migration { version, description, up: script, down: None, checksum });
        }
        for (version, script) in downs {
            match all.iter_mut().find(|migration| migration.version == version) {
                Some(migration) if migration.down.is_none() => migration.down = Some(script),
                Some(_) => {
                    return Err(refused(format!("two files take back the version {version}")));
                }
                None => {
                    let message = format!("the version {version} has a .down.sql and no .up.sql");
                    return Err(refused(message));
                }
            }
        }
        all.sort_by_key(|migration| migration.version);
        Ok(Self { all })
    }

    /// The versions, in ascending order.
    pub fn versions(&self) -> impl ExactSizeIterator<Item = i64> {
        self.all.iter().map(|migration| migration.version)
    }
}

/// Without the statements, which may be long.
impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_sqlx_reads_them() {
        let set = Migrations::from_files([
            ("20240102_second_one.up.sql", "SELECT 2"),
            ("20240102_second_one.down.sql", "SELECT -2"),
            ("0001_first.sql", "-- no-transaction\nSELECT 1"),
            ("readme.md", "nothing"),
            ("notes_1.txt", "nothing"),
        ])
        .expect("a set");
        assert_eq!(set.versions().collect::<Vec<_>>(), [1, 20_240_102]);
        let [first, second] = set.all.as_slice() else { panic!("{set:?}") };
        assert!(first.up.no_transaction && first.down.is_none());
        assert_eq!(second.description, "second one");
        assert_eq!(second.down.as_ref().map(|down| down.sql.as_str()), Some("SELECT -2"));
        // SHA-384 of "SELECT 2", as `sha384sum` has it.
        let hex: String = second.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.len(), 96);
        assert_eq!(second.checksum, Sha384::digest("SELECT 2").to_vec());
        for files in [
            &[("one_first.sql", "")][..],
            &[("1_a.sql", ""), ("01_b.sql", "")],
            &[("1_a.down.sql", "")],
        ] {
            let error = Migrations::from_files(files.iter().copied()).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
