//! A service of notes with plain sqlx.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::Failure;

/// The service.
pub fn app(url: &str) -> Result<Router, Failure> {
    let db = pool(url)?;
    Ok(Router::new().route("/notes", post(create)).route("/notes/{id}", get(show)).with_state(db))
}

fn pool(url: &str) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy(url)
}

async fn create(State(db): State<PgPool>, body: String) -> Result<String, Failure> {
    let insert = "INSERT INTO notes (body) VALUES ($1) RETURNING id";
    let id: i64 = sqlx::query_scalar(insert).bind(body).fetch_one(&db).await?;
    Ok(id.to_string())
}

async fn show(State(db): State<PgPool>, Path(id): Path<i64>) -> Result<String, Failure> {
    let select = "SELECT body FROM notes WHERE id = $1";
    let note = sqlx::query_scalar(select).bind(id).fetch_optional(&db).await?;
    note.ok_or(Failure::NotFound)
}
