//! The main job: `cargo run --release --example flights`.
//!
//! ```text
//!   CSV ─▶ PartitionedQueue ─▶ workers ─▶ BatchProcessor ─▶ ShardedDatabase ─▶ Database reads ─▶ DistributedCache ─▶ board
//!          16 partitions,      runs of    one batch per     four SQLite        the proof: everything stored is read
//!          keyed by airport    one key    shard at a time   shards             back and held against the input
//! ```
//!
//! With `--cluster` the same job runs on PostgreSQL, a Redis Cluster and a RabbitMQ cluster, its workers in processes of their
//! own; that form is the module `cluster`, behind the feature of that name.
//!
//! Read [`job`] first: it is the whole story on one page.

mod board;
#[cfg(feature = "cluster")]
mod cluster;
mod crew;
mod embedded;
mod failure;
mod flight;
mod folder;
mod home;
mod input;
mod interrupt;
mod job;
mod journal;
mod options;
mod pace;
mod patience;
mod pipeline;
mod progress;
mod proof;
mod rejects;
mod say;
mod store;
mod table;
mod watch;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let mut line = failure.to_string();
            let mut cause = failure.source().and_then(Error::source);
            while let Some(deeper) = cause {
                line.push_str(&format!(": {deeper}"));
                cause = deeper.source();
            }
            say::note(&format!("error: {line}"));
            failure.exit_code()
        }
    }
}

async fn run() -> Result<(), failure::Failure> {
    #[cfg(feature = "cluster")]
    if let Some(task) = cluster::hand::Task::given()? {
        return cluster::hand::run(task).await;
    }
    job::run(&options::Options::parse()).await
}
