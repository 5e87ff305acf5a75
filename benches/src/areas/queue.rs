//! Messages a second through the engines.

pub(super) mod peers;
mod postgres;
pub(crate) mod wake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use resonant_queue::{Delivery, Durability, Memory, PartitionedQueue, Run, Sqlite};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::Area;
use crate::Outcome;
use crate::harness::{Case, now, runtime, storm};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "queue",
    about: "`PartitionedQueue` on the engines that need no server, then on RabbitMQ: 16 partitions, messages of about 256 bytes of JSON, 1,000 keys. No \
            peer keeps order per key in the process, so those are figures; on RabbitMQ raw lapin does the same work without order per key, \
            leases and retries. Publish counts confirmed messages. Consume counts messages \
            of a full queue from the start of the worker to the end of its drain: handled by 64 handlers at a time, and settled. \
            SQLite writes to the disk of the machine: normal survives the process, full survives power loss. Five turns each. On \
            PostgreSQL, which syncs its commits, four publishers send batches of 100 while 64 handlers run; beside it a queue as one \
            writes it by hand over deadpool-postgres, which keeps no order and knows no retries: bulk inserts, and rows taken by hundreds with \
            SKIP LOCKED; and apalis-postgres, on the same server by a program of its own, which keeps none either. apalis-amqp \
            asks the broker for no confirms. The wake is the time from the begin of a publish to the begin of its handler that 99 of 100 messages do not \
            exceed, at 300 messages a second.",
    peers: &["lapin", "apalis-amqp 1.0.0", "apalis-postgres 1.0.0", "deadpool-postgres"],
    run,
};

/// Messages a consumer finds, by engine.
const STORED: usize = 100_000;
const STORED_IN_SQLITE: usize = 20_000;
const AGENTS: usize = 1000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) agent_id: String,
    goal: String,
}

impl Task {
    pub(super) fn new(number: usize) -> Self {
        Self { agent_id: format!("agent_{}", number % AGENTS), goal: "x".repeat(220) }
    }
}

#[derive(Debug, Clone, Copy)]
enum Engine {
    Memory,
    Normal,
    Full,
}

fn run(report: &mut Report) -> Outcome {
    let bench =
        Bench { runtime: runtime()?, files: tempfile::tempdir()?, opened: AtomicUsize::new(0) };
    for (engine, names, abouts) in [
        (
            Engine::Memory,
            ["queue.memory.publish", "queue.memory.publish_many", "queue.memory.consume"],
            [
                "memory, publish, 64 tasks",
                "memory, publish_many of 100, 4 tasks",
                "memory, consume",
            ],
        ),
        (
            Engine::Normal,
            ["queue.normal.publish", "queue.normal.publish_many", "queue.normal.consume"],
            [
                "SQLite normal, publish, 64 tasks",
                "SQLite normal, publish_many of 100, 4 tasks",
                "SQLite normal, consume",
            ],
        ),
        (
            Engine::Full,
            ["queue.full.publish", "queue.full.publish_many", "queue.full.consume"],
            [
                "SQLite full, publish, 64 tasks",
                "SQLite full, publish_many of 100, 4 tasks",
                "SQLite full, consume",
            ],
        ),
    ] {
        let figure = |at: usize| Case::new(names[at], abouts[at], "messages").turns(5);
        figure(0).run("PartitionedQueue", || bench.publish(engine)).measure(report)?;
        figure(1).run("PartitionedQueue", || bench.publish_many(engine)).measure(report)?;
        figure(2).run("PartitionedQueue", || bench.consume(engine)).measure(report)?;
    }
    let about = "memory, publish_many of 100 and consume at once";
    Case::new("queue.memory.through", about, "messages")
        .turns(5)
        .run("PartitionedQueue", || bench.through(By::Message))
        .measure(report)?;
    let about = "the same, consumed in runs of up to 100 of a key";
    Case::new("queue.memory.msgs_per_s", about, "messages")
        .goal(1_000_000.0)
        .turns(5)
        .run("PartitionedQueue", || bench.through(By::Run))
        .measure(report)?;
    wake::run(&bench.runtime, report)?;
    postgres::run(&bench.runtime, report)?;
    super::rabbitmq::run(report)
}

/// How messages are handled.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    Message,
    Run,
}

struct Bench {
    runtime: Runtime,
    files: TempDir,
    opened: AtomicUsize,
}

impl Bench {
    /// A new queue in a new file.
    fn open(&self, engine: Engine) -> Outcome<PartitionedQueue<Task>> {
        let file = format!("{}.db", self.opened.fetch_add(1, Ordering::Relaxed));
        let sqlite = |durability| {
            Sqlite::builder(self.files.path().join(&file)).durability(durability).exclusive(true)
        };
        let builder = PartitionedQueue::builder("bench").partitions(16).partition_key("agent_id");
        self.runtime.block_on(async {
            let builder = match engine {
                Engine::Memory => builder.backend(Memory::new()),
                Engine::Normal => builder.backend(sqlite(Durability::Normal).open().await?),
                Engine::Full => builder.backend(sqlite(Durability::Full).open().await?),
            };
            Ok(builder.build().await?)
        })
    }

    fn publish(&self, engine: Engine) -> Outcome<f64> {
        let queue = self.open(engine)?;
        Ok(storm(&self.runtime, 64, |task, weather| {
            let queue = queue.clone();
            async move {
                let mut done = 0;
                let message = Task::new(task);
                while weather.lasts() {
                    done += u64::from(queue.publish(&message).await.is_ok());
                }
                done
            }
        }))
    }

    fn publish_many(&self, engine: Engine) -> Outcome<f64> {
        let queue = self.open(engine)?;
        Ok(storm(&self.runtime, 4, |task, weather| {
            let queue = queue.clone();
            async move {
                let mut done = 0;
                let messages: Vec<_> =
                    (0..100).map(|number| Task::new(task * 100 + number)).collect();
                while weather.lasts() {
                    if let Ok(receipts) = queue.publish_many(&messages).await {
                        done += receipts.len() as u64;
                    }
                }
                done
            }
        }))
    }

    fn consume(&self, engine: Engine) -> Outcome<f64> {
        let queue = self.open(engine)?;
        let stored = match engine {
            Engine::Memory => STORED,
            Engine::Normal | Engine::Full => STORED_IN_SQLITE,
        };
        self.runtime.block_on(async {
            fill(&queue, 0, stored).await?;
            let started = now();
            drain(&queue, stored, By::Message, async { Ok(()) }).await?;
            Ok(stored as f64 / started.elapsed().as_secs_f64())
        })
    }

    /// Publishers and the worker at the same time.
    fn through(&self, by: By) -> Outcome<f64> {
        let queue = self.open(Engine::Memory)?;
        self.runtime.block_on(async {
            let started = now();
            drain(&queue, 4 * STORED, by, async {
                let publishers: Vec<_> = (0..4)
                    .map(|task| {
                        let queue = queue.clone();
                        tokio::spawn(async move { fill(&queue, task, STORED).await })
                    })
                    .collect();
                for publisher in publishers {
                    publisher.await??;
                }
                Ok(())
            })
            .await?;
            Ok(4.0 * STORED as f64 / started.elapsed().as_secs_f64())
        })
    }
}

/// Publishes `count` messages by hundreds.
pub(super) async fn fill(queue: &PartitionedQueue<Task>, first: usize, count: usize) -> Outcome {
    let messages: Vec<_> = (0..AGENTS).map(|number| Task::new(first + number)).collect();
    for hundred in messages.chunks(100).cycle().take(count / 100) {
        queue.publish_many(hundred).await?;
    }
    Ok(())
}

/// Handles `count` messages, those that `publish` adds included, and settles them.
pub(super) async fn drain(
    queue: &PartitionedQueue<Task>,
    count: usize,
    by: By,
    publish: impl Future<Output = Outcome>,
) -> Outcome {
    let (handled, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let tally = {
        let done = Arc::clone(&done);
        move |messages: usize| {
            if handled.fetch_add(messages, Ordering::Relaxed) + messages == count {
                done.notify_one();
            }
        }
    };
    let worker = match by {
        By::Message => {
            let handler = async move |_: Delivery<Task>| {
                tally(1);
                Ok(())
            };
            queue.worker(handler).concurrency(64).start().await?
        }
        By::Run => {
            let handler = async move |run: Run<Task>| {
                tally(run.len());
                Ok(())
            };
            queue.worker_runs(100, handler).concurrency(64).start().await?
        }
    };
    publish.await?;
    done.notified().await;
    let report = worker.drain().await?;
    if report.done < count as u64 {
        return Err(format!("only {} of {count} messages were settled", report.done).into());
    }
    Ok(())
}
