//! What the figures were measured on.

use std::fs;

/// Date, cores, processor and compiler. What only the shell knows comes from `scripts/bench`.
pub(crate) fn facts() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let told = |name: &str| std::env::var(name).unwrap_or_else(|_| format!("{name} unknown"));
    let (date, compiler) = (told("BENCH_DATE"), told("BENCH_RUSTC"));
    format!("{date}, {cores} cores of {processor}, {compiler}")
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}

/// A peer and its version, from the list `scripts/bench` gives: `name version, …`.
pub(crate) fn version(name: &str) -> String {
    let versions = std::env::var("BENCH_PEERS").unwrap_or_default();
    let line = versions.split(", ").find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or(name).to_owned()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
