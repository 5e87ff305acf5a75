//! The end of a service, when it goes well and when it does not.

use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::{any, get};
use resonant_queue::{Delivery, PartitionedQueue};
use resonant_sdk::app::Resonant;
use resonant_sdk::db::params;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::{Task, ask, file};

const SERVED: &str = "
    [http]
    listen = '127.0.0.1:0'
    without_tokens = true
    [health]
    drain_delay = '300ms'
    [queues.session-tasks]
    partition_key = 'agent_id'
    drain_timeout = '60s'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_turns_not_ready_first_and_answers_until_balancers_have_noticed() {
    let app = Resonant::open(file(SERVED).read().unwrap()).await.unwrap();
    let (begun, mut begins) = mpsc::channel(1);
    let slow = get(async move || {
        let _ = begun.send(()).await;
        sleep(Duration::from_millis(600)).await;
        "done"
    });
    let address = app.serve(Router::new().route("/slow", slow)).await.unwrap().unwrap();
    app.health().run_all().await;
    assert_eq!(ask(address, "GET /health/ready").await.unwrap().0, 200);
    let asked = tokio::spawn(async move { ask(address, "GET /slow").await });
    begins.recv().await.unwrap();

    let stopping = tokio::spawn(app.stopping());
    let ending = tokio::spawn({
        let app = app.clone();
        async move { app.shutdown(Duration::from_secs(20)).await }
    });
    stopping.await.unwrap();
    let (code, answer) = ask(address, "GET /health/ready").await.unwrap();
    assert_eq!(code, 503);
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(ask(address, "GET /health/live").await.unwrap().0, 200);
    let report = ending.await.unwrap();
    assert!(report.is_clean(), "{report}");
    // The request that was under way was answered, and nobody is listened to any more.
    assert_eq!(asked.await.unwrap().unwrap().0, 200);
    assert!(ask(address, "GET /health/live").await.is_err());
}

/// Workers whose handlers say that they have begun, and then hang.
async fn handlers_that_never_end(
    app: &Resonant,
    begun: &mpsc::Sender<()>,
) -> PartitionedQueue<Task> {
    let tasks = app.queue::<Task>("session-tasks").await.unwrap();
    let (queue, begun) = (tasks.clone(), begun.clone());
    let start = move || {
        let begun = begun.clone();
        let handler = async move |_: Delivery<Task>| {
            let _ = begun.send(()).await;
            std::future::pending().await
        };
        queue.worker(handler).start()
    };
    app.workers("session-tasks", start).await.unwrap();
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_is_stopped_at_the_deadline_and_named() {
    let app = Resonant::open(file(SERVED).read().unwrap()).await.unwrap();
    let (begun, mut begins) = mpsc::channel(2);
    let tasks = handlers_that_never_end(&app, &begun).await;
    let stuck = get(async move || {
        let _ = begun.send(()).await;
        std::future::pending::<&str>().await
    });
    let address = app.serve(Router::new().route("/stuck", stuck)).await.unwrap().unwrap();
    let asked = tokio::spawn(async move { ask(address, "GET /stuck").await });
    tasks.publish(&Task::new(1, 1)).await.unwrap();
    begins.recv().await.unwrap();
    begins.recv().await.unwrap();

    let began = Instant::now();
    let report = app.shutdown(Duration::from_secs(2)).await;
    // Generous: the machine may be busy. A worker alone would have waited a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let left: Vec<_> = report.left().collect();
    assert_eq!(
        left,
        [
            "1 requests were cut off",
            "1 workers were stopped in the middle; their messages will be handed out again",
        ]
    );
    assert!(!report.is_clean() && report.to_string().contains("; "));
    assert_eq!(asked.await.unwrap().unwrap().0, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_outlast_their_drain_are_named_though_the_step_had_time() {
    let text = SERVED.replace("'60s'", "'200ms'");
    let app = Resonant::open(file(&text).read().unwrap()).await.unwrap();
    let (begun, mut begins) = mpsc::channel(1);
    let tasks = handlers_that_never_end(&app, &begun).await;
    tasks.publish(&Task::new(1, 1)).await.unwrap();
    begins.recv().await.unwrap();
    let report = app.shutdown(Duration::from_secs(60)).await;
    let left: Vec<_> = report.left().collect();
    assert_eq!(
        left,
        [
            "the handlers of 1 partitions took longer than drain_timeout and were stopped; their messages will be handed out again"
        ]
    );
}

/// One that asks the database once it is let go.
fn held(app: &Resonant) -> (Router, watch::Sender<bool>, mpsc::Receiver<()>) {
    let (release, held) = watch::channel(false);
    let (begun, begins) = mpsc::channel(1);
    let db = app.database().unwrap().clone();
    let route = get(async move || {
        let _ = begun.send(()).await;
        let _ = held.clone().wait_for(|released| *released).await;
        db.ping().await.map(|()| "done").map_err(|_| axum::http::StatusCode::BAD_GATEWAY)
    });
    (Router::new().route("/held", route), release, begins)
}

const WITH_DATABASE: &str = "
    [http]
    listen = '127.0.0.1:0'
    without_tokens = true
    [health]
    drain_delay = '0s'
    [database]
    primary = 'sqlite::memory:'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_is_dropped_or_asked_for_twice_leaves_no_request_behind() {
    let app = Resonant::open(file(WITH_DATABASE).read().unwrap()).await.unwrap();
    let (routes, release, mut begins) = held(&app);
    let address = app.serve(routes).await.unwrap().unwrap();
    let asked = tokio::spawn(async move { ask(address, "GET /held").await });
    begins.recv().await.unwrap();
    let limit = Duration::from_secs(60);
    // It has come to the requests, or not: both are fine.
    let dropped = timeout(Duration::from_millis(300), app.shutdown(limit)).await;
    assert!(dropped.is_err(), "{dropped:?}");
    let end = || {
        let app = app.clone();
        tokio::spawn(async move { app.shutdown(limit).await })
    };
    let (mut one, mut other) = (end(), end());
    let early = async {
        tokio::select! { _ = &mut one => {}, _ = &mut other => {} }
    };
    assert!(timeout(Duration::from_millis(300), early).await.is_err(), "one did not wait");
    release.send_replace(true);
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert!(one.is_clean() && other.is_clean(), "{one} / {other}");
    assert_eq!(asked.await.unwrap().unwrap().0, 200);
    assert!(ask(address, "GET /health/live").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgraded_connection_is_waited_for_and_named_if_it_does_not_end() {
    for ends in [true, false] {
        let app = Resonant::open(file(WITH_DATABASE).read().unwrap()).await.unwrap();
        let (release, held) = watch::channel(false);
        let db = app.database().unwrap().clone();
        let (told, mut says) = mpsc::channel(1);
        let stopping = app.clone();
        let route = any(async move |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async move |_socket| {
                stopping.stopping().await;
                let _ = held.clone().wait_for(|released| *released).await;
                let _ = told.send(db.ping().await.is_ok()).await;
            })
        });
        let address = app.serve(Router::new().route("/ws", route)).await.unwrap().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        let limit = Duration::from_secs(if ends { 60 } else { 2 });
        let ending = tokio::spawn({
            let app = app.clone();
            async move { app.shutdown(limit).await }
        });
        if ends {
            app.stopping().await;
            // Time for an end that does not wait to close what the connection uses.
            sleep(Duration::from_millis(300)).await;
            release.send_replace(true);
            assert_eq!(says.recv().await, Some(true));
        }
        let report = ending.await.unwrap();
        let left: Vec<_> = report.left().collect();
        let named = ["1 upgraded connections, such as WebSockets, did not end"];
        assert_eq!(left, if ends { &[][..] } else { &named[..] });
        drop(client);
    }
}

#[tokio::test]
async fn the_end_takes_no_longer_than_it_may_whatever_is_still_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let text = format!(
        "[database]
         primary = 'sqlite:{at}/app.db'
         [sharded_database]
         shard_key = 'org_id'
         tables = {{ agents = 'text' }}
         [sharded_database.shards]
         shard_0 = 'sqlite:{at}/shard0.db'"
    );
    let app = Resonant::open(file(&text).read().unwrap()).await.unwrap();
    let (in_use, mut uses) = mpsc::channel(2);
    let database = app.database().unwrap().clone();
    let shard = app.sharded_database().unwrap().shard("shard_0").unwrap().clone();
    let users: Vec<_> = [database, shard]
        .into_iter()
        .map(|db| {
            let in_use = in_use.clone();
            tokio::spawn(async move {
                db.transaction(async |tx| {
                    tx.query("SELECT 1", params![]).await?;
                    let _ = in_use.send(()).await;
                    std::future::pending::<resonant_sdk::db::Result<()>>().await
                })
                .await
            })
        })
        .collect();
    uses.recv().await.unwrap();
    uses.recv().await.unwrap();
    // From here on time passes only where everybody waits for it, so what is measured is what was decided.
    tokio::time::pause();
    let limit = Duration::from_secs(4);
    let report = app.shutdown(limit).await;
    assert!(report.took <= limit + Duration::from_millis(100), "{report}");
    assert_eq!(report.left().count(), 2, "{report}");
    for user in users {
        user.abort();
    }
}
