//! A small service twice: with plain sqlx, and with the routing of resonant-db around its pools. Compare the two files.

pub mod plain;
pub mod routed;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// What the service's clients are told.
#[derive(Debug)]
pub enum Failure {
    /// There is no such note.
    NotFound,
    /// The database failed; the text is for the log.
    Database(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<resonant_db::Error> for Failure {
    fn from(error: resonant_db::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Database(error) => {
                eprintln!("{error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}
