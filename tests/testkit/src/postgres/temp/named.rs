//! A server that somebody else runs, named by `RESONANT_TEST_PG`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::{Mutex, PoisonError};

use super::PgRow;
use crate::binaries::{Engine, Servers};
use crate::dirs;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Launch, run_tool};
use crate::url::decode;
use crate::wait::ANSWER;

/// Names another server to make the databases on.
pub(super) const VARIABLE: &str = "RESONANT_TEST_PG";

/// Between the columns and between the rows of what psql prints, and for NULL: characters that no test data has.
const COLUMN: char = '\u{1f}';
const ROW: char = '\u{1e}';
const NULL: char = '\u{1d}';

/// `sh -c SCRIPT sh PREFIX PSQL…`: when standard input ends, drops the databases whose names start with the prefix.
const LEAVE_NOTHING: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
prefix=$1
shift
printf '%s\n' "SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', datname) FROM pg_database
    WHERE starts_with(datname, '$prefix') \\gexec" | "$@"
"#;

/// A server that somebody else runs. It is asked with `psql`, which knows every way to log in.
pub(super) struct Named {
    /// Up to the database's name, the password left out.
    before: String,
    password: Option<String>,
    /// The URL up to the database's name as it was given, for the code under test.
    given: String,
    pub(super) database: String,
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
    pub(super) fn parse(url: &str) -> Result<Self> {
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

    pub(super) fn url(&self, database: &str) -> String {
        format!("{}{database}{}", self.given, self.after)
    }

    pub(super) async fn sql(&self, database: &str, sql: &str) -> Result<Vec<PgRow>> {
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

    /// Starts a shell that waits for the end of this process, in whatever way it ends, and then drops the databases whose names
    /// start so. Statics are never dropped, and a killed process drops nothing.
    pub(super) fn leave_nothing(&self, prefix: &str) -> Result<()> {
        static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);
        let psql = self.client()?.args(["-v", "ON_ERROR_STOP=0"]);
        let mut command = Launch::new("the shell that drops databases", "/bin/sh", Path::new("/"))
            .args(["-c", LEAVE_NOTHING, "sh"])
            .arg(prefix)
            .then(&psql)
            .untied_command()?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child =
            command.spawn().map_err(|e| Error::io("starting the shell that drops databases", e))?;
        *PIPE.lock().unwrap_or_else(PoisonError::into_inner) = child.stdin.take();
        Ok(())
    }

    fn psql(&self, database: &str, sql: &str) -> Result<Launch> {
        Ok(self
            .client_of(database)?
            .args(["-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"])
            .args(["-F", &COLUMN.to_string(), "-R", &ROW.to_string()])
            .args(["-P", &format!("null={NULL}"), "-c"])
            .arg(sql))
    }

    fn client(&self) -> Result<Launch> {
        self.client_of(&self.database)
    }

    /// `psql`, logged in. The client alone will do: where the databases are elsewhere, no server need be installed here.
    fn client_of(&self, database: &str) -> Result<Launch> {
        let servers = Servers::from_env();
        let psql = match servers.find(Engine::PostgreSql) {
            Ok(folder) => folder.join("psql"),
            Err(_) => servers.program("psql", "postgresql-client", "libpq")?,
        };
        let launch = Launch::new("psql", psql, dirs::run_dir()?)
            .args(["-X", "-q", "-A", "-t", "-d"])
            .arg(format!("{}{database}{}", self.before, self.after));
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
