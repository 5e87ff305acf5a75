//! apalis-postgres with what makes it fast: batches of 500, pushes in bulk, four workers that poll every two milliseconds, no
//! lock for each task; results are kept, as they are its acknowledgement. It keeps no order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apalis_core::backend::TaskSink;
use apalis_core::backend::ext::BackendExt;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_postgres::{Config, PostgresStorage};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::watch;

use crate::{Outcome, PUBLISHERS, Tally, Task, WORKERS, handle, stopped};

const MESSAGES: usize = 10_000;

pub(crate) struct Apalis {
    pool: PgPool,
}

impl Apalis {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        let pool = PgPoolOptions::new().max_connections(16).connect(url).await?;
        PostgresStorage::setup(&pool).await?;
        Ok(Self { pool })
    }

    fn storage(&self) -> PostgresStorage<Task> {
        let config = Config::default().queue("bench").batch_size(500).lock_tasks(false);
        PostgresStorage::new(&self.pool).with_config(config)
    }

    /// Publish by hundreds and consume at once, to the last acknowledgement.
    pub(crate) async fn through(&self) -> Outcome<f64> {
        // What it keeps of finished tasks would make it slower from turn to turn.
        sqlx::query("TRUNCATE apalis.jobs").execute(&self.pool).await?;
        let (tally, (stop, stops)) = (Tally::of(MESSAGES), watch::channel(false));
        let started = Instant::now();
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let backend = self.storage().poll_with_interval(Duration::from_millis(2));
                let worker = WorkerBuilder::new(format!("bench-{number}").as_str())
                    .backend(backend)
                    .data(Arc::clone(&tally))
                    .build(handle);
                tokio::spawn(worker.run_until(stopped(stops.clone())))
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|task| {
                let mut storage = self.storage();
                tokio::spawn(async move {
                    for some in 0..MESSAGES / PUBLISHERS / 100 {
                        let tasks = Task::hundred(task + some * 100);
                        storage.push_bulk(tasks).await.map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for publisher in publishers {
            publisher.await??;
        }
        tally.done.notified().await;
        // What was acknowledged last is written before the workers end.
        stop.send_replace(true);
        for worker in workers {
            worker.await?.map_err(|error| error.to_string())?;
        }
        let took = started.elapsed();
        let left = "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&self.pool).await?;
        if left > 0 {
            return Err(format!("apalis left {left} tasks").into());
        }
        Ok(MESSAGES as f64 / took.as_secs_f64())
    }
}
