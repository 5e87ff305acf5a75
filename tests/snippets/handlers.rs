//! Inside axum handlers.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use resonant_common::error::{Error, Kind};
use resonant_db::params;
use tower::ServiceExt;

use super::service::{Service, Task, User};

/// Any error of the family becomes an answer: transient ones ask to come back.
struct Failed(StatusCode);

impl<K: Kind> From<Error<K>> for Failed {
    fn from(error: Error<K>) -> Self {
        Self(if error.is_transient() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        })
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        self.0.into_response()
    }
}

async fn user(State(service): State<Service>, Path(id): Path<i64>) -> Result<Json<User>, Failed> {
    let load = {
        let db = service.db.clone();
        async move || {
            let sql = "SELECT id, name FROM users WHERE id = $1";
            db.read().query_one_as::<User>(sql, params![id]).await
        }
    };
    let user = service.users.get_or_load(&id.to_string(), load).await?;
    Ok(Json((*user).clone()))
}

async fn rename(
    State(service): State<Service>,
    Path(id): Path<i64>,
    name: String,
) -> Result<String, Failed> {
    let previous: String = service
        .db
        .transaction(async |tx| {
            let sql = "SELECT name FROM users WHERE id = $1";
            let previous = tx.query_one_as::<String>(sql, params![id]).await?;
            tx.execute("UPDATE users SET name = $2 WHERE id = $1", params![id, name]).await?;
            Ok(previous)
        })
        .await?;
    service.users.delete(&id.to_string()).await?;
    Ok(previous)
}

async fn hire(
    State(service): State<Service>,
    Path(org): Path<String>,
    name: String,
) -> Result<String, Failed> {
    let sql = "INSERT INTO agents (org_id, name) VALUES ($1, $2)";
    service.shards.execute(sql, params![org, name]).await?;
    Ok(service.shards.shard_for(org.as_str())?.to_string())
}

async fn publish(
    State(service): State<Service>,
    Json(task): Json<Task>,
) -> Result<StatusCode, Failed> {
    service.queue.publish(&task).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn batched(
    State(service): State<Service>,
    Path(id): Path<i64>,
) -> Result<Json<Option<User>>, Failed> {
    Ok(Json(service.batch.submit(id).await?))
}

fn app(service: Service) -> Router {
    Router::new()
        .route("/users/{id}", get(user).put(rename))
        .route("/batched/{id}", get(batched))
        .route("/orgs/{org}/agents", post(hire))
        .route("/tasks", post(publish))
        .merge(service.health.router())
        .with_state(service)
}

async fn call(app: &Router, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response =
        app.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_primitive_serves_from_an_axum_handler() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path()).await;
    service.health.run_all().await;
    let app = app(service.clone());

    assert_eq!(
        call(&app, "GET", "/users/7", "").await,
        (StatusCode::OK, r#"{"id":7,"name":"Ada"}"#.into())
    );
    assert_eq!(call(&app, "PUT", "/users/7", "Grace").await, (StatusCode::OK, "Ada".into()));
    assert_eq!(
        call(&app, "GET", "/users/7", "").await,
        (StatusCode::OK, r#"{"id":7,"name":"Grace"}"#.into())
    );
    assert_eq!(
        call(&app, "GET", "/batched/7", "").await,
        (StatusCode::OK, r#"{"id":7,"name":"Grace"}"#.into())
    );
    assert_eq!(call(&app, "GET", "/batched/8", "").await, (StatusCode::OK, "null".into()));
    let (status, shard) = call(&app, "POST", "/orgs/org_123/agents", "Ada").await;
    assert_eq!((status, shard.starts_with("shard_")), (StatusCode::OK, true), "{shard}");
    let task = r#"{"agent_id":"agent_123","goal":"Process data"}"#;
    assert_eq!(call(&app, "POST", "/tasks", task).await.0, StatusCode::ACCEPTED);
    assert_eq!(service.queue.depth().await.unwrap().ready, 1);
    assert_eq!(call(&app, "GET", "/health", "").await.0, StatusCode::OK);
}
