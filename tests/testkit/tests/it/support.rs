//! What the tests share.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::time::Duration;

use resonant_testkit::{Error, ErrorKind, Result};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Long enough that a server that could answer would have; a test that sees nothing within it calls that a hang.
pub(crate) const HANG: Duration = Duration::from_millis(400);

/// More than any healthy answer takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The error, or a panic that shows the value.
pub(crate) fn failure<T: Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.expect_err("this should have failed");
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}

/// Asserts that a task is stuck, and gives it back.
pub(crate) async fn assert_hangs<T: Debug>(mut task: JoinHandle<T>) -> JoinHandle<T> {
    if let Ok(ended) = timeout(HANG, &mut task).await {
        panic!("this should hang, but ended: {ended:?}");
    }
    task
}

/// The outcome of a task that must end now.
pub(crate) async fn freed<T>(task: JoinHandle<T>) -> T {
    timeout(SOON, task).await.expect("this should have been freed").expect("the task panicked")
}

/// Asks until the answer is the one that is waited for.
pub(crate) async fn becomes<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    mut question: impl AsyncFnMut() -> Result<T>,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let answer = question().await?;
        if answer == expected {
            return Ok(());
        }
        assert!(started.elapsed() < SOON, "{what}: {answer:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs one test of this binary, ignored or not, in a process of its own.
pub(crate) async fn passes_alone(test: &str, env: &[(&str, &OsStr)]) {
    let run = Command::new(std::env::current_exe().expect("the test binary"))
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .envs(env.iter().copied())
        .kill_on_drop(true)
        .output();
    let output = timeout(SOON * 3, run).await.expect("its end").expect("the test binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, complaints) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}{complaints}");
}
