//! Who the servers run as. PostgreSQL and pgbouncer refuse to run as root, and no server of a test needs to be root, so a
//! test that runs as root hands them to an unprivileged account.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};

/// Accounts to drop to, best first: the one PostgreSQL's package makes, then the one every system has.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// An account by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The account servers are handed to, or none when this process is not root and they simply run as itself.
pub(crate) fn unprivileged() -> Result<Option<User>> {
    static FOUND: OnceLock<Option<User>> = OnceLock::new();
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    match FOUND.get_or_init(|| CANDIDATES.iter().find_map(|name| look_up(name))) {
        Some(user) => Ok(Some(*user)),
        None => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "running as root, and none of the accounts {CANDIDATES:?} exists to run servers as"
            ),
        )),
    }
}

/// Gives a file or folder to the account the servers run as.
pub(crate) fn hand_over(path: &Path) -> Result<()> {
    if let Some(user) = unprivileged()? {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).map_err(|e| {
            Error::io(format!("handing {} over to uid {}", path.display(), user.uid), e)
        })?;
    }
    Ok(())
}

fn look_up(name: &str) -> Option<User> {
    let number = |flag: &str| {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    Some(User { uid: number("-u")?, gid: number("-g")? })
}
