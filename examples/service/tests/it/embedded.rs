//! The three roles as processes that share nothing but files.

use serde_json::{Value, json};

use crate::process::{Role, hear, service};

/// Follows tasks from their POST to the end of their session's WebSocket.
pub(crate) async fn tasks_are_followed(api: &Role, watched: &Role) {
    let ada = json!({ "id": "agent_123", "name": "Ada" });
    let (code, _) = api.post("/orgs/org_123/agents", ada.clone()).await.unwrap();
    assert_eq!(code, 201);
    let (code, body) = api.get("/orgs/org_123/agents/agent_123").await.unwrap();
    assert_eq!((code, serde_json::from_str::<Value>(&body).unwrap()), (200, ada.clone()));
    assert_eq!(api.get("/orgs/org_123/agents/nobody").await.unwrap().0, 404);
    let (_, body) = api.get("/orgs/org_123/agents").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!([ada]));

    let mut posted = Vec::new();
    for number in 0..20 {
        let task = json!({ "agent_id": "agent_123", "goal": format!("Process data {number}") });
        let (code, answer) = api.post("/sessions/s1/tasks", task).await.unwrap();
        assert_eq!(code, 202);
        posted.push(answer["id"].as_str().unwrap().to_owned());
    }
    let told = watched.watch("s1").await;
    assert_eq!(told.last(), Some(&json!({ "end": true, "tasks": 20 })), "{told:?}");
    let mut done: Vec<_> = told
        .iter()
        .filter(|it| it["state"] == "done" && it["result"] == "11 letters")
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect();
    done.sort();
    posted.sort();
    assert_eq!(done, posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_follow_a_task_from_its_post_to_the_end_of_its_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let role = |name: &str| {
        let mut command = service(folder.path());
        command.arg(name);
        Role::start(command)
    };
    let api = role("api").await;
    let (worker, session) = (role("worker").await, role("session").await);
    tasks_are_followed(&api, &session).await;
    let (code, metrics) = api.get("/api/v1/metrics").await.unwrap();
    assert_eq!(code, 200);
    assert!(metrics.contains("requests_total{"), "{metrics}");
    for role in [session, api, worker] {
        role.signal("-TERM");
        let (status, said) = role.ended().await;
        assert!(status.success() && said.ends_with("nothing left"), "{status}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_waits_is_asked_to_come_back_and_a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = service(folder.path());
    command.env("RESONANT__HEALTH__DRAIN_DELAY", "80s");
    command.env("RESONANT__SERVICE__SHUTDOWN_DEADLINE", "300s");
    let all = Role::start(command).await;
    let waiting = all.connect("nobodys").await;
    // Ends the wait of the session, which has nothing to end it otherwise.
    all.signal("-TERM");
    let told = hear(waiting).await;
    assert!(told.is_empty(), "{told:?}");
    all.signal("-INT");
    let (status, _) = all.ended().await;
    assert_eq!(status.code(), Some(130));
}
