//! Autoscaler: workers of a queue come with its depth and go with it, and a page shows them.
//!
//! `cargo run --example scaling`, or with `-- --stay` to keep it going and watch it in a browser.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use resonant_health::{Check, HealthChecker};
use resonant_queue::{Delivery, Memory, PartitionedQueue, SequenceCheck, Worker};
use resonant_scale::{
    Autoscaler, Behavior, HpaConfig, MetricSpec, ScaleTarget, ScalingPolicy, ScalingRules,
    WorkerPool,
};
use resonant_sdk::http::{Api, rows};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Of this example only. A service reads its own from where it keeps its secrets.
const TOKEN: &str = "only-for-this-example";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    agent_id: u64,
}

type Tasks = PartitionedQueue<Task>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stays = std::env::args().any(|argument| argument == "--stay");
    let tasks = Tasks::builder("session-tasks")
        .partition_key("agent_id")
        .backend(Memory::new())
        .build()
        .await?;
    let check = Arc::new(SequenceCheck::new("session-tasks"));
    let workers = workers(&tasks, &check);
    workers.set(1).await?;
    let scaler = scaler(&tasks, &workers)?;
    scaler.start()?;

    let health = HealthChecker::new().with(Check::findings("queue", {
        let tasks = tasks.clone();
        move || tasks.findings()
    }));
    health.start()?;
    let listener = TcpListener::bind(if stays { "127.0.0.1:8080" } else { "127.0.0.1:0" }).await?;
    println!("http://{} shows it; the token is {TOKEN}", listener.local_addr()?);
    let page = tokio::spawn(axum::serve(listener, page(&tasks, &scaler, health)?).into_future());

    let mut most = 0;
    for round in 1.. {
        tasks.publish_many((0..400).map(|number| Task { agent_id: number % 40 })).await?;
        loop {
            let (depth, running) = (tasks.depth().await?.unfinished(), workers.running());
            most = most.max(running);
            if depth == 0 && running == 1 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        println!("round {round}: 400 tasks done");
        if !stays {
            break;
        }
        sleep(Duration::from_secs(10)).await;
    }

    scaler.stop().await;
    workers.close().await;
    page.abort();
    for change in scaler.history() {
        println!("{}  {} -> {}  {}", change.at, change.from, change.to, change.reason);
    }
    assert!(most >= 4 && check.report().in_order() && workers.failures() == 0);
    println!(
        "from 1 to {most} workers and back; nothing was lost, and every agent's tasks came in order"
    );
    Ok(())
}

/// A worker takes tasks one at a time; one that is taken away ends the task it has.
fn workers(tasks: &Tasks, check: &Arc<SequenceCheck>) -> WorkerPool<Worker> {
    let (tasks, check) = (tasks.clone(), Arc::clone(check));
    WorkerPool::new(
        move || {
            let (tasks, check) = (tasks.clone(), Arc::clone(&check));
            async move {
                let handler = async move |delivery: Delivery<Task>| {
                    check.observe(&delivery);
                    sleep(Duration::from_millis(20)).await;
                    Ok(())
                };
                tasks.worker(handler).concurrency(1).start().await
            }
        },
        |worker: Worker| async move { worker.drain().await },
    )
}

/// Ten tasks to a worker, as in the guide, only in a hurry.
fn scaler(
    tasks: &Tasks,
    workers: &WorkerPool<Worker>,
) -> Result<Autoscaler, resonant_scale::Error> {
    let moment = Duration::from_millis(500);
    let policy = HpaConfig::new(1, 8)
        .metric(MetricSpec::external_average("queue_depth", 10.0))
        .behavior(Behavior {
            scale_up: ScalingRules::new(Duration::ZERO, [ScalingPolicy::pods(4, moment)]),
            scale_down: ScalingRules::new(moment, [ScalingPolicy::percent(50, moment)]),
        });
    let tasks = tasks.clone();
    Autoscaler::builder("session-workers")
        .policy(policy)
        .measure("queue_depth", move || {
            let tasks = tasks.clone();
            async move { tasks.depth().await.map(|depth| depth.unfinished() as f64) }
        })
        .interval(Duration::from_millis(100))
        .target(workers.clone())
        .build()
}

fn page(
    tasks: &Tasks,
    scaler: &Autoscaler,
    health: HealthChecker,
) -> Result<Router, resonant_scale::Error> {
    let tasks = tasks.clone();
    let api = Api::builder()
        .service("scaling example")
        .token("reader", TOKEN)
        .health(health)
        .scaler(scaler.clone())
        .show(move || {
            let tasks = tasks.clone();
            async move {
                let depth = tasks.depth().await.map_err(io::Error::other)?;
                let row = rows::Queue {
                    name: "session-tasks".into(),
                    depth: Some(depth.unfinished()),
                    in_flight: Some(depth.in_flight),
                    oldest_seconds: depth.oldest_age.map(|age| age.as_secs_f64()),
                    parked_keys: Some(depth.parked_keys),
                    dead: Some(depth.dead),
                    ..Default::default()
                };
                Ok::<_, io::Error>(vec![row])
            }
        })
        .build()?;
    Ok(api.router())
}
