//! The role `session`: a WebSocket that is told how the tasks of a session go, until all of them are done.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::any;
use resonant_sdk::app::{self, Resonant};
use resonant_sdk::db::{self, Database, params};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::model::{self, Progress};

/// How often a session looks.
const LOOK: Duration = Duration::from_millis(100);
/// How often a client is asked whether it is still there.
const PING: Duration = Duration::from_secs(5);
/// A client that says nothing for so long is gone.
const GONE: Duration = Duration::from_secs(12);
/// A client that takes nothing for so long is gone, too.
const STUCK: Duration = Duration::from_secs(5);

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
        let code = tokio::select! {
            code = follow(&mut socket, db, &session) => code,
            // Whoever watches connects again, to an instance that stays.
            () = app.stopping() => close_code::RESTART,
        };
        let frame = CloseFrame { code, reason: "".into() };
        tell(&mut socket, Message::Close(Some(frame))).await;
    })
}

/// Sends every change; answers with the code to close with.
async fn follow(socket: &mut WebSocket, db: &Database, session: &str) -> u16 {
    let mut known: HashMap<String, model::State> = HashMap::new();
    let (mut look, mut ping) = (interval(LOOK), interval(PING));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = ping.tick() => {
                if heard.elapsed() > GONE || !tell(socket, Message::Ping(Bytes::new())).await {
                    return close_code::AWAY;
                }
                continue;
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return close_code::NORMAL,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
            },
        }
        // Replicas may be behind. That all is done is for the primary to say, which knows of the last task that was accepted.
        let seems_done = !known.is_empty() && known.values().all(|it| *it == model::State::Done);
        // A database that is away for a while is asked again.
        let Ok(tasks) = progress(db, session, seems_done).await else { continue };
        for task in &tasks {
            // Nor is what was told taken back by a replica that is further behind than the last one.
            if known.get(&task.id).is_some_and(|told| *told >= task.state) {
                continue;
            }
            if !tell(socket, Message::text(json!(task).to_string())).await {
                return close_code::AWAY;
            }
            known.insert(task.id.clone(), task.state);
        }
        if seems_done && tasks.iter().all(|task| task.state == model::State::Done) {
            let end = json!({ "end": true, "tasks": tasks.len() });
            tell(socket, Message::text(end.to_string())).await;
            return close_code::NORMAL;
        }
    }
}

/// Whether the client took it.
async fn tell(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(STUCK, socket.send(message)).await, Ok(Ok(())))
}

async fn progress(db: &Database, session: &str, for_sure: bool) -> db::Result<Vec<Progress>> {
    let sql = "SELECT id, state, result FROM tasks WHERE session = $1 ORDER BY id";
    match for_sure {
        true => db.write().query_as(sql, params![session]).await,
        false => db.read().query_as(sql, params![session]).await,
    }
}
