//! The pledge of a server that is stopped, for agents.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::sql;
use crate::error::{Error, ErrorKind, Result};
use crate::region::{Pledge, PledgedTo, RegionTarget};

/// The pledge in the data folder of a server that does not run.
///
/// A [`PostgresAgent`](super::PostgresAgent) on the server's host uses it: it [takes](PledgeFile::take) the order's pledge
/// once the server has stopped, which fails where the server has pledged itself to somebody newer, and takes it again
/// after a rewind or a fresh copy, which brought the primary's files. [Reading](PledgeFile::read) works while the server
/// runs, too.
#[derive(Debug, Clone)]
pub struct PledgeFile {
    path: PathBuf,
}

impl PledgeFile {
    /// The pledge of the server with this data folder.
    pub fn new(data: impl AsRef<Path>) -> Self {
        Self { path: data.as_ref().join("postgresql.auto.conf") }
    }

    /// What the server has pledged itself to; epoch 0 where it has not, or where the file is missing.
    ///
    /// # Errors
    ///
    /// `Failed`: the file cannot be read.
    pub fn read(&self) -> Result<Pledge> {
        let text = self.text("read a pledge")?;
        let last = text.lines().rev().find_map(value);
        Ok(last.map(|text| sql::read_pledge(&text)).unwrap_or_default())
    }

    /// Pledges the server, unless it is pledged to somebody newer, and makes it receive from nobody should it be started as
    /// a standby. Durable when it returns; the file's owner stays.
    ///
    /// # Errors
    ///
    /// `Fenced`: it is pledged to somebody newer. `Failed`: the file cannot be written.
    pub fn take(&self, order: &Pledge) -> Result<()> {
        self.write(order, "")
    }

    /// The same for a server that has been rewound or copied: it receives from `primary` once it is started, which it has to
    /// before it lets anybody in. `standby_name` is its name in the others' `synchronous_standby_names`.
    ///
    /// # Errors
    ///
    /// As [`take`](PledgeFile::take).
    pub fn follow(&self, order: &Pledge, primary: &RegionTarget, standby_name: &str) -> Result<()> {
        self.write(order, &sql::conninfo(&primary.replication_url, standby_name))
    }

    fn write(&self, order: &Pledge, conninfo: &str) -> Result<()> {
        const OPERATION: &str = "take a pledge";
        let pledged = self.read()?;
        if !pledged.admits(order) {
            return Err(PledgedTo(pledged).refuse(OPERATION));
        }
        let text = self.text(OPERATION)?;
        let ours = |line: &&str| {
            ["event_source", "primary_conninfo"].iter().any(|name| sets(line, name).is_some())
        };
        let mut lines: Vec<&str> = text.lines().filter(|line| !ours(line)).collect();
        let line = format!("event_source = '{}'", escape(&sql::pledge_text(order)));
        let upstream = format!("primary_conninfo = '{}'", escape(conninfo));
        lines.extend([line.as_str(), &upstream]);
        self.replace(&(lines.join("\n") + "\n")).map_err(|error| self.failed(OPERATION, error))
    }

    fn text(&self, operation: &'static str) -> Result<String> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(self.failed(operation, error)),
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.path.with_extension("conf.resonant");
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let owner = fs::metadata(&self.path).or_else(|_| fs::metadata(folder))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        chown(&new, Some(owner.uid()), Some(owner.gid()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        fs::File::open(folder)?.sync_all()
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> Error {
        let message = format!("the file {} cannot be used", self.path.display());
        Error::new(ErrorKind::Failed, operation, message).with_source(error)
    }
}

/// What a line sets this parameter to, still quoted.
fn sets<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, rest) = line.trim().split_at_checked(name.len())?;
    let longer = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    let rest = rest.trim_start();
    let sets = key.eq_ignore_ascii_case(name) && !longer;
    sets.then(|| rest.strip_prefix('=').unwrap_or(rest).trim_start())
}

/// The value of a line that sets `event_source`.
fn value(line: &str) -> Option<String> {
    let mut chars = sets(line, "event_source")?.strip_prefix('\'')?.chars();
    let mut value = String::new();
    while let Some(char) = chars.next() {
        match char {
            '\'' if chars.as_str().starts_with('\'') => value.extend(chars.next()),
            '\'' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    Some(value)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pledge_survives_in_the_file_and_older_orders_are_refused() {
        let folder = std::env::temp_dir().join(format!("resonant-pledge-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, path) = (PledgeFile::new(&folder), folder.join("postgresql.auto.conf"));
        assert_eq!(file.read().unwrap(), Pledge::default());
        let kept = "# a comment\nevent_source_of = 'x'\n";
        let old = format!("{kept}primary_conninfo = 'host=a'\nEVENT_SOURCE 'PostgreSQL'\n");
        fs::write(&path, old).unwrap();
        let order = |epoch, operation: &str| Pledge { epoch, operation: operation.to_owned() };
        let odd = order(7, "it's:a\\b/1");
        file.take(&odd).unwrap();
        assert_eq!(file.read().unwrap(), odd);
        file.take(&odd).unwrap();
        let pledge = r"event_source = 'resonant:7:it''s:a\\b/1'";
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{kept}{pledge}\nprimary_conninfo = ''\n"));
        assert_eq!(file.take(&order(6, "x")).unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(file.take(&order(7, "x")).unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(file.read().unwrap(), odd);
        file.take(&order(8, "x")).unwrap();
        assert_eq!(file.read().unwrap().epoch, 8);
        fs::remove_dir_all(&folder).unwrap();
    }
}
