//! What the process uses of what it may use: `cpu_usage` and `memory_usage`, in percent, as the guide's alerts ask.
//!
//! "May use" is what its control group allows (both versions, every level of nesting), else what the machine has: in a
//! container of half a core, half a core in use is 100 %. Memory counts as the kernel does before it kills: what the group
//! holds, less the file cache that can be dropped.
//!
//! The Prometheus recorder of the family measures at each scrape. With a recorder of your own, let a collector run:
//!
//! ```no_run
//! # async fn example() {
//! use resonant_common::telemetry::process::Collector;
//! use std::time::Duration;
//!
//! let collecting = tokio::spawn(Collector::new().run(Duration::from_secs(15)));
//! // … and when the service ends:
//! collecting.abort();
//! # }
//! ```
//!
//! Only on Linux; elsewhere nothing is measured and nothing is recorded.

mod cgroup;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Key, Recorder};
use tokio::time::Instant;

use self::cgroup::Group;
use super::handle::METADATA;
use super::names;

/// Two looks at the processor's clock closer than this say nothing: the earlier answer stands.
const CLOSEST: Duration = Duration::from_millis(500);

/// Measures the process. The use of processors is that between two measurements, so the first one has none.
#[derive(Debug)]
pub struct Collector {
    root: PathBuf,
    before: Mutex<Option<Before>>,
}

#[derive(Debug, Clone, Copy)]
struct Before {
    at: Instant,
    cpu_time: Duration,
    cpu: Option<f64>,
}

/// What a [`Collector`] has measured; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time since the measurement before, in percent of what the process may use.
    pub cpu: Option<f64>,
    /// Cores the process may use; a fraction under a quota.
    pub cpu_limit: Option<f64>,
    /// Memory in use, in percent of what the process may use.
    pub memory: Option<f64>,
    /// Bytes the process may use.
    pub memory_limit: Option<f64>,
    /// Bytes of the process in RAM.
    pub resident: Option<f64>,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// Measures this process.
    pub fn new() -> Self {
        Self::in_root(PathBuf::from("/"))
    }

    /// Takes `root` for the root of the file system.
    fn in_root(root: PathBuf) -> Self {
        Self { root, before: Mutex::new(None) }
    }

    /// Measures now and records it. Reads a few small files of `/proc` and `/sys`, some 50 µs.
    pub fn sample(&self) -> Usage {
        let usage = self.measure();
        metrics::with_recorder(|recorder| usage.record(recorder));
        usage
    }

    /// Samples at once and then every `interval`, for ever: spawn it, and abort it in the end.
    pub async fn run(self, interval: Duration) {
        loop {
            self.sample();
            tokio::time::sleep(interval).await;
        }
    }

    #[cfg(feature = "prometheus")]
    pub(super) fn read_into(&self, recorder: &dyn Recorder) {
        self.measure().record(recorder);
    }

    fn measure(&self) -> Usage {
        let group = Group::read(&self.root);
        let cpu_limit = lesser(group.cores, cores());
        let total = cgroup::kibibytes(&self.root.join("proc/meminfo"), "MemTotal:");
        let resident = cgroup::kibibytes(&self.root.join("proc/self/status"), "VmRSS:");
        // Without a limit of its own a group may hold much that is not ours.
        let (used, memory_limit) = match (group.memory, total) {
            (Some(memory), total) if total.is_none_or(|total| memory.limit < total) => {
                (Some(memory.used), Some(memory.limit))
            }
            (_, total) => (resident, total),
        };
        let memory = used.zip(memory_limit).map(|(used, limit)| 100.0 * used / limit);
        Usage { cpu: self.cpu(cpu_limit), cpu_limit, memory, memory_limit, resident }
    }

    fn cpu(&self, limit: Option<f64>) -> Option<f64> {
        let (now, cpu_time) = (Instant::now(), cpu_time()?);
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let cpu = match *before {
            Some(before) if now.saturating_duration_since(before.at) < CLOSEST => {
                return before.cpu;
            }
            Some(before) => Some(percent(before, now, cpu_time, limit?)),
            None => None,
        };
        *before = Some(Before { at: now, cpu_time, cpu });
        cpu
    }
}

impl Usage {
    fn record(&self, recorder: &dyn Recorder) {
        let rows = [
            (&names::CPU_USAGE, self.cpu),
            (&names::CPU_LIMIT, self.cpu_limit),
            (&names::MEMORY_USAGE, self.memory),
            (&names::MEMORY_LIMIT, self.memory_limit),
            (&names::MEMORY_RESIDENT, self.resident),
        ];
        for (metric, value) in rows {
            let Some(value) = value else { continue };
            let unit = metric.unit.and_then(metrics::Unit::from_string);
            recorder.describe_gauge(metric.name.into(), unit, metric.help.into());
            recorder.register_gauge(&Key::from_static_name(metric.name), &METADATA).set(value);
        }
    }
}

fn percent(before: Before, now: Instant, cpu_time: Duration, limit: f64) -> f64 {
    let used = cpu_time.saturating_sub(before.cpu_time).as_secs_f64();
    let passed = now.saturating_duration_since(before.at).as_secs_f64();
    100.0 * used / (passed * limit)
}

fn lesser(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn cores() -> Option<f64> {
    std::thread::available_parallelism().ok().map(|cores| cores.get() as f64)
}

#[cfg(target_os = "linux")]
fn cpu_time() -> Option<Duration> {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(spent).ok()
}

#[cfg(not(target_os = "linux"))]
fn cpu_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_core_of_half_a_core_is_all() {
        let at = Instant::now();
        let before = Before { at, cpu_time: Duration::from_secs(7), cpu: None };
        let after = |wall: u64, cpu: u64, limit| {
            let cpu_time = Duration::from_secs(7) + Duration::from_millis(cpu);
            percent(before, at + Duration::from_secs(wall), cpu_time, limit)
        };
        assert_eq!(after(10, 5000, 0.5), 100.0);
        assert_eq!(after(10, 5000, 2.0), 25.0);
        assert_eq!(after(10, 0, 2.0), 0.0);
    }

    #[test]
    fn without_a_limit_memory_is_that_of_the_process_and_the_machine() {
        let root = cgroup::tests::Root::new("machine");
        root.file("proc/meminfo", "MemTotal:        8192 kB\nMemFree: 1 kB\n");
        root.file("proc/self/status", "Name:\tx\nVmRSS:\t    2048 kB\n");
        root.file("proc/self/cgroup", "0::/\n");
        let usage = Collector::in_root(root.path()).measure();
        assert_eq!(usage.memory, Some(25.0));
        assert_eq!(usage.memory_limit, Some(8192.0 * 1024.0));
        assert_eq!(usage.resident, Some(2048.0 * 1024.0));
    }

    #[test]
    fn under_a_limit_memory_is_that_of_the_group_without_droppable_cache() {
        let root = cgroup::tests::Root::new("limited");
        root.file("proc/meminfo", "MemTotal:        8192 kB\n");
        root.file("proc/self/status", "VmRSS:\t    2048 kB\n");
        root.file("proc/self/cgroup", "0::/pod/app\n");
        root.file("sys/fs/cgroup/pod/memory.max", "4194304\n");
        root.file("sys/fs/cgroup/pod/memory.current", "3145728\n");
        root.file("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 1048576\n");
        root.file("sys/fs/cgroup/pod/app/memory.max", "max\n");
        root.file("sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
        let usage = Collector::in_root(root.path()).measure();
        assert_eq!((usage.memory, usage.memory_limit), (Some(50.0), Some(4194304.0)));
        assert_eq!(usage.cpu_limit, Some(0.5));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = Collector::new().measure();
        assert!(usage.memory.is_some_and(|memory| memory > 0.0 && memory <= 100.0), "{usage:?}");
        assert!(usage.cpu_limit.is_some_and(|cores| cores > 0.0));
        assert_eq!(usage.cpu, None, "there is nothing to compare with yet");
        assert!(cpu_time().is_some_and(|time| time > Duration::ZERO));
    }
}
