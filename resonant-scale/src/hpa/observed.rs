//! What the rules are given: how many there are, how they are, and what was measured.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many replicas a target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scale {
    /// How many were last asked for.
    pub wanted: u32,
    /// How many exist.
    pub existing: u32,
    /// How many are ready, where the target knows. Without it the ready ones among [`Observed::instances`] are counted.
    pub ready: Option<u32>,
}

impl Scale {
    /// `count` replicas asked for, existing and ready.
    pub fn steady(count: u32) -> Self {
        Self { wanted: count, existing: count, ready: Some(count) }
    }
}

/// One instance of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its name, by which its samples are found.
    pub name: String,
    /// How far it is.
    pub phase: Phase,
    /// Whether it is being taken away.
    pub deleting: bool,
    /// When it started.
    pub started: Option<Instant>,
    /// Whether it is ready, and since when that is so.
    pub ready: Option<(bool, Instant)>,
    /// The processor it requests, in cores.
    pub cpu_request: Option<f64>,
    /// The memory it requests, in bytes.
    pub memory_request: Option<f64>,
}

impl Instance {
    /// One that runs and is ready since `since`.
    pub fn running(name: impl Into<String>, since: Instant) -> Self {
        Self {
            name: name.into(),
            phase: Phase::Running,
            deleting: false,
            started: Some(since),
            ready: Some((true, since)),
            cpu_request: None,
            memory_request: None,
        }
    }
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Runs.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// What one instance was measured at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The value, in cores, bytes, or whatever it is.
    pub value: f64,
    /// When.
    pub at: Instant,
    /// Over how long.
    pub window: Duration,
}

/// What a source says of a metric.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reading {
    /// One value for all, or the sum of several.
    Total(f64),
    /// One per instance, by its name.
    PerInstance(HashMap<String, Sample>),
    /// Nothing, and why. The words are shown to operators; keep secrets out.
    Failed(String),
}

/// What is known when a decision is due.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// How many replicas there are.
    pub scale: Scale,
    /// The instances, where the metrics are per instance.
    pub instances: Vec<Instance>,
    /// What was measured, by the name of the metric. One that is missing counts as failed.
    pub readings: HashMap<String, Reading>,
    /// Whether nothing may be taken away now, as during a failover.
    pub forbid_scale_in: bool,
    /// Whether no replicas are fewer than the minimum. Default no, as Kubernetes: then the target was switched off, and is
    /// left alone.
    pub zero_counts: bool,
}
