//! A place in a file's history.
//!
//! SQLite keeps no count of commits that other connections could ask for in WAL mode. It does not need one here: a commit
//! is visible to every statement that starts after it was acknowledged, on one machine with one clock. So the time of
//! day serves as the offset: taken after a commit, or before a read, and never twice the same within a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use resonant_common::hash::key_hash;
use resonant_common::join::Position;

use super::options::Location;

/// The fingerprint of a file: the same for every path to it and every process.
pub(super) fn system(location: &Location) -> u64 {
    match location {
        Location::Memory(number) => {
            key_hash(format!("memory:{}:{number}", std::process::id()).as_bytes())
        }
        Location::File(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            #[cfg(unix)]
            if let Ok(facts) = std::fs::metadata(&path) {
                use std::os::unix::fs::MetadataExt;
                return key_hash(format!("file:{}:{}", facts.dev(), facts.ino()).as_bytes());
            }
            key_hash(path.as_os_str().as_encoded_bytes())
        }
    }
}

/// A place at or behind every commit acknowledged so far.
pub(super) fn now(system: u64) -> Position {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let clock = micros();
    let risen = |last: u64| Some(clock.max(last + 1));
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, risen).unwrap_or(0);
    Position { system, timeline: 0, offset: clock.max(last + 1) }
}

#[expect(clippy::disallowed_methods, reason = "a position must mean the same in another process")]
fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_only_rise() {
        let mut last = now(1);
        for _ in 0..10_000 {
            let next = now(1);
            assert_eq!(next.has_reached(&last), Some(true));
            assert_ne!(next, last);
            last = next;
        }
    }

    #[test]
    fn the_same_file_has_the_same_fingerprint() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (path, other) = (folder.path().join("a.db"), folder.path().join("b.db"));
        std::fs::write(&path, "")?;
        std::fs::write(&other, "")?;
        let roundabout = folder.path().join(".").join("a.db");
        assert_eq!(system(&Location::File(path.clone())), system(&Location::File(roundabout)));
        assert_ne!(system(&Location::File(path)), system(&Location::File(other)));
        Ok(())
    }
}
