//! What is run when something happens: DNS, load balancers, pagers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::command::Command;
use crate::core::Event;
use crate::error::Result;

/// Something to run after each event, in order.
///
/// Hooks come after the fact and cannot stop anything: topology is published before they run. One that fails is logged;
/// one that takes longer than `step_timeout` is given up. They run on the manager that told the event, so on a
/// [`Published`](crate::EventKind::Published) exactly on the one that led.
#[async_trait]
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// Called once per event.
    async fn run(&self, event: &Event) -> Result<()>;
}

/// A program as a hook: the event's JSON is its standard input, its code the last argument. Never a shell.
#[derive(Debug, Clone)]
pub struct CommandHook {
    command: Command,
    only: Option<Vec<&'static str>>,
}

impl CommandHook {
    /// Runs this program after every event.
    pub fn new(command: Command) -> Self {
        Self { command, only: None }
    }

    /// Only after events of these [codes](crate::EventKind::as_str), such as `published`.
    #[must_use]
    pub fn only(mut self, codes: impl IntoIterator<Item = &'static str>) -> Self {
        self.only = Some(codes.into_iter().collect());
        self
    }
}

#[async_trait]
impl Hook for CommandHook {
    async fn run(&self, event: &Event) -> Result<()> {
        let code = event.kind.as_str();
        if self.only.as_ref().is_some_and(|only| !only.contains(&code)) {
            return Ok(());
        }
        let input = serde_json::to_string(event).unwrap_or_default();
        self.command.clone().arg(code).run("hook", Some(input)).await.map(drop)
    }
}

pub(crate) async fn run_all(
    hooks: Vec<Arc<dyn Hook>>,
    mut events: mpsc::Receiver<Event>,
    limit: Duration,
) {
    while let Some(event) = events.recv().await {
        for hook in &hooks {
            match timeout(limit, hook.run(&event)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, event = event.kind.as_str(), "a hook failed")
                }
                Err(_) => {
                    tracing::warn!(
                        event = event.kind.as_str(),
                        "a hook took too long; it was given up"
                    );
                }
            }
        }
    }
}
