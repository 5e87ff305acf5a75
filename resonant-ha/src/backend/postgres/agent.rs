//! What SQL cannot do: stop a server that does not answer, and bring it back.

use std::fmt;

use async_trait::async_trait;

use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::region::RegionTarget;

/// Power over a region's host.
///
/// # Contract
///
/// Both can be done again. [`stop`](PostgresAgent::stop) succeeds only when the server has ended or can be reached by
/// nobody, and stays so until [`rejoin`](PostgresAgent::rejoin).
#[async_trait]
pub trait PostgresAgent: fmt::Debug + Send + Sync + 'static {
    /// Stops the server for good, and says how it is known that it has stopped.
    async fn stop(&self) -> Result<String>;

    /// Brings the server back as a standby of `primary`: by a rewind, or from a fresh copy. When it returns, the server
    /// is up and receives.
    async fn rejoin(&self, primary: &RegionTarget) -> Result<()>;
}

/// Programs as an agent; never a shell.
#[derive(Debug, Clone, Default)]
pub struct CommandAgent {
    stop: Option<Command>,
    rejoin: Option<Command>,
}

impl CommandAgent {
    /// An agent that can do nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program that stops the server; it ends with 0 only when the server has stopped.
    #[must_use]
    pub fn stop_with(mut self, command: Command) -> Self {
        self.stop = Some(command);
        self
    }

    /// The program that brings it back. Its last argument is the URL of the primary, as standbys use it.
    #[must_use]
    pub fn rejoin_with(mut self, command: Command) -> Self {
        self.rejoin = Some(command);
        self
    }
}

#[async_trait]
impl PostgresAgent for CommandAgent {
    async fn stop(&self) -> Result<String> {
        match &self.stop {
            Some(command) => {
                command.clone().run("fence", None).await?;
                Ok("the stop command ended with 0".to_owned())
            }
            None => Err(missing("fence", "stop_with")),
        }
    }

    async fn rejoin(&self, primary: &RegionTarget) -> Result<()> {
        match &self.rejoin {
            Some(command) => {
                let command = command.clone().arg(primary.replication_url.clone());
                command.run("rejoin", None).await.map(drop)
            }
            None => Err(missing("rejoin", "rejoin_with")),
        }
    }
}

fn missing(operation: &'static str, method: &str) -> Error {
    let message = format!("the agent has no command for that; give it one by {method}()");
    Error::new(ErrorKind::Unsupported, operation, message)
}
