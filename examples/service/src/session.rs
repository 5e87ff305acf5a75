//! The role `session`: a WebSocket that is told how the tasks of a session go, until all of them are done.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::any;
use resonant_sdk::app::{self, Resonant};
use resonant_sdk::db::{self, Database, params};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::model::Progress;

/// How often a session looks.
const EVERY: Duration = Duration::from_millis(100);

pub(crate) fn routes(app: &Resonant) -> app::Result<Router> {
    app.database()?;
    Ok(Router::new().route("/ws", any(upgrade)).with_state(app.clone()))
}

#[derive(Deserialize)]
struct Which {
    session: String,
}

async fn upgrade(
    State(app): State<Resonant>,
    Query(Which { session }): Query<Which>,
    ws: WebSocketUpgrade,
) -> Response {
    ws.on_upgrade(async move |mut socket| {
        let Ok(db) = app.database() else { return };
        let frame = tokio::select! {
            code = follow(&mut socket, db, &session) => code,
            // Whoever watches connects again, to an instance that stays.
            () = app.stopping() => close_code::RESTART,
        };
        let frame = CloseFrame { code: frame, reason: "".into() };
        let _ = socket.send(Message::Close(Some(frame))).await;
    })
}

/// Sends every change; answers with the code to close with.
async fn follow(socket: &mut WebSocket, db: &Database, session: &str) -> u16 {
    let mut known: HashMap<String, Progress> = HashMap::new();
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return close_code::NORMAL,
                Some(Ok(_)) => continue,
            },
        }
        // A database that is away for a while is asked again.
        let Ok(tasks) = progress(db, session).await else { continue };
        for task in &tasks {
            if known.get(&task.id) != Some(task) {
                let told = socket.send(Message::text(json!(task).to_string())).await;
                if told.is_err() {
                    return close_code::NORMAL;
                }
                known.insert(task.id.clone(), task.clone());
            }
        }
        if !tasks.is_empty() && tasks.iter().all(|task| task.state == "done") {
            let end = json!({ "end": true, "tasks": tasks.len() });
            let _ = socket.send(Message::text(end.to_string())).await;
            return close_code::NORMAL;
        }
    }
}

async fn progress(db: &Database, session: &str) -> db::Result<Vec<Progress>> {
    let sql = "SELECT id, state, result FROM tasks WHERE session = $1 ORDER BY id";
    db.read().query_as(sql, params![session]).await
}
