//! What a session knows of its writes. Pure.

use resonant_common::join::Position;
use tokio::time::Instant;

use crate::{Error, ErrorKind, Result};

/// The token of a session that only the primary may answer.
const PINNED: &str = "primary";

/// What a session knows of its writes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// The furthest of those that are known.
    pub(crate) position: Option<Position>,
    /// How far one of them has come is not known: only the primary is sure to have it.
    pub(crate) pinned: bool,
    /// When this process learned of the furthest.
    pub(crate) at: Option<Instant>,
}

impl Written {
    /// A write has come as far as `position`.
    pub(crate) fn reached(&mut self, position: Position, now: Instant) {
        // Concurrent writes of one session may end in any order: the furthest counts, a new history replaces an old one.
        let behind = self.position.is_some_and(|last| position.has_reached(&last) == Some(false));
        if !behind {
            self.position = Some(position);
            self.at = Some(now);
        }
    }

    pub(crate) fn token(&self) -> Option<String> {
        match self.pinned {
            true => Some(PINNED.into()),
            false => self.position.map(|position| position.to_string()),
        }
    }

    pub(crate) fn from_token(token: &str) -> Result<Self> {
        if token == PINNED {
            return Ok(Self { pinned: true, ..Self::default() });
        }
        let position = token.parse().map_err(|fault| {
            Error::new(ErrorKind::Config, "session", "the text is no session token")
                .with_source(fault)
        })?;
        Ok(Self { position: Some(position), ..Self::default() })
    }
}
