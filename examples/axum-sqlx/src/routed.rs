//! The same service with read replicas, failover and sessions.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Extension, Router};
use resonant_db::replica_set::{Observation, POSTGRES_PROBE, PickSession, ReplicaSet};
use resonant_db::tower::SessionLayer;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::Failure;

/// The service.
pub fn app(url: &str, replicas: &[&str]) -> Result<Router, Failure> {
    let mut set = ReplicaSet::builder().primary("primary", pool(url)?).probe(probe);
    for (place, url) in replicas.iter().enumerate() {
        set = set.replica(format!("replica-{place}"), pool(url)?);
    }
    let db = set.build()?;
    Ok(Router::new()
        .route("/notes", post(create))
        .route("/notes/{id}", get(show))
        .layer(SessionLayer::by_cookie(db.clone()))
        .with_state(db))
}

fn pool(url: &str) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy(url)
}

async fn probe(db: PgPool) -> Result<Observation, sqlx::Error> {
    sqlx::query_as(POSTGRES_PROBE).fetch_one(&db).await.map(Observation::from_postgres)
}

type Db = State<ReplicaSet<PgPool>>;
type Session = Extension<PickSession<PgPool>>;

async fn create(
    State(db): Db,
    Extension(session): Session,
    body: String,
) -> Result<String, Failure> {
    let db = db.write()?;
    let insert = "INSERT INTO notes (body) VALUES ($1) RETURNING id";
    let id: i64 = db.judge(sqlx::query_scalar(insert).bind(body).fetch_one(&*db).await, is_down)?;
    session.wrote(&db).await;
    Ok(id.to_string())
}

async fn show(Extension(session): Session, Path(id): Path<i64>) -> Result<String, Failure> {
    let db = session.read()?;
    let select = "SELECT body FROM notes WHERE id = $1";
    let note = db.judge(sqlx::query_scalar(select).bind(id).fetch_optional(&*db).await, is_down)?;
    note.ok_or(Failure::NotFound)
}

/// Errors that speak against the node: it is gone, or is no primary any more.
fn is_down(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refused| refused.code());
    let gone = matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut);
    gone || code.is_some_and(|code| code.starts_with("57P") || code == "25006")
}
