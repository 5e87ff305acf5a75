//! A program and its arguments; never a shell.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::error::{Error, ErrorKind, Result};

/// A program with its arguments, run without a shell: what is in an argument stays one argument.
///
/// ```
/// use resonant_ha::Command;
/// let stop = Command::new(["ssh", "db-east", "systemctl", "stop", "postgresql"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    argv: Vec<String>,
}

impl Command {
    /// The program, then its arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// Runs it to its end and returns what it printed. It is killed when the future is dropped.
    pub(crate) async fn run(
        self,
        operation: &'static str,
        input: Option<String>,
    ) -> Result<String> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(Error::new(ErrorKind::Config, operation, "a command without a program"));
        };
        let failed = |what: String| Error::new(ErrorKind::Failed, operation, what);
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{program} cannot be run")).with_source(error))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A program that does not read its input is no failure.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await;
        let output =
            output.map_err(|error| failed(format!("waiting for {program}")).with_source(error))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last =
                text.trim().lines().last().unwrap_or("").chars().take(300).collect::<String>();
            return Err(failed(format!("{program}: {}: {last}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
