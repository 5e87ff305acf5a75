//! Pauses, by a person.

use resonant_common::wall;
use serde::Serialize;
use tokio::time::Instant;

use super::Core;
use super::status::AutoscalerStatus;
use crate::error::{Error, ErrorKind, Result};

/// A person pauses a scaler, or lets it go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PauseRequest {
    /// Whether it is to be paused.
    pub paused: bool,
    /// Why; shown in the status.
    pub reason: String,
    /// Who; shown in the status.
    pub actor: String,
    /// Only if the status still has this generation.
    pub generation: Option<u64>,
}

impl PauseRequest {
    /// Decide, but do nothing.
    pub fn pause() -> Self {
        Self::new(true)
    }

    /// Go on.
    pub fn resume() -> Self {
        Self::new(false)
    }

    fn new(paused: bool) -> Self {
        Self { paused, reason: String::new(), actor: "operator".into(), generation: None }
    }

    /// Why.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Who.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// Only if the status still has this generation.
    #[must_use]
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }
}

/// Who paused a scaler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PausedBy {
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
}

impl Core {
    pub(super) fn set_paused(&self, request: PauseRequest) -> Result<AutoscalerStatus> {
        {
            let mut state = self.state();
            if let Some(named) = request.generation.filter(|named| *named != state.generation) {
                let message =
                    format!("the generation is {}, not {named}; read the status", state.generation);
                return Err(Error::new(ErrorKind::Conflict, "pause", message));
            }
            if state.paused_by.is_some() != request.paused {
                let PauseRequest { actor, reason, paused, .. } = request;
                tracing::info!(
                    target: "resonant::scale", name = self.name, actor, reason,
                    "{}", if paused { "paused" } else { "resumed" }
                );
                let at = wall::rfc3339(wall::now());
                state.pause(paused.then_some(PausedBy { at, actor, reason }));
            }
        }
        Ok(self.status(Instant::now()))
    }
}
