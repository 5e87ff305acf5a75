//! bb8 managers in our pool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use resonant_db::pool::{Bb8, ConnectionPool};
use resonant_db::{Error, ErrorKind};

use super::{secs, sizes};

/// A manager as one finds them written for bb8.
#[derive(Debug, Default)]
struct Theirs {
    refuses: AtomicBool,
    opened: AtomicU64,
    validated: AtomicU64,
}

impl bb8::ManageConnection for Theirs {
    type Connection = (u64, bool);
    type Error = &'static str;

    async fn connect(&self) -> Result<(u64, bool), &'static str> {
        match self.refuses.load(Relaxed) {
            true => Err("password authentication failed"),
            false => Ok((self.opened.fetch_add(1, Relaxed) + 1, false)),
        }
    }

    async fn is_valid(&self, connection: &mut (u64, bool)) -> Result<(), &'static str> {
        self.validated.fetch_add(1, Relaxed);
        if connection.1 { Err("broken") } else { Ok(()) }
    }

    fn has_broken(&self, connection: &mut (u64, bool)) -> bool {
        connection.1
    }
}

#[tokio::test(start_paused = true)]
async fn a_bb8_manager_plugs_in() {
    let pool = ConnectionPool::new("theirs", Bb8::new(Theirs::default()), sizes(1, 1));
    let pool = pool.expect("good settings");
    let mut connection = pool.get().await.expect("opened");
    assert_eq!(connection.0, 1);
    connection.1 = true;
    drop(connection);
    assert_eq!(pool.get().await.expect("a new one").0, 2);
    assert_eq!(pool.manager().get_ref().validated.load(Relaxed), 0, "a round trip per checkout");
    tokio::time::sleep(secs(31)).await;
    assert_eq!(pool.manager().get_ref().validated.load(Relaxed), 1, "checked while idle");
}

#[tokio::test(start_paused = true)]
async fn its_errors_are_mapped() {
    let theirs = Theirs { refuses: true.into(), ..Theirs::default() };
    let mapped = Bb8::with_errors(theirs, |operation, error| {
        Error::new(ErrorKind::Rejected, operation, error)
    });
    let pool = ConnectionPool::new("theirs", mapped, sizes(0, 1)).expect("good settings");
    let error = pool.get().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.message().contains("password authentication failed"), "{error}");

    let theirs = Theirs { refuses: true.into(), ..Theirs::default() };
    let pool = ConnectionPool::new("theirs", Bb8::new(theirs), sizes(0, 1)).expect("good settings");
    assert_eq!(pool.get().await.expect_err("refused").kind(), ErrorKind::Unavailable);
}
