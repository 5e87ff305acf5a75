//! `queue-peers postgres|rabbitmq URL`: messages a second through a job queue, measured once for each line that comes in.

mod amqp;
mod postgres;

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apalis_core::error::{BoxDynError, WorkerError};
use apalis_core::task::data::Data;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Who publishes and who works.
const PUBLISHERS: usize = 4;
const WORKERS: usize = 4;

/// The message of the bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    agent_id: String,
    goal: String,
}

impl Task {
    fn new(number: usize) -> Self {
        Self { agent_id: format!("agent_{}", number % 1000), goal: "x".repeat(220) }
    }

    fn hundred(first: usize) -> Vec<Self> {
        (first..first + 100).map(Self::new).collect()
    }
}

/// How many messages were handled, and who waits for the last.
struct Tally {
    handled: AtomicUsize,
    count: usize,
    done: Notify,
}

impl Tally {
    fn of(count: usize) -> Arc<Self> {
        Arc::new(Self { handled: AtomicUsize::new(0), count, done: Notify::new() })
    }
}

async fn handle(task: Task, tally: Data<Arc<Tally>>) -> Result<(), BoxDynError> {
    std::hint::black_box(task);
    if tally.handled.fetch_add(1, Ordering::Relaxed) + 1 == tally.count {
        tally.done.notify_one();
    }
    Ok(())
}

/// Resolves when the workers are to stop.
async fn stopped(mut stop: watch::Receiver<bool>) -> Result<(), WorkerError> {
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [which, url] = &arguments[..] else { return Err("postgres|rabbitmq URL".into()) };
    let postgres = match which.as_str() {
        "postgres" => Some(postgres::Apalis::connect(url).await?),
        _ => None,
    };
    for (turn, _) in std::io::stdin().lock().lines().enumerate() {
        let rate = match &postgres {
            Some(apalis) => apalis.through().await?,
            None => amqp::through(url, turn).await?,
        };
        println!("{rate}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
