//! Told to end, the job ends in good order and says how to go on.
#![cfg(unix)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Place, arguments};
use crate::interrupt::Interrupt;
use crate::program::{example, printed, run};

/// Runs it until it begins to store, sends `signal`, and answers the rest of what it says and its exit code.
fn interrupted(signal: &str, temporary: &Path, arguments: &[OsString]) -> (String, Option<i32>) {
    let mut command = example("flights");
    command.args(arguments).env("TMPDIR", temporary);
    let mut child =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("storing: 0 of ") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "it ended before it stored");
    }
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    (rest, child.wait().expect("it ends").code())
}

/// The shipped file four times over, so that it is not done before a signal arrives.
fn four_times_the_shipped_file(place: &Place) -> PathBuf {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-20k.csv");
    let shipped = std::fs::read_to_string(shipped).expect("the shipped file");
    let (header, flights) = shipped.split_once('\n').expect("a header");
    place.write("four.csv", format!("{header}\n{}", flights.repeat(4)))
}

#[test]
fn told_to_end_it_says_how_to_go_on_and_leaves_no_temporary_folder() {
    for signal in ["INT", "TERM"] {
        let place = Place::new();
        let temporary = place.path("tmp");
        std::fs::create_dir(&temporary).expect("a folder");
        let input = four_times_the_shipped_file(&place);
        let (text, code) = interrupted(signal, &temporary, &arguments(&[("input", &input)]));
        assert_eq!(code, Some(130), "{signal}: {text}");
        assert!(text.contains("nothing is kept"), "{signal}: {text}");
        let left = std::fs::read_dir(&temporary).map(Iterator::count).ok();
        assert_eq!(left, Some(0), "{signal}");

        let arguments = arguments(&[
            ("input", &input),
            ("data-dir", &place.path("data")),
            ("summary", &place.path("summary.json")),
        ]);
        let (text, code) = interrupted(signal, &temporary, &arguments);
        assert_eq!(code, Some(130), "{signal}: {text}");
        assert!(text.contains("run again with the same --data-dir"), "{signal}: {text}");
        let output = run("flights", &arguments);
        assert!(output.status.success(), "{}", printed(&output));
        let summary = place.summary();
        assert_eq!(summary["flights"], 80_000);
        assert_eq!(summary["total_delay_minutes"], 4 * 154_078);
    }
}

#[tokio::test]
async fn whatever_waits_is_given_up_once_told() {
    let (tell, told) = tokio::sync::watch::channel(false);
    let interrupt = Interrupt::told_by(told, "go on");
    assert!(matches!(interrupt.unless(async { Ok(7) }).await, Ok(7)));
    tell.send_replace(true);
    let failure = interrupt.unless(std::future::pending::<Result<(), _>>()).await.err();
    assert_eq!(failure.map(|failure| failure.to_string()).as_deref(), Some("interrupted; go on"));
}
