//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Publishes real flights to a partitioned queue, stores them on four shards, and proves the result.
///
/// Each line of the input becomes a task of a PartitionedQueue keyed by airport; workers store them in batches on four
/// SQLite shards; the delay board is read through the database and the cache. At the end everything stored is read back
/// and compared with the input: every flight once, in order per airport, sums equal.
///
/// With --cluster the same job runs on PostgreSQL, Redis and RabbitMQ, its workers in processes of their own. That takes
/// the feature `cluster`: cargo run --release -p resonant-examples --features cluster --example flights -- --cluster
///
/// Exit codes: 0 the proof holds; 1 it does not, or a part failed; 2 the input or an option is wrong; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "flights")]
pub(crate) struct Options {
    /// CSV file to read; default: the 20,000 flights shipped with the example
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// Folder for queue and shards; run again with the same folder to go on after an interruption [default: a
    /// temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Write the result, computed from what is stored, as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,

    /// Number of workers that share the queue's partitions; with --cluster each is a process
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,

    /// Store the good rows and write every bad line with its reason to <INPUT>.rejected, instead of stopping at the first
    #[arg(long)]
    pub(crate) skip_bad_rows: bool,

    /// Run on real clusters: four PostgreSQL shards, one of them with two replicas, a Redis Cluster of six, a RabbitMQ cluster
    /// of three. They are started for the job, from the programs installed here (scripts/setup installs them), and removed
    /// at its end; or they are yours, with --shard, --cache and --broker
    #[arg(long, conflicts_with = "data_dir")]
    pub(crate) cluster: bool,

    /// Kill a worker process, a Redis primary, a RabbitMQ node and a shard's primary in the middle of the work; the proof holds
    /// all the same
    #[arg(long, requires = "cluster", conflicts_with = "shards")]
    pub(crate) chaos: bool,

    /// A shard of yours: postgresql://, its primary's URL, then its replicas' after commas. Once for each shard, always in
    /// the same order. Run again with the same shards to go on after an interruption
    #[arg(long = "shard", value_name = "URL[,URL...]", requires_all = ["cluster", "cache", "broker"])]
    pub(crate) shards: Vec<String>,

    /// The nodes of a Redis Cluster of yours: redis://
    #[arg(long, value_name = "URL,...", value_delimiter = ',', requires = "shards")]
    pub(crate) cache: Vec<String>,

    /// The nodes of a RabbitMQ cluster of yours: amqp://
    #[arg(long, value_name = "URL,...", value_delimiter = ',', requires = "shards")]
    pub(crate) broker: Vec<String>,
}

impl Options {
    /// The file to read.
    pub(crate) fn input(&self) -> PathBuf {
        let shipped =
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-20k.csv"));
        self.input.clone().unwrap_or_else(shipped)
    }
}
