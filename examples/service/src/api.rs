//! The role `api`: agents of an organisation, and tasks for them.

use std::error::Error as StdError;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use resonant_sdk::app::{self, Resonant};
use resonant_sdk::cache::Namespace;
use resonant_sdk::db::{Database, ShardedDatabase, params, row};
use resonant_sdk::queue::PartitionedQueue;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::model::{self, Agent, TASKS, Task};

#[derive(Clone)]
struct Api {
    db: Database,
    shards: ShardedDatabase,
    cache: Namespace<Agent>,
    tasks: PartitionedQueue<Task>,
}

pub(crate) async fn routes(app: &Resonant) -> app::Result<Router> {
    let api = Api {
        db: app.database()?.clone(),
        shards: app.sharded_database()?.clone(),
        cache: app.cache("agent")?,
        tasks: app.queue(TASKS).await?,
    };
    if let Err(error) = model::create_tables(&api.db, &api.shards).await {
        eprintln!("the tables are not there yet: {error}");
    }
    Ok(Router::new()
        .route("/orgs/{org_id}/agents", post(create_agent).get(list_agents))
        .route("/orgs/{org_id}/agents/{id}", get(agent))
        .route("/sessions/{session}/tasks", post(create_task))
        .with_state(api))
}

/// The statement goes to the organisation's shard.
async fn create_agent(
    State(api): State<Api>,
    Path(org_id): Path<String>,
    Json(agent): Json<Agent>,
) -> Result<(StatusCode, Json<Agent>), Failure> {
    let sql = "INSERT INTO agents (org_id, id, name) VALUES ($1, $2, $3)
               ON CONFLICT (org_id, id) DO UPDATE SET name = excluded.name";
    api.shards.execute(sql, params![&org_id, &agent.id, &agent.name]).await?;
    api.cache.delete(&format!("{org_id}/{}", agent.id)).await?;
    Ok((StatusCode::CREATED, Json(agent)))
}

async fn list_agents(
    State(api): State<Api>,
    Path(org_id): Path<String>,
) -> Result<Json<Vec<Agent>>, Failure> {
    let sql = "SELECT id, name FROM agents WHERE org_id = $1 ORDER BY id";
    Ok(Json(api.shards.query_as(sql, params![&org_id]).await?))
}

/// Loaded once, however many ask at the same time, and kept.
async fn agent(
    State(api): State<Api>,
    Path((org_id, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let key = format!("{org_id}/{id}");
    let shards = api.shards.clone();
    let loaded = api.cache.get_or_load(&key, async move || {
        let sql = "SELECT id, name FROM agents WHERE org_id = $1 AND id = $2";
        let found = shards.query_opt_as::<Agent>(sql, params![&org_id, &id]).await?;
        found.ok_or_else(|| Box::<dyn StdError + Send + Sync>::from("there is no such agent"))
    });
    Ok(match loaded.await {
        Ok(agent) => Json(&*agent).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    })
}

#[derive(Deserialize)]
struct NewTask {
    agent_id: String,
    goal: String,
}

/// Accepted means: stored, and in the queue.
async fn create_task(
    State(api): State<Api>,
    Path(session): Path<String>,
    Json(NewTask { agent_id, goal }): Json<NewTask>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let task = Task { id: Uuid::new_v4().to_string(), agent_id, goal };
    let sql = "INSERT INTO tasks (id, session, agent_id, goal, state)
               VALUES ($1, $2, $3, $4, 'queued')";
    let row = row![&task.id, &session, &task.agent_id, &task.goal];
    api.db.write().execute(sql, &row).await?;
    if let Err(error) = api.tasks.publish(&task).await {
        // Nobody will do it, so nobody should wait for it.
        let _ = api.db.write().execute("DELETE FROM tasks WHERE id = $1", params![&task.id]).await;
        return Err(error.into());
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": task.id }))))
}

/// Whatever a part refused: the client may try again, the log says why.
struct Failure(Box<dyn StdError + Send + Sync>);

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        eprintln!("a request failed: {}", self.0);
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}
