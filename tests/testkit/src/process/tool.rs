//! Programs that are run and waited for: initdb, pg_rewind, openssl.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Launch;
use crate::error::{Error, ErrorKind, Result};

/// Runs a tool to its end and returns what it printed. A dropped future kills it.
///
/// # Errors
/// `Exited` with its output as the log when it fails, `TimedOut` when it takes longer than `limit`.
pub(crate) async fn run_tool(launch: Launch, limit: Duration) -> Result<String> {
    let name = launch.name().to_owned();
    let mut command = Command::from(launch.base_command()?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.map_err(|e| Error::io(format!("running {name}"), e))?,
        Err(_) => {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("{name} did not end within {limit:?}"),
            ));
        }
    };
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(ErrorKind::Exited, format!("{name} failed: {}", output.status))
        .with_log(format!("{printed}{complaint}").trim()))
}
