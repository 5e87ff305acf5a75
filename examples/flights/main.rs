//! The main job: `cargo run --release --example flights`.
//!
//! ```text
//!   CSV ─▶ PartitionedQueue ─▶ workers ─▶ BatchProcessor ─▶ ShardedDatabase ─▶ Database reads ─▶ DistributedCache ─▶ board
//!          16 partitions,      runs of    one batch per     four SQLite        the proof: everything stored is read
//!          keyed by airport    one key    shard at a time   shards             back and held against the input
//! ```
//!
//! Read [`job`] first: it is the whole story on one page.

mod board;
mod failure;
mod flight;
mod folder;
mod input;
mod interrupt;
mod job;
mod journal;
mod options;
mod pipeline;
mod progress;
mod proof;
mod rejects;
mod say;
mod store;
mod watch;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match job::run(&options::Options::parse()).await {
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
