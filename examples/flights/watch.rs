//! The job watches itself.

use resonant_health::HealthChecker;

use crate::board::Board;
use crate::failure::{Failure, While};
use crate::home::Engines;

/// Health checks that run beside the job.
#[derive(Debug)]
pub(crate) struct Watch {
    checker: HealthChecker,
}

impl Watch {
    /// Starts watching all parts.
    pub(crate) fn start(engines: &Engines, board: &Board) -> Result<Self, Failure> {
        let (shards, cache, queue) =
            (engines.store.shards().clone(), board.cache().clone(), engines.queue.clone());
        let checker = HealthChecker::new()
            .check("database", {
                let shards = shards.clone();
                move || shards.ping()
            })
            .check("cache", {
                let cache = cache.clone();
                move || cache.ping()
            })
            .check("queue", {
                let queue = queue.clone();
                move || queue.ping()
            })
            .findings("shards", move || shards.findings())
            .findings("backlog", move || queue.findings());
        checker.start().doing("starting the health checks")?;
        Ok(Self { checker })
    }

    /// One line: the worst status, and every check that is not well.
    pub(crate) async fn report(&self) -> String {
        let report = self.checker.run_all().await;
        let unwell: Vec<_> = report
            .checks()
            .filter(|check| !check.status().is_up())
            .map(|check| format!("{} is {}", check.name(), check.status().as_str()))
            .collect();
        let all = report.checks().len();
        let detail =
            if unwell.is_empty() { String::new() } else { format!(": {}", unwell.join(", ")) };
        format!("{} ({all} checks){detail}", report.status().as_str())
    }

    /// Stops the checks.
    pub(crate) async fn stop(&self) {
        self.checker.stop().await;
    }
}
