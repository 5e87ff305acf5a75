//! The end of a service, when it goes well and when it does not.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use resonant_queue::Delivery;
use resonant_sdk::app::Resonant;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_end_is_stopped_at_the_deadline_and_named() {
    let app = Resonant::open(file(SERVED).read().unwrap()).await.unwrap();
    let tasks = app.queue::<Task>("session-tasks").await.unwrap();
    let (begun, mut begins) = mpsc::channel(2);
    app.workers("session-tasks", {
        let (tasks, begun) = (tasks.clone(), begun.clone());
        move || {
            let begun = begun.clone();
            let handler = async move |_: Delivery<Task>| {
                let _ = begun.send(()).await;
                std::future::pending().await
            };
            tasks.worker(handler).start()
        }
    })
    .await
    .unwrap();
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
