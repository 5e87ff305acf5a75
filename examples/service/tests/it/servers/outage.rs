//! The database goes away under a running service, and replicas fall behind.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::Servers;
use crate::process::{LIMIT, Role};

const TASKS: usize = 40;

/// Clients ask again under the same id until they are answered with 202.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_asked_for_through_an_outage_of_the_database_are_each_done_once() {
    let servers = Servers::start().await;
    let primary = servers.primary();
    let (api, worker) =
        tokio::join!(Role::start(servers.role("api")), Role::start(servers.role("worker")));
    let mut refused = 0;
    let posting = async {
        for number in 0..TASKS {
            if number == TASKS / 4 {
                primary.stop().await.unwrap();
            }
            let id = format!("t{number}");
            let task =
                json!({ "id": id, "agent_id": format!("agent_{}", number % 5), "goal": "x" });
            loop {
                let answer = api.post("/sessions/s1/tasks", task.clone()).await;
                if matches!(answer, Ok((202, _))) {
                    break;
                }
                refused += 1;
                if refused == 5 {
                    primary.start().await.unwrap();
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
    };
    timeout(LIMIT, posting).await.expect("the service does not come back");
    assert!(refused >= 5);
    let told = api.watch("s1").await;
    assert_eq!(told.last(), Some(&json!({ "end": true, "tasks": TASKS })), "{told:?}");
    let count = "SELECT count(*) || ' ' || count(*) FILTER (WHERE state = 'done') FROM tasks";
    assert_eq!(primary.value(count).await.unwrap(), format!("{TASKS} {TASKS}"));
    for role in [api, worker] {
        role.signal("-TERM");
        assert!(role.ended().await.0.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_does_not_end_because_a_replica_has_not_heard_of_its_last_task() {
    let servers = Servers::start().await;
    let api = Role::start(servers.role("api")).await;
    let session = Role::start(servers.role("session")).await;
    let worker = Role::start(servers.role("worker")).await;
    let post = async |id: &str| {
        let task = json!({ "id": id, "agent_id": "agent_1", "goal": "x" });
        assert_eq!(api.post("/sessions/s1/tasks", task).await.unwrap().0, 202);
    };
    post("first").await;
    assert_eq!(session.watch("s1").await.last(), Some(&json!({ "end": true, "tasks": 1 })));
    worker.signal("-TERM");
    assert!(worker.ended().await.0.success());
    servers.postgres.caught_up().await.unwrap();
    let replica = servers.postgres.replica(0);
    replica.sql("SELECT pg_wal_replay_pause()").await.unwrap();
    post("second").await;
    let watching = session.watch("s1");
    let working = async {
        // Whoever believes the replica has said by now that there is an end.
        sleep(Duration::from_secs(2)).await;
        let worker = Role::start(servers.role("worker")).await;
        let all = servers.primary();
        while all.value("SELECT count(*) FROM tasks WHERE state = 'done'").await.unwrap() != "2" {
            sleep(Duration::from_millis(50)).await;
        }
        replica.sql("SELECT pg_wal_replay_resume()").await.unwrap();
        worker
    };
    let (told, _worker) = tokio::join!(watching, working);
    assert_eq!(told.last(), Some(&json!({ "end": true, "tasks": 2 })), "{told:?}");
    let states = |id: &str| -> Vec<&Value> {
        told.iter().filter(|it| it["id"] == id).map(|it| &it["state"]).collect()
    };
    assert_eq!(states("first"), ["done"]);
    assert_eq!(states("second").last(), Some(&&json!("done")));
}
