//! What the control group of the process allows.
//!
//! The strictest limit of the group and those above it holds. Inside a container the path in `/proc/self/cgroup` may be
//! that of the host, which is not to be seen there: then the group mounted at the top is ours.

use std::fs;
use std::path::{Path, PathBuf};

/// Limits above this are the kernel's way to say none.
const NONE: f64 = (1_u64 << 60) as f64;

/// Limits, where there are any.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Group {
    pub(super) cores: Option<f64>,
    pub(super) memory: Option<Memory>,
}

/// A limit of memory and what is used of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    pub(super) limit: f64,
    pub(super) used: f64,
}

impl Group {
    pub(super) fn read(root: &Path) -> Self {
        let listed = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mount = root.join("sys/fs/cgroup");
        let mut group = Self::default();
        for line in listed.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let has = |name| controllers.split(',').any(|controller| controller == name);
            if controllers.is_empty() {
                for level in levels(&mount, path) {
                    group.take(cores_v2(&level), memory_v2(&level));
                }
            } else if has("cpu") {
                for level in levels(&mount.join("cpu"), path) {
                    group.take(cores_v1(&level), None);
                }
            } else if has("memory") {
                for level in levels(&mount.join("memory"), path) {
                    group.take(None, memory_v1(&level));
                }
            }
        }
        group
    }

    /// The stricter limits hold.
    fn take(&mut self, cores: Option<f64>, memory: Option<Memory>) {
        self.cores = super::lesser(self.cores, cores);
        self.memory = match (self.memory, memory) {
            (Some(one), Some(other)) if other.limit < one.limit => Some(other),
            (one, other) => one.or(other),
        };
    }
}

/// The folder of the group and those above it, up to the mount.
fn levels(mount: &Path, path: &str) -> Vec<PathBuf> {
    let mut levels = vec![mount.to_owned()];
    let mut level = mount.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != "..") {
        level.push(part);
        if !level.is_dir() {
            break;
        }
        levels.push(level.clone());
    }
    levels
}

fn cores_v2(level: &Path) -> Option<f64> {
    let text = fs::read_to_string(level.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn cores_v1(level: &Path) -> Option<f64> {
    ratio(number(&level.join("cpu.cfs_quota_us"))?, number(&level.join("cpu.cfs_period_us"))?)
}

/// A quota below zero is none.
fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn memory_v2(level: &Path) -> Option<Memory> {
    let limit = number(&level.join("memory.max"))?;
    let used = number(&level.join("memory.current"))?;
    memory(limit, used, field(&level.join("memory.stat"), "inactive_file"))
}

fn memory_v1(level: &Path) -> Option<Memory> {
    let limit = number(&level.join("memory.limit_in_bytes"))?;
    let used = number(&level.join("memory.usage_in_bytes"))?;
    memory(limit, used, field(&level.join("memory.stat"), "total_inactive_file"))
}

fn memory(limit: f64, held: f64, droppable: Option<f64>) -> Option<Memory> {
    let used = (held - droppable.unwrap_or_default()).max(0.0);
    (limit > 0.0 && limit < NONE).then_some(Memory { limit, used })
}

/// A file that holds one number; `max` is none.
fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse::<i64>().ok().map(|number| number as f64)
}

/// A number after its name.
fn field(path: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let words = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().find_map(words).map(|number| number as f64)
}

/// A number of kibibytes after its name, in bytes.
pub(super) fn kibibytes(path: &Path, name: &str) -> Option<f64> {
    field(path, name).map(|number| number * 1024.0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A root of a file system for one test.
    pub(in super::super) struct Root(PathBuf);

    impl Root {
        pub(in super::super) fn new(name: &str) -> Self {
            let folder = format!("resonant-cgroup-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(folder))
        }

        pub(in super::super) fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub(in super::super) fn path(&self) -> PathBuf {
            self.0.clone()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_strictest_level_holds() {
        let root = Root::new("levels");
        root.file("proc/self/cgroup", "0::/a/b\n");
        root.file("sys/fs/cgroup/a/cpu.max", "200000 100000\n");
        root.file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        root.file("sys/fs/cgroup/a/memory.max", "500\n");
        root.file("sys/fs/cgroup/a/memory.current", "100\n");
        root.file("sys/fs/cgroup/a/b/memory.max", "900\n");
        root.file("sys/fs/cgroup/a/b/memory.current", "90\n");
        let group = Group::read(&root.path());
        assert_eq!(group.cores, Some(2.0));
        assert_eq!(group.memory, Some(Memory { limit: 500.0, used: 100.0 }));
    }

    #[test]
    fn a_path_of_the_host_means_the_group_at_the_top() {
        let root = Root::new("host");
        root.file("proc/self/cgroup", "0::/kubepods.slice/not-here\n");
        root.file("sys/fs/cgroup/cpu.max", "150000 100000\n");
        assert_eq!(Group::read(&root.path()).cores, Some(1.5));
    }

    #[test]
    fn version_one_is_understood() {
        let root = Root::new("one");
        root.file("proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/x\n0::/x\nnonsense\n");
        root.file("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n");
        root.file("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
        root.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
        root.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        root.file("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        root.file("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "7\n");
        root.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n");
        root.file("sys/fs/cgroup/memory/memory.usage_in_bytes", "700\n");
        root.file("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 200\n");
        let group = Group::read(&root.path());
        assert_eq!(group.cores, Some(0.5));
        assert_eq!(group.memory, Some(Memory { limit: 1000.0, used: 500.0 }));
    }

    #[test]
    fn nothing_there_is_no_limit() {
        assert_eq!(Group::read(Path::new("/nowhere")), Group::default());
    }
}
