//! Programs that are run and waited for: initdb, pg_rewind, openssl.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Launch, end_tree};
use crate::error::{Error, ErrorKind, Result};

/// Runs a tool to its end and returns what it printed. A dropped future kills it, with the children it has: initdb's would go on
/// writing into a folder that is being removed.
///
/// # Errors
/// `Exited` with its output as the log when it fails, `TimedOut` when it takes longer than `limit`.
pub(crate) async fn run_tool(launch: Launch, limit: Duration) -> Result<String> {
    let name = launch.name().to_owned();
    let mut command = Command::from(launch.base_command()?);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| Error::io(format!("running {name}"), e))?;
    let mut running = Running(child.id());
    let output = match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => output.map_err(|e| Error::io(format!("running {name}"), e))?,
        Err(_) => {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("{name} did not end within {limit:?}"),
            ));
        }
    };
    running.0 = None;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(ErrorKind::Exited, format!("{name} failed: {}", output.status))
        .with_log(format!("{printed}{complaint}").trim()))
}

/// A tool that is not waited for any more when this is dropped.
struct Running(Option<u32>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            end_tree(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;
    use crate::dirs::ServerDir;

    #[tokio::test]
    async fn a_dropped_tool_takes_its_children_along() {
        let dir = ServerDir::create("tool").unwrap();
        let file = dir.join("pid");
        let launch = Launch::new("parent", "sh", dir.path())
            .args(["-c", "sleep 60 & echo $! >draft; mv draft pid; wait"]);
        let grown = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = run_tool(launch, Duration::from_secs(50)) => panic!("{ended:?}"),
            () = grown => {}
        }
        let child = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert!(!tree::is_alive(child), "the child is still there");
    }
}
