//! How the job can fail, and with which exit code.

use std::process::ExitCode;

use resonant_common::error::BoxError;

/// Why the job did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The input or an option is wrong; the message is one line that says where and what was expected.
    #[error("{0}")]
    Input(String),
    /// What is stored is not what was read.
    #[error("the proof failed: {0}")]
    Proof(String),
    /// The user stopped it.
    #[error("{0}")]
    Interrupted(String),
    /// A primitive failed.
    #[error("{doing}: {source}")]
    Step {
        doing: &'static str,
        #[source]
        source: BoxError,
    },
}

impl Failure {
    /// The exit code after an interruption, as shells have it for SIGINT.
    pub(crate) const INTERRUPTED: u8 = 130;

    /// The program's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Proof(_) | Failure::Step { .. } => 1,
            Failure::Input(_) => 2,
            Failure::Interrupted(_) => Self::INTERRUPTED,
        })
    }
}

/// Says what was being done when a primitive failed.
pub(crate) trait While<T> {
    fn doing(self, doing: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<BoxError>> While<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::Step { doing, source: error.into() })
    }
}
