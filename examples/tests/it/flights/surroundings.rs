//! What is around the job: folders, files and pipes that are not as one would wish.

use std::fs::File;
use std::process::Stdio;

use super::{Place, arguments, assert_is_the_shipped_file};
use crate::program::{example, printed, run};

#[test]
fn readers_that_go_away_do_not_stop_the_job() {
    let place = Place::new();
    let mut command = example("flights");
    command.args(arguments(&[("summary", &place.path("summary.json"))]));
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop((child.stdout.take(), child.stderr.take()));
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert_is_the_shipped_file(&place.summary());
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_printed_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = example("flights").stdout(full).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("error: printing: "), "{}", printed(&output));
}

#[test]
fn one_job_at_a_time_works_in_a_folder() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::create_dir(&data).expect("a folder");
    let lock = File::create(data.join("lock")).expect("a file");
    lock.try_lock().expect("nobody has it");
    let arguments = arguments(&[("data-dir", &data), ("summary", &place.path("summary.json"))]);
    let output = run("flights", &arguments);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("another job is at work"), "{}", printed(&output));
    assert_eq!(std::fs::read_dir(&data).map(Iterator::count).ok(), Some(1), "nothing was made");
    lock.unlock().expect("it is ours");
    assert!(run("flights", &arguments).status.success());
    assert_is_the_shipped_file(&place.summary());
}

#[test]
fn places_that_do_not_serve_are_named_before_the_work() {
    let place = Place::new();
    let file = place.write("file", "");
    let (inside, nowhere) = (file.join("data"), place.path("absent").join("summary.json"));
    for (option, path, what) in [
        ("data-dir", &file, "cannot keep data in "),
        ("data-dir", &inside, "cannot keep data in "),
        ("summary", &nowhere, "cannot write the summary to "),
        ("summary", &place.0.path().to_owned(), "cannot write the summary to "),
    ] {
        let output = run("flights", arguments(&[(option, path)]));
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(what) && text.contains(&path.display().to_string()), "{text}");
        assert!(!text.contains("storing"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn input_that_cannot_be_read_twice_is_refused() {
    let output = run("flights", ["--input", "/dev/null"]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("it is read twice"), "{}", printed(&output));
}
