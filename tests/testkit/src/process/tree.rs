//! A process and all its descendants: who they are, whether they live, and signals to all of them.
//!
//! On Linux `/proc` answers in microseconds; elsewhere `ps` does. A process counts as gone when it is a zombie: in a
//! container the first process may never collect orphans, and a signal to a zombie succeeds.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// Sends one signal to one process; a process that is already gone is no error.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Signals the whole tree, parents first.
pub(super) fn signal_all(root: u32, signal: Signal) {
    for pid in members(root) {
        send(pid, signal);
    }
}

/// Stops the whole tree. Repeats until it sees nobody new: a process may fork while its parent is being stopped.
pub(super) fn freeze(root: u32) -> Vec<u32> {
    let mut stopped = Vec::new();
    loop {
        let fresh: Vec<u32> =
            members(root).into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if fresh.is_empty() {
            return stopped;
        }
        for pid in &fresh {
            send(*pid, Signal::STOP);
        }
        stopped.extend(fresh);
    }
}

/// Kills the whole tree: frozen first, so that nobody can fork, restart a child or say goodbye.
pub(super) fn kill(root: u32) -> Vec<u32> {
    let pids = freeze(root);
    for pid in &pids {
        send(*pid, Signal::KILL);
    }
    pids
}

/// Whether a process exists and is not a zombie.
pub(super) fn is_alive(pid: u32) -> bool {
    let state = if has_proc() {
        // The state follows the name, which stands in brackets and may hold any character.
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next())
    } else {
        ps(&["-o", "stat=", "-p", &pid.to_string()]).trim().chars().next()
    };
    !matches!(state, None | Some('Z' | 'X'))
}

/// What a process calls itself, or nothing when it is gone. Servers write there what they are doing.
pub(crate) fn command_line(pid: u32) -> String {
    if has_proc() {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).replace('\0', " ")
    } else {
        ps(&["-o", "command=", "-p", &pid.to_string()])
    }
}

/// The tree below `root` without itself.
pub(super) fn descendants(root: u32) -> Vec<u32> {
    members(root).split_off(1)
}

/// The tree below `root`, itself first, parents before children.
fn members(root: u32) -> Vec<u32> {
    if has_proc() {
        members_by(root, children_in_proc)
    } else {
        members_in_table(root, &process_table())
    }
}

fn members_in_table(root: u32, table: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    members_by(root, |pid| table.get(&pid).cloned().unwrap_or_default())
}

fn members_by(root: u32, children: impl Fn(u32) -> Vec<u32>) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        all.extend(children(pid));
        next += 1;
    }
    all
}

fn has_proc() -> bool {
    Path::new("/proc/self/task").is_dir()
}

fn children_in_proc(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// Children by parent, from `ps`.
fn process_table() -> HashMap<u32, Vec<u32>> {
    let mut table: HashMap<u32, Vec<u32>> = HashMap::new();
    for line in ps(&["-A", "-o", "pid=", "-o", "ppid="]).lines() {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        if let (Some(Ok(pid)), Some(Ok(parent))) = (numbers.next(), numbers.next()) {
            table.entry(parent).or_default().push(pid);
        }
    }
    table
}

fn ps(args: &[&str]) -> String {
    Command::new("ps")
        .args(args)
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh` waits for a `sleep`: a tree of two.
    fn family() -> std::process::Child {
        Command::new("sh").args(["-c", "sleep 60; true"]).spawn().unwrap()
    }

    fn grown(root: u32, look: impl Fn(u32) -> Vec<u32>) -> Vec<u32> {
        loop {
            let pids = look(root);
            if pids.len() == 2 {
                return pids;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn both_ways_to_look_see_the_same_tree_and_killing_it_takes_the_child_too() {
        let mut parent = family();
        let by_ps = grown(parent.id(), |root| members_in_table(root, &process_table()));
        if has_proc() {
            assert_eq!(members(parent.id()), by_ps);
        }
        let killed = kill(parent.id());
        parent.wait().unwrap();
        assert_eq!(killed, by_ps);
        while killed.iter().any(|pid| is_alive(*pid)) {
            std::thread::yield_now();
        }
    }
}
