//! What is counted: statements by kind of route, and what each shard did with those it got.

use std::time::Duration;

use resonant_common::telemetry::{Counter, Gauge, Histogram, names};

use super::router::RouteKind;
use super::shard::blames_shard;
use crate::Result;

/// Of a sharded database.
#[derive(Debug)]
pub(super) struct Meters {
    any: Counter,
    every: Counter,
    single: Counter,
    split: Counter,
    refused: Counter,
    merged: Counter,
}

impl Meters {
    pub(super) fn new(database: &str) -> Self {
        let routed = |route: &str| {
            Counter::new(&names::DB_ROUTES, &[("database", database), ("route", route)])
        };
        Self {
            any: routed(&RouteKind::Any.to_string()),
            every: routed(&RouteKind::Every.to_string()),
            single: routed(&RouteKind::Single.to_string()),
            split: routed(&RouteKind::Split.to_string()),
            refused: routed("refused"),
            merged: Counter::new(&names::DB_SHARD_MERGED, &[("database", database)]),
        }
    }

    /// So many statements went this way.
    pub(super) fn routed(&self, kind: RouteKind, statements: u64) {
        let counter = match kind {
            RouteKind::Any => &self.any,
            RouteKind::Every => &self.every,
            RouteKind::Single => &self.single,
            RouteKind::Split => &self.split,
        };
        counter.increment(statements);
    }

    pub(super) fn refused(&self) {
        self.refused.increment(1);
    }

    /// So many rows of several shards became one answer.
    pub(super) fn merged(&self, rows: usize) {
        self.merged.increment(rows as u64);
    }
}

/// Of one shard.
#[derive(Debug)]
pub(super) struct ShardMeters {
    ok: Counter,
    failed: Counter,
    rejected: Counter,
    shed: Counter,
    time: Histogram,
    down: Gauge,
}

impl ShardMeters {
    pub(super) fn new(database: &str, shard: &str) -> Self {
        let labels = [("database", database), ("shard", shard)];
        let ended = |outcome: &str| {
            let labels = [("database", database), ("shard", shard), ("outcome", outcome)];
            Counter::new(&names::DB_SHARD_STATEMENTS, &labels)
        };
        let down = Gauge::new(&names::DB_SHARD_DOWN, &labels);
        down.set(0.0);
        Self {
            ok: ended("ok"),
            failed: ended("failed"),
            rejected: ended("rejected"),
            shed: ended("shed"),
            time: Histogram::new(&names::DB_SHARD_TIME, &labels),
            down,
        }
    }

    /// A statement came back.
    pub(super) fn ended<T>(&self, result: &Result<T>, took: Duration) {
        match result {
            Ok(_) => self.ok.increment(1),
            Err(error) if blames_shard(error.kind()) => self.failed.increment(1),
            Err(_) => self.rejected.increment(1),
        }
        self.time.record_duration(took);
    }

    /// A statement was not sent, because the shard keeps failing.
    pub(super) fn shed(&self) {
        self.shed.increment(1);
    }

    pub(super) fn down(&self, down: bool) {
        self.down.set(f64::from(u8::from(down)));
    }
}
