//! apalis-amqp on a quorum queue, with a prefetch as large as ours, four publishers and four workers. It keeps no order. It asks
//! for no confirms and has no way to: a push is over when it is written. For each task it opens a channel and declares the
//! queue, so there are fewer of them here.

use std::sync::Arc;
use std::time::Instant;

use apalis_amqp::{AmqpBackend, Config};
use apalis_core::backend::TaskSink;
use apalis_core::worker::builder::WorkerBuilder;
use tokio::sync::watch;

use crate::{Outcome, PUBLISHERS, Tally, Task, WORKERS, handle, stopped};

const MESSAGES: usize = 2000;

pub(crate) async fn through(url: &str, turn: usize) -> Outcome<f64> {
    let queue = format!("apalis-{turn}");
    let config = Config::default().queue(queue.as_str()).prefetch_count(512).quorum(true);
    let backend =
        || AmqpBackend::<Task>::new_from_addr(url).map(|it| it.with_config(config.clone()));
    let tally = Tally::of(MESSAGES + WORKERS);
    let (stop, stops) = watch::channel(false);
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let mut backend = backend()?;
        // It acknowledges over the channel of its first push, and fails without one.
        backend.push(Task::new(number)).await?;
        let worker = WorkerBuilder::new(format!("bench-{number}").as_str())
            .backend(backend)
            .data(Arc::clone(&tally))
            .build(handle);
        workers.push(tokio::spawn(worker.run_until(stopped(stops.clone()))));
    }
    let started = Instant::now();
    let mut publishers = Vec::new();
    for task in 0..PUBLISHERS {
        let mut backend = backend()?;
        publishers.push(tokio::spawn(async move {
            for some in 0..MESSAGES / PUBLISHERS / 100 {
                let tasks = Task::hundred(task + some * 100);
                backend.push_bulk(tasks).await.map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        }));
    }
    for publisher in publishers {
        publisher.await??;
    }
    tally.done.notified().await;
    let took = started.elapsed();
    stop.send_replace(true);
    for worker in workers {
        worker.await?.map_err(|error| error.to_string())?;
    }
    Ok(MESSAGES as f64 / took.as_secs_f64())
}
