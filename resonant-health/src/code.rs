//! The fixed codes public output is made of, each searchable in the docs.

pub(crate) const CANCELLED: &str = "health.check.cancelled";
pub(crate) const DEADLINE: &str = "health.run.deadline";
pub(crate) const DRAINING: &str = "health.draining";
pub(crate) const ERROR: &str = "health.check.error";
pub(crate) const NEVER_RAN: &str = "health.check.never_ran";
pub(crate) const NO_RUNTIME: &str = "health.no_runtime";
pub(crate) const PANIC: &str = "health.check.panic";
pub(crate) const REFUSED: &str = "health.check.refused";
pub(crate) const SATURATED: &str = "health.check.saturated";
pub(crate) const SILENT: &str = "health.watchdog.silent";
pub(crate) const STALE: &str = "health.check.stale";
pub(crate) const STARTING: &str = "health.starting";
pub(crate) const STILL_RUNNING: &str = "health.check.still_running";
pub(crate) const TIMEOUT: &str = "health.check.timeout";
