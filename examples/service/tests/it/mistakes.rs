//! Clients that ask twice or go away, and parts that fail: nothing is lost, nothing is done twice, nothing is denied that is there.

use std::time::Duration;

use resonant_sdk::db::{Database, Error, ErrorKind, params};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::process::{LIMIT, Role, service};

async fn database(folder: &tempfile::TempDir, name: &str) -> Database {
    Database::connect(format!("sqlite:{}/{name}", folder.path().display())).await.unwrap()
}

fn end(tasks: u64) -> serde_json::Value {
    json!({ "end": true, "tasks": tasks })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_asked_for_twice_under_its_id_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let all = Role::start(service(folder.path())).await;
    let task = json!({ "id": "t1", "agent_id": "agent_123", "goal": "Process data" });
    for _ in 0..3 {
        let (code, answer) = all.post("/sessions/s1/tasks", task.clone()).await.unwrap();
        assert_eq!((code, answer), (202, json!({ "id": "t1" })));
    }
    // The id is the session's own.
    assert_eq!(all.post("/sessions/s2/tasks", task).await.unwrap().0, 202);
    for session in ["s1", "s2"] {
        let told = all.watch(session).await;
        assert_eq!(told.last(), Some(&end(1)), "{told:?}");
    }
}

/// What a database that is away does to the worker, without the wait: its table is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_for_long_parks_no_task() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let mut command = service(folder.path());
        command.arg(name);
        for setting in ["INITIAL", "MAX"] {
            let name = format!("RESONANT__QUEUES__SESSION_TASKS__RETRY__BACKOFF__{setting}");
            command.env(name, "50ms");
        }
        Role::start(command)
    };
    let api = start("api").await;
    let task = json!({ "id": "t1", "agent_id": "agent_123", "goal": "Process data" });
    assert_eq!(api.post("/sessions/s1/tasks", task).await.unwrap().0, 202);
    let db = database(&folder, "service.db").await;
    db.write().batch("ALTER TABLE tasks RENAME TO away").await.unwrap();
    let worker = start("worker").await;
    let (retried, parked) = ("resonant_queue_retries_total{", "resonant_queue_parked_keys{");
    let failing = async {
        loop {
            let (_, metrics) = worker.get("/api/v1/metrics").await.unwrap();
            let value = |name: &str| {
                let line = metrics.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
            };
            if value(retried) >= 30.0 || value(parked) > 0.0 {
                break value(retried);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let attempts = timeout(LIMIT, failing).await.expect("it is not tried again");
    assert!(attempts >= 30.0, "given up after {attempts} attempts");
    db.write().batch("ALTER TABLE away RENAME TO tasks").await.unwrap();
    let told = api.watch("s1").await;
    assert_eq!(told.last(), Some(&end(1)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_in_the_middle_leaves_nothing_that_nobody_works_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = service(folder.path());
    command.arg("api");
    let api = Role::start(command).await;
    // Nobody can publish while somebody else writes.
    let queue = database(&folder, "tasks.db").await;
    let (locked, is_locked) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let locked = std::sync::Arc::new(std::sync::Mutex::new(Some((locked, released))));
    let holding = tokio::spawn(async move {
        let held = queue.transaction(async |tx| {
            tx.execute("CREATE TABLE held (x INTEGER)", params![]).await?;
            let taken = locked.lock().unwrap().take();
            if let Some((locked, released)) = taken {
                let _ = locked.send(());
                let _ = released.await;
            }
            Err::<(), _>(Error::new(ErrorKind::Rejected, "test", "nothing is to stay"))
        });
        held.await
    });
    is_locked.await.unwrap();
    let mut client = TcpStream::connect(api.address).await.unwrap();
    let body = r#"{"agent_id":"agent_123","goal":"x"}"#;
    let head = "POST /sessions/s1/tasks HTTP/1.1\r\nHost: h\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(request.as_bytes()).await.unwrap();
    let mut byte = [0; 1];
    // Until it is in the middle of it. It holds wherever it is.
    let answered = timeout(Duration::from_millis(500), client.read(&mut byte)).await;
    assert!(answered.is_err(), "it was answered");
    api.signal("-KILL");
    api.ended().await;
    release.send(()).unwrap();
    assert!(holding.await.unwrap().is_err());

    // A task of the same agent comes after whatever is left of the first.
    let task = json!({ "agent_id": "agent_123", "goal": "after it" });
    let all = Role::start(service(folder.path())).await;
    assert_eq!(all.post("/sessions/s2/tasks", task).await.unwrap().0, 202);
    assert_eq!(all.watch("s2").await.last(), Some(&end(1)));
    let db = database(&folder, "service.db").await;
    let sql = "SELECT count(*) FROM tasks WHERE state <> 'done'";
    let undone: i64 = db.read().query_one_as(sql, params![]).await.unwrap();
    assert_eq!(undone, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_fails_makes_no_agent_unknown_and_a_cache_that_is_away_no_agent_unmade() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = service(folder.path());
    command.env("RESONANT__CACHE__NODES", "redis://127.0.0.1:1");
    let all = Role::start(command).await;
    let ada = json!({ "id": "agent_123", "name": "Ada" });
    assert_eq!(all.post("/orgs/org_123/agents", ada).await.unwrap().0, 201);
    assert_eq!(all.get("/orgs/org_123/agents/agent_123").await.unwrap().0, 200);
    assert_eq!(all.get("/orgs/org_123/agents/nobody").await.unwrap().0, 404);
    for shard in ["shard_0.db", "shard_1.db"] {
        let shard = database(&folder, shard).await;
        shard.write().batch("ALTER TABLE agents RENAME TO away").await.unwrap();
    }
    assert_eq!(all.get("/orgs/org_123/agents/agent_7").await.unwrap().0, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_is_not_told_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = service(folder.path());
    command.arg("session");
    // It makes no tables itself.
    let db = database(&folder, "service.db").await;
    db.write()
        .batch("CREATE TABLE tasks (session TEXT, id TEXT, state TEXT, result TEXT)")
        .await
        .unwrap();
    let session = Role::start(command).await;
    let mut client = TcpStream::connect(session.address).await.unwrap();
    let request = "GET /ws?session=nobodys HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    // It never answers a ping.
    let mut heard = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut heard)).await.expect("it is still told").unwrap();
    let head = heard.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    assert!(heard.starts_with(b"HTTP/1.1 101"));
    assert_eq!(heard[head..head + 2], [0x89, 0], "no ping came first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_comes_while_the_service_opens_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // A database that takes connections and says nothing.
    let database = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = service(folder.path());
    let url = format!("postgresql://app@{}/app", database.local_addr().unwrap());
    command.args(["api", "--listen", "127.0.0.1:0"]).env("DATABASE_URL", url);
    command.env("RESONANT__DATABASE__POOL__ACQUIRE_TIMEOUT", "2s");
    let mut child = command.spawn().unwrap();
    let connected = timeout(LIMIT, database.accept()).await.unwrap().unwrap();
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let status = timeout(LIMIT, child.wait()).await.expect("it does not end").unwrap();
    assert!(status.success(), "{status}");
    drop(connected);
}
