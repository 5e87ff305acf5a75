//! Which programs are run, where they are looked for, and which package brings them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The engines the kit starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// nginx.
    Nginx,
    /// PgBouncer, a connection pooler in front of PostgreSQL.
    PgBouncer,
    /// PostgreSQL, 13 or later.
    PostgreSql,
    /// RabbitMQ, 3.10 or later.
    RabbitMq,
    /// Redis, 7.0 or later; Valkey where it carries the same program names.
    Redis,
}

/// What to install for an engine, as data for scripts and for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// The engine it brings.
    pub engine: Engine,
    /// Programs that must be there; the first finds the folder of the others.
    pub binaries: &'static [&'static str],
    /// The package of Debian and Ubuntu.
    pub apt: &'static str,
    /// The formula of Homebrew.
    pub brew: &'static str,
    /// Folders to look in before `PATH`, below a root; `*` stands for a version, the highest is taken.
    folders: &'static [&'static str],
}

/// All packages the kit can ask for. `openssl` and `setpriv` (util-linux) come with the system.
pub const PACKAGES: &[Package] = &[
    Package {
        engine: Engine::PostgreSql,
        binaries: &["postgres", "initdb", "pg_basebackup", "pg_rewind", "psql"],
        apt: "postgresql",
        brew: "postgresql@17",
        folders: &[
            "usr/lib/postgresql/*/bin",
            "usr/pgsql-*/bin",
            "opt/homebrew/opt/postgresql@*/bin",
            "usr/local/opt/postgresql@*/bin",
        ],
    },
    Package {
        engine: Engine::Redis,
        binaries: &["redis-server"],
        apt: "redis-server",
        brew: "redis",
        folders: &[],
    },
    Package {
        engine: Engine::RabbitMq,
        binaries: &["rabbitmq-server"],
        apt: "rabbitmq-server",
        brew: "rabbitmq",
        // Not the wrapper in PATH, which switches accounts and writes into the system's log folder.
        folders: &[
            "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
            "opt/homebrew/opt/rabbitmq/sbin",
            "usr/local/opt/rabbitmq/sbin",
        ],
    },
    Package {
        engine: Engine::PgBouncer,
        binaries: &["pgbouncer"],
        apt: "pgbouncer",
        brew: "pgbouncer",
        folders: &[],
    },
    Package {
        engine: Engine::Nginx,
        binaries: &["nginx"],
        apt: "nginx",
        brew: "nginx",
        folders: &[],
    },
];

/// Folders below a root that hold programs in most layouts.
const COMMON: [&str; 8] = [
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "usr/local/bin",
    "usr/local/sbin",
    "opt/homebrew/bin",
    "opt/homebrew/sbin",
];

/// Where servers are taken from.
///
/// The default is the system, or the folder that `RESONANT_SERVERS_ROOT` names: a folder laid out like `/`, or with a folder
/// per engine (`postgresql/bin`, `redis/bin`, `rabbitmq/sbin`, …). With a root, an engine that is not in it is an error, not
/// quietly the system's: a test run says which versions it ran on.
///
/// ```no_run
/// # async fn example() -> resonant_testkit::Result<()> {
/// use resonant_testkit::{PostgresCluster, Servers};
///
/// let old = PostgresCluster::builder().servers(Servers::at("/opt/engines/2023")).start().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    root: Option<PathBuf>,
}

impl Servers {
    /// The system's servers, whatever the environment says.
    pub fn system() -> Self {
        Self { root: None }
    }

    /// The servers below a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: Some(root.into()) }
    }

    /// What `RESONANT_SERVERS_ROOT` names, else the system's. Every builder starts with this.
    pub fn from_env() -> Self {
        Self {
            root: env::var_os("RESONANT_SERVERS_ROOT")
                .filter(|root| !root.is_empty())
                .map(PathBuf::from),
        }
    }

    /// The folder of an engine's programs.
    ///
    /// # Errors
    /// `MissingBinary`, naming the program that is missing and the package that brings it.
    pub fn find(&self, engine: Engine) -> Result<PathBuf> {
        let package = engine.package();
        let missing = |binary: &str| {
            let place = match &self.root {
                Some(root) => format!("below {}", root.display()),
                None => "on this system".to_owned(),
            };
            Error::new(
                ErrorKind::MissingBinary,
                format!(
                    "`{binary}` was not found {place}; it comes with the package `{}` (apt-get install {}) or the \
                     formula `{}` (brew install {})",
                    package.apt, package.apt, package.brew, package.brew
                ),
            )
        };
        let first = package.binaries[0];
        let found: Vec<PathBuf> =
            self.folders(package).into_iter().filter(|dir| dir.join(first).is_file()).collect();
        if found.is_empty() {
            return Err(missing(first));
        }
        let lacking =
            |dir: &Path| package.binaries.iter().find(|binary| !dir.join(binary).is_file());
        match found.iter().find(|dir| lacking(dir).is_none()) {
            Some(dir) => Ok(dir.clone()),
            None => Err(missing(lacking(&found[0]).unwrap_or(&first))),
        }
    }

    /// A single program that an engine needs beside its own, with the packages that bring it.
    pub(crate) fn program(&self, name: &str, apt: &str, brew: &str) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let root =
            self.root.iter().flat_map(|root| COMMON.iter().map(move |folder| root.join(folder)));
        let common = COMMON.iter().map(|folder| Path::new("/").join(folder));
        let mut places =
            root.chain(env::split_paths(&path)).chain(common).map(|folder| folder.join(name));
        places.find(|program| program.is_file()).ok_or_else(|| {
            let message = format!(
                "`{name}` was not found; it comes with the package `{apt}` (apt-get install {apt}) or the formula \
                 `{brew}` (brew install {brew})"
            );
            Error::new(ErrorKind::MissingBinary, message)
        })
    }

    fn folders(&self, package: &Package) -> Vec<PathBuf> {
        let root = self.root.clone().unwrap_or_else(|| PathBuf::from("/"));
        let mut folders: Vec<PathBuf> =
            package.folders.iter().flat_map(|pattern| expand(&root, pattern)).collect();
        if self.root.is_some() {
            let own = root.join(package.engine.folder());
            folders.extend([own.join("bin"), own.join("sbin"), own]);
            folders.extend(COMMON.iter().map(|folder| root.join(folder)));
        } else if package.engine != Engine::RabbitMq {
            // A link in PATH may lead to the folder where the siblings are.
            let path = env::var_os("PATH").unwrap_or_default();
            let common = COMMON.iter().map(|folder| root.join(folder));
            for folder in env::split_paths(&path).chain(common) {
                let target = fs::canonicalize(folder.join(package.binaries[0])).ok();
                folders.extend(target.and_then(|target| Some(target.parent()?.to_owned())));
                folders.push(folder);
            }
        }
        folders
    }
}

impl Engine {
    fn package(self) -> &'static Package {
        // The table has a row for every engine; a test says so.
        PACKAGES.iter().find(|package| package.engine == self).unwrap_or(&PACKAGES[0])
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::PgBouncer => "pgbouncer",
            Self::PostgreSql => "postgresql",
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
        }
    }
}

/// Folders that match a pattern with at most one `*`, highest version first.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![root.join(pattern)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let after = after.trim_start_matches('/');
    let Ok(entries) = fs::read_dir(root.join(parent)) else { return Vec::new() };
    let mut matches: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            Some((
                version.split('.').map(|part| part.parse().unwrap_or(0)).collect(),
                entry.path().join(after),
            ))
        })
        .collect();
    matches.sort_by(|a, b| b.0.cmp(&a.0));
    matches.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_its_row() {
        for engine in
            [Engine::Nginx, Engine::PgBouncer, Engine::PostgreSql, Engine::RabbitMq, Engine::Redis]
        {
            assert_eq!(engine.package().engine, engine);
        }
    }

    #[test]
    fn the_highest_version_below_a_root_is_taken_by_number_not_by_letter() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "16"] {
            let bin = root.path().join("usr/lib/postgresql").join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for binary in ["postgres", "initdb", "pg_basebackup", "pg_rewind", "psql"] {
                if version != "16" || binary != "initdb" {
                    fs::write(bin.join(binary), "").unwrap();
                }
            }
        }
        // 16 lacks initdb, so 15 is the highest whole one.
        let found = Servers::at(root.path()).find(Engine::PostgreSql).unwrap();
        assert_eq!(found, root.path().join("usr/lib/postgresql/15/bin"));
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let empty = tempfile::tempdir().unwrap();
        let error = Servers::at(empty.path()).find(Engine::RabbitMq).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingBinary);
        let message = error.to_string();
        assert!(message.contains("`rabbitmq-server` was not found"), "{message}");
        assert!(message.contains("apt-get install rabbitmq-server"), "{message}");
        assert!(message.contains(&empty.path().display().to_string()), "{message}");
    }

    #[test]
    fn an_engine_that_is_only_half_installed_names_the_missing_half() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("postgresql/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("postgres"), "").unwrap();
        let error = Servers::at(root.path()).find(Engine::PostgreSql).unwrap_err();
        assert!(error.to_string().starts_with("`initdb` was not found"), "{error}");
    }
}
