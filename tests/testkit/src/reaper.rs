//! The part that cleans up when nobody else can.
//!
//! A destructor does not run in a process that is killed, and statics are never dropped. So beside each test process
//! stands one small shell that reads from a pipe. The pipe ends when the process ends, in whatever way; then the shell ends
//! every server that is left, frees PostgreSQL's shared-memory segments and removes the folder. It has a process group of
//! its own, so that Ctrl-C in the terminal does not take it along.
//!
//! It finds the servers by their working folder where `/proc` exists, which also finds the orphans of a killed parent. Elsewhere
//! it goes by the process ids written into the pipe and their children, and by command lines that name the folder.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;

use crate::dirs;
use crate::error::{Error, Result};

/// `sh -c SCRIPT sh MODE FOLDER PROC [keep]`: `wait` cleans when standard input ends, `now` at once; `keep` leaves the files.
const SCRIPT: &str = r#"
mode=$1
root=$2
proc=$3
keep=$4
known=
if [ "$mode" = wait ]; then
    trap '' HUP INT TERM
    while read -r sign pid; do
        case $sign in
            +) known="$known $pid " ;;
            -) known=$(printf %s "$known" | sed "s/ $pid / /g") ;;
        esac
    done
fi
children() {
    ps -A -o pid= -o ppid= | awk -v roots="$1" '
        BEGIN { n = split(roots, r, " "); for (i = 1; i <= n; i++) in_tree[r[i]] = 1 }
        { parent[$1] = $2 }
        END {
            do { grown = 0
                for (p in parent) if (!(p in in_tree) && (parent[p] in in_tree)) { in_tree[p] = 1; grown = 1 }
            } while (grown)
            for (p in in_tree) print p
        }'
}
left() {
    if [ -d "$proc/self/cwd" ]; then
        ls -ld "$proc"/[0-9]*/cwd 2>/dev/null | sed -n "s|.* $proc/\([0-9]*\)/cwd -> $root/.*|\1|p"
    else
        [ -n "$known" ] && children "$known"
        ps -A -o pid= -o command= | BELOW="$root/" awk 'index($0, ENVIRON["BELOW"]) { print $1 }'
    fi
}
cd /
round=0
while [ $round -lt 20 ]; do
    pids=$(left)
    [ -z "$pids" ] && break
    kill -9 $pids 2>/dev/null
    known=
    round=$((round + 1))
    sleep 0.05 2>/dev/null || sleep 1
done
for file in "$root"/*/data/postmaster.pid; do
    [ -f "$file" ] || continue
    id=$(sed -n 7p "$file" | awk '{ print $2 }')
    [ -n "$id" ] && ipcrm -m "$id" 2>/dev/null
done
[ "$keep" = keep ] && exit
# The lock goes last, and only when the folder is gone: else the next run would not know of it.
while [ $round -lt 40 ] && ! rm -rf "$root" 2>/dev/null; do
    round=$((round + 1))
    sleep 0.05 2>/dev/null || sleep 1
done
[ -e "$root" ] || rm -f "$root.lock"
"#;

/// Where Linux shows its processes.
const PROC: &str = "/proc";

/// The pipe that keeps the reaper waiting. Never closed on purpose.
static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Starts the reaper for this process's folder.
pub(crate) fn watch(root: &Path) -> Result<()> {
    let mut child = command("wait", root, PROC)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io("starting the reaper shell", e))?;
    *PIPE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = child.stdin.take();
    Ok(())
}

/// Cleans the folder of a process that is gone.
pub(crate) fn clean_now(root: &Path) {
    if let Err(error) = command("now", root, PROC).stdin(Stdio::null()).status() {
        tracing::warn!(%error, folder = %root.display(), "could not clean up after an earlier run");
    }
}

/// Tells the reaper of a server.
pub(crate) fn add(pid: u32) {
    tell("+", pid);
}

/// Tells the reaper that a server has ended, so that its number may be another's.
pub(crate) fn remove(pid: u32) {
    tell("-", pid);
}

fn tell(sign: &str, pid: u32) {
    if let Some(pipe) = PIPE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_mut() {
        // A reaper that is gone is made up for by the next run's sweep.
        let _ = writeln!(pipe, "{sign} {pid}");
    }
}

fn command(mode: &str, root: &Path, proc: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT, "sh", mode])
        .arg(root)
        .arg(proc)
        .args(dirs::keeps_folders().then_some("keep"));
    command.current_dir("/").process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a system without `/proc`: one server is known by its number, another by its command line alone.
    #[test]
    fn without_proc_servers_are_found_by_number_and_by_command_line() {
        let root = tempfile::tempdir().unwrap().keep();
        std::fs::create_dir(root.join("redis0")).unwrap();
        let sleeper = |argument: &Path| {
            Command::new("sh").args(["-c", "sleep 60; true", "sh"]).arg(argument).spawn().unwrap()
        };
        let mut spared = sleeper(Path::new("spared"));
        let mut known = sleeper(Path::new("known"));
        let mut named = sleeper(&root.join("redis0/redis.conf"));
        let mut reaper = command("wait", &root, "/nowhere").stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = reaper.stdin.take().unwrap();
        let (known_id, spared_id) = (known.id(), spared.id());
        writeln!(pipe, "+ {spared_id}\n+ {known_id}\n- {spared_id}").unwrap();
        assert!(known.try_wait().unwrap().is_none() && named.try_wait().unwrap().is_none());
        drop(pipe);
        assert!(!known.wait().unwrap().success());
        assert!(!named.wait().unwrap().success());
        reaper.wait().unwrap();
        assert!(!root.exists());
        assert!(spared.try_wait().unwrap().is_none(), "its number was taken back");
        spared.kill().unwrap();
        spared.wait().unwrap();
    }
}
