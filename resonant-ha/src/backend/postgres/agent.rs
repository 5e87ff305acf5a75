//! What SQL cannot do: stop a server that does not answer, and bring it back.

use std::fmt;

use async_trait::async_trait;

use super::sql;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::region::{Pledge, RegionTarget};

/// Power over a region's host.
///
/// # Contract
///
/// - A server keeps its pledge in its data folder, as the parameter `event_source` in `postgresql.auto.conf`. Once an agent
///   has stopped the server it looks at the pledge, refuses with [`ErrorKind::Fenced`] an order that
///   [`Pledge::admits`] does not, starting the server again, and writes the order's pledge in its place.
///   [`PledgeFile`](super::PledgeFile) does the looking and the writing.
/// - A rewind or a fresh copy brings the primary's `postgresql.auto.conf`. The agent writes the order's pledge again before the
///   server starts: a server that forgets its pledge obeys a manager that has been replaced. From the same file it receives
///   from the order's primary, and from nobody else.
/// - Calls about one host exclude each other, whichever manager they come from.
/// - Both can be done again. [`stop`](PostgresAgent::stop) succeeds only when the server has ended or can be reached by
///   nobody, and stays so until [`rejoin`](PostgresAgent::rejoin).
/// - The manager holds the server's lock until the server stops: stop it in `fast` or `immediate` mode, which do not wait
///   for sessions.
#[async_trait]
pub trait PostgresAgent: fmt::Debug + Send + Sync + 'static {
    /// Stops the server for good, and says how it is known that it has stopped.
    async fn stop(&self, order: &Pledge) -> Result<String>;

    /// Brings the server back as a standby of `primary`: by a rewind, or from a fresh copy. When it returns, the server
    /// is up, keeps the order's pledge, and receives from `primary`.
    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<()>;
}

/// Programs as an agent; never a shell.
///
/// Both programs find in their environment, where other users of the machine cannot see it:
///
/// | variable | holds |
/// |---|---|
/// | `RESONANT_EPOCH`, `RESONANT_OPERATION` | the order |
/// | `RESONANT_PLEDGE` | the value that `event_source` must have when the server starts again |
/// | `RESONANT_PRIMARY_URL` | of a rejoin: the URL of the primary, as standbys use it |
///
/// They keep the [contract](PostgresAgent) and end with 0 when it is done. One that finds a newer pledge, which is an
/// `event_source` of `resonant:EPOCH:…` with a higher epoch, or with the same one and another operation, ends with 75.
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

    /// The program that brings it back.
    #[must_use]
    pub fn rejoin_with(mut self, command: Command) -> Self {
        self.rejoin = Some(command);
        self
    }
}

#[async_trait]
impl PostgresAgent for CommandAgent {
    async fn stop(&self, order: &Pledge) -> Result<String> {
        let command = self.stop.clone().ok_or_else(|| missing("fence", "stop_with"))?;
        ordered(command, order).run("fence", None).await?;
        Ok("the stop command ended with 0".to_owned())
    }

    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<()> {
        let command = self.rejoin.clone().ok_or_else(|| missing("rejoin", "rejoin_with"))?;
        let command = ordered(command, order);
        let command = command.env("RESONANT_PRIMARY_URL", primary.replication_url.clone());
        command.run("rejoin", None).await.map(drop)
    }
}

fn ordered(command: Command, order: &Pledge) -> Command {
    command
        .env("RESONANT_EPOCH", order.epoch.to_string())
        .env("RESONANT_OPERATION", order.operation.clone())
        .env("RESONANT_PLEDGE", sql::pledge_text(order))
}

fn missing(operation: &'static str, method: &str) -> Error {
    let message = format!("the agent has no command for that; give it one by {method}()");
    Error::new(ErrorKind::Unsupported, operation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_find_the_order_in_their_environment_and_no_secret_in_their_arguments() {
        let script = "test $# = 0 && test \"$RESONANT_PLEDGE\" = resonant:7:op && \
                      test \"$RESONANT_EPOCH/$RESONANT_OPERATION\" = 7/op && \
                      test \"${RESONANT_PRIMARY_URL-none}\" = \"$WANTED\"";
        let program = |wanted: &str| Command::new(["sh", "-c", script]).env("WANTED", wanted);
        let url = "postgresql://u:s3cret@primary/app";
        let agent = CommandAgent::new().stop_with(program("none")).rejoin_with(program(url));
        let order = Pledge { epoch: 7, operation: "op".to_owned() };
        let (url, region) = (url.to_owned(), "east".into());
        let primary = RegionTarget { region, url: url.clone(), replication_url: url };
        agent.stop(&order).await.unwrap();
        agent.rejoin(&order, &primary).await.unwrap();
        assert!(!format!("{primary:?}{agent:?}").contains("s3cret"));
        let newer = CommandAgent::new().stop_with(Command::new(["sh", "-c", "exit 75"]));
        assert_eq!(newer.stop(&order).await.unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(
            newer.rejoin(&order, &primary).await.unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}
