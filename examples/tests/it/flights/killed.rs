//! Killed anywhere and run again with the same folder, the job ends with the same sums and nothing twice.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::{Place, arguments, assert_is_the_shipped_file};
use crate::program::{example, printed, run};

/// How far a run is when it is killed: the stage, and how much of it is done at least.
type Mark = (&'static str, u64);

/// Each row is one life of a folder: a run is killed at each mark, and the last one is left alone.
const LIVES: [&[Mark]; 4] = [
    &[("checking", 0)],
    &[("storing", 0), ("storing", 10)],
    &[("storing", 20), ("storing", 40), ("storing", 60), ("storing", 80)],
    &[("storing", 30), ("proving", 0), ("proving", 50)],
];

#[test]
fn killed_anywhere_it_goes_on_where_it_was() {
    for marks in LIVES {
        let place = Place::new();
        let (data, summary) = (place.path("data"), place.path("summary.json"));
        let arguments = arguments(&[("data-dir", &data), ("summary", &summary)]);
        for mark in marks {
            kill_at(*mark, &arguments);
        }
        let output = run("flights", &arguments);
        assert!(output.status.success(), "after {marks:?}: {}", printed(&output));
        assert_is_the_shipped_file(&place.summary());
    }
}

fn kill_at(mark: Mark, arguments: &[OsString]) {
    let mut command = example("flights");
    let mut child = command
        .args(arguments)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let reached = stderr.lines().map_while(Result::ok).any(|line| is_at(&line, mark));
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(reached, "{mark:?} was never reached");
}

/// Whether a line such as `storing: 4000 of 20000 (20 %)` is at the mark or past it.
fn is_at(line: &str, (stage, percent): Mark) -> bool {
    let progress = line.strip_prefix(stage).and_then(|rest| rest.strip_prefix(": "));
    let done = progress
        .and_then(|rest| rest.rsplit_once('('))
        .and_then(|(_, share)| share.strip_suffix(" %)"));
    done.and_then(|done| done.parse::<u64>().ok()).is_some_and(|done| done >= percent)
}
