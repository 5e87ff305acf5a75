//! The role `api`: agents of an organisation, and tasks for them.

use std::error::Error as StdError;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use resonant_sdk::app::{self, Resonant};
use resonant_sdk::cache::{Loaded, Namespace};
use resonant_sdk::db::{self, Database, ShardedDatabase, params, row};
use resonant_sdk::queue::PartitionedQueue;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;
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
        // A database is away, or another instance is making them just now.
        eprintln!("the tables are not there yet: {error}");
        tokio::spawn(create_tables_later(app.clone(), api.clone()));
    }
    Ok(Router::new()
        .route("/orgs/{org_id}/agents", post(create_agent).get(list_agents))
        .route("/orgs/{org_id}/agents/{id}", get(agent))
        .route("/sessions/{session}/tasks", post(create_task))
        .with_state(api))
}

/// Tries again until the tables are there, or the service ends.
async fn create_tables_later(app: Resonant, api: Api) {
    loop {
        tokio::select! {
            () = app.stopping() => return,
            () = sleep(Duration::from_secs(1)) => {}
        }
        if model::create_tables(&api.db, &api.shards).await.is_ok() {
            return;
        }
    }
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
    if let Err(error) = api.cache.delete(&format!("{org_id}/{}", agent.id)).await {
        // The agent is stored. What the cache has of it lives no longer than its `ttl`.
        eprintln!("the cache may show an agent as it was: {error}");
    }
    Ok((StatusCode::CREATED, Json(agent)))
}

async fn list_agents(
    State(api): State<Api>,
    Path(org_id): Path<String>,
) -> Result<Json<Vec<Agent>>, Failure> {
    let sql = "SELECT id, name FROM agents WHERE org_id = $1 ORDER BY id";
    Ok(Json(api.shards.query_as(sql, params![&org_id]).await?))
}

/// Loaded once, however many ask at the same time, and kept; so is that there is none.
async fn agent(
    State(api): State<Api>,
    Path((org_id, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let key = format!("{org_id}/{id}");
    let shards = api.shards.clone();
    let loaded = api.cache.get_or_load_with(&key, async move || {
        let sql = "SELECT id, name FROM agents WHERE org_id = $1 AND id = $2";
        let found = shards.query_opt_as::<Agent>(sql, params![&org_id, &id]).await?;
        Ok::<_, db::Error>(found.map_or_else(Loaded::missing, Loaded::new))
    });
    Ok(match loaded.await?.value {
        Some(agent) => Json(&*agent).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

#[derive(Deserialize)]
struct NewTask {
    /// A client that gives one may ask again whatever was answered: the task is done once.
    #[serde(default = "any_id")]
    id: String,
    agent_id: String,
    goal: String,
}

fn any_id() -> String {
    Uuid::new_v4().to_string()
}

/// Accepted means: in the queue, and its session sees it. In this order, so that nothing is seen that nobody works on; where this
/// ends in between, the worker makes the row.
async fn create_task(
    State(api): State<Api>,
    Path(session): Path<String>,
    Json(NewTask { id, agent_id, goal }): Json<NewTask>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let task = Task { session, id, agent_id, goal };
    api.tasks.publish(&task).await?;
    let sql = "INSERT INTO tasks (session, id, agent_id, goal, state)
               VALUES ($1, $2, $3, $4, 'queued') ON CONFLICT (session, id) DO NOTHING";
    let row = row![&task.session, &task.id, &task.agent_id, &task.goal];
    api.db.write().execute(sql, &row).await?;
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
