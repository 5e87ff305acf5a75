//! Where servers live, and how nothing is left behind.
//!
//! Everything of one test process is below one short folder, `/tmp/rk-UID/PID-N`. Beside it stands a file that the process
//! keeps locked for as long as it lives: the kernel drops the lock however the process ends, so an unlocked file names a
//! folder whose owner is gone. Two things clean up then, with the same script: the [reaper](crate::reaper), a small shell
//! that waits for this process to end, at once; and the next process that starts, in case the reaper was killed too.
//!
//! The path is short because a Unix socket's may have 104 bytes at most. `RESONANT_TESTKIT_DIR` moves it;
//! `RESONANT_TESTKIT_KEEP=1` keeps the folders for a look at the logs.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::{reaper, user};

/// The longest path of a folder that still leaves room for a socket's name in it.
const LONGEST: usize = 60;

/// The folder of this process and the lock that keeps it.
#[derive(Debug)]
struct Run {
    path: PathBuf,
    _lock: File,
}

/// The folder shared by all runs of this account: run folders and their locks.
pub(crate) fn base() -> Result<PathBuf> {
    match std::env::var_os("RESONANT_TESTKIT_DIR") {
        Some(dir) => base_in(Path::new(&dir)),
        None => shared_base(),
    }
}

/// The same, wherever the folders of this run go: where processes agree about ports.
pub(crate) fn shared_base() -> Result<PathBuf> {
    let tmp = Path::new("/tmp");
    if tmp.is_dir() { base_in(tmp) } else { base_in(&std::env::temp_dir()) }
}

fn base_in(parent: &Path) -> Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    fs::create_dir_all(parent)
        .map_err(|e| Error::io(format!("creating {}", parent.display()), e))?;
    // As the system sees it: what runs there is found by this path, and some servers' configurations end a word at a space.
    let parent = fs::canonicalize(parent)
        .map_err(|e| Error::io(format!("looking for the folder {}", parent.display()), e))?;
    let base = parent.join(format!("rk-{uid}"));
    if base.as_os_str().as_encoded_bytes().iter().any(|b| b" \t\n\"'\\|".contains(b)) {
        let message = format!(
            "{} has a character that servers' configurations do not take; set RESONANT_TESTKIT_DIR to another folder",
            base.display()
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    if base.as_os_str().len() > LONGEST {
        let message = format!(
            "{} is too long a path for Unix sockets; set RESONANT_TESTKIT_DIR to a shorter one",
            base.display()
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    fs::create_dir_all(&base).map_err(|e| Error::io(format!("creating {}", base.display()), e))?;
    let owner = fs::metadata(&base)
        .map_err(|e| Error::io(format!("looking at {}", base.display()), e))?
        .uid();
    if owner != uid {
        let message = format!("{} belongs to uid {owner}, not to this process", base.display());
        return Err(Error::new(ErrorKind::Config, message));
    }
    set_mode(&base, 0o755)?;
    Ok(base)
}

/// The folder of this process, made at the first call, when the leftovers of dead processes are swept too.
pub(crate) fn run_dir() -> Result<&'static Path> {
    static RUN: OnceLock<Run> = OnceLock::new();
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    if let Some(run) = RUN.get() {
        return Ok(&run.path);
    }
    let _one_at_a_time = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(run) = RUN.get() {
        return Ok(&run.path);
    }
    let base = base()?;
    if !keeps_folders() {
        sweep(&base);
    }
    let run = claim(&base)?;
    reaper::watch(&run.path)?;
    Ok(&RUN.get_or_init(|| run).path)
}

/// Whether the user asked to keep folders for a look afterwards.
pub(crate) fn keeps_folders() -> bool {
    std::env::var_os("RESONANT_TESTKIT_KEEP").is_some_and(|value| !value.is_empty() && value != "0")
}

fn claim(base: &Path) -> Result<Run> {
    for attempt in 0..1000 {
        let path = base.join(format!("{}-{attempt}", std::process::id()));
        let lock_path = lock_of(&path);
        let Ok(lock) = File::create_new(&lock_path) else { continue };
        // A sweeper may lock the new file first, and remove it: then this name is gone, and the next is tried.
        lock.lock().map_err(|e| Error::io(format!("locking {}", lock_path.display()), e))?;
        if !same_file(&lock, &lock_path) {
            continue;
        }
        match fs::create_dir(&path) {
            Ok(()) => {}
            // Left by a process of the same number; the sweep could not remove it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(Error::io(format!("creating {}", path.display()), e)),
        }
        set_mode(&path, 0o755)?;
        return Ok(Run { path, _lock: lock });
    }
    Err(Error::new(ErrorKind::Io, format!("no free folder name in {}", base.display())))
}

/// Ends what dead processes left and removes their folders. Best effort: a folder that resists stays for the next run.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match path.extension() {
            Some(extension) if extension == "lock" => sweep_unlocked(&path),
            // A folder is made after its lock and removed before it: without one it is nobody's.
            None if is_run_folder(&path) && !lock_of(&path).exists() => reaper::clean_now(&path),
            _ => {}
        }
    }
}

fn sweep_unlocked(lock_path: &Path) {
    let Ok(lock) = File::open(lock_path) else { return };
    match lock.try_lock() {
        Ok(()) if same_file(&lock, lock_path) => reaper::clean_now(&lock_path.with_extension("")),
        Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}

/// Whether it is called `PID-N`, as [`claim`] does.
fn is_run_folder(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let numeric = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('-').is_some_and(|(pid, attempt)| numeric(pid) && numeric(attempt))
}

fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

fn same_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => open.ino() == there.ino() && open.dev() == there.dev(),
        _ => false,
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|e| Error::io(format!("setting the mode of {}", path.display()), e))
}

/// A folder of one server, owned by the account the servers run as, removed when dropped.
#[derive(Debug)]
pub(crate) struct ServerDir(PathBuf);

impl ServerDir {
    /// Makes a fresh folder. `label` is a short word that helps a person find the log.
    pub(crate) fn create(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = run_dir()?.join(format!("{label}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).map_err(|e| Error::io(format!("creating {}", path.display()), e))?;
        let dir = Self(path);
        set_mode(&dir.0, 0o755)?;
        user::hand_over(&dir.0)?;
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A path below this folder.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a folder below this one, with the same owner.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path)
            .map_err(|e| Error::io(format!("creating {}", path.display()), e))?;
        user::hand_over(&path)?;
        Ok(path)
    }

    /// Writes a file that only its owner reads, which is what servers demand of keys, and hands it over.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        write_private(&path, text)?;
        Ok(path)
    }
}

/// Writes a file by renaming a whole one into place, so that a server never reads half of it.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let doing = |e| Error::io(format!("writing {}", path.display()), e);
    let draft = path.with_extension("draft");
    fs::write(&draft, text).map_err(doing)?;
    set_mode(&draft, 0o600)?;
    user::hand_over(&draft)?;
    fs::rename(&draft, path).map_err(doing)
}

impl Drop for ServerDir {
    fn drop(&mut self) {
        if !keeps_folders() {
            // What cannot be removed now is removed by the reaper.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_servers_would_choke_on_is_refused_by_the_name_of_the_variable() {
        let root = tempfile::tempdir().unwrap();
        for name in ["x".repeat(LONGEST), "my tests".to_owned()] {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            let error = base_in(&folder).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("set RESONANT_TESTKIT_DIR to"), "{error}");
        }
        base_in(&root.path().join("new")).unwrap();
    }

    #[test]
    fn a_link_to_a_folder_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(base_in(&link).unwrap(), base_in(&real).unwrap());
    }
}
