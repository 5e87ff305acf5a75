//! A program and its arguments; never a shell.

use std::fmt;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::error::{Error, ErrorKind, Result};

/// With this a program says that somebody newer is in charge.
const NEWER: i32 = 75;

/// A program with its arguments, run without a shell: what is in an argument stays one argument.
///
/// ```
/// use resonant_ha::Command;
/// let stop = Command::new(["ssh", "db-east", "systemctl", "stop", "postgresql"]);
/// ```
///
/// Arguments are seen by every user of the machine: give secrets by [`env`](Command::env). `Debug` shows the program alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    argv: Vec<String>,
    environment: Vec<(String, String)>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.argv.first()).finish_non_exhaustive()
    }
}

impl Command {
    /// The program, then its arguments.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), environment: Vec::new() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.argv.push(argument.into());
        self
    }

    /// One more variable of its environment, which other users cannot see.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
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
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
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
            let kind = match output.status.code() {
                Some(NEWER) => ErrorKind::Fenced,
                _ => ErrorKind::Failed,
            };
            let text = String::from_utf8_lossy(&output.stderr);
            let last =
                text.trim().lines().last().unwrap_or("").chars().take(300).collect::<String>();
            let message = format!("{program}: {}: {last}", output.status);
            return Err(Error::new(kind, operation, message));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_environment_reaches_the_program_and_debug_shows_neither() {
        let command = Command::new(["sh", "-c", "test \"$WORD\" = s3cret && echo \"$1\"", "sh"]);
        let command = command.arg("hidden").env("WORD", "s3cret");
        assert_eq!(format!("{command:?}"), r#"Command { program: Some("sh"), .. }"#);
        assert_eq!(command.run("test", None).await.unwrap(), "hidden\n");
    }
}
