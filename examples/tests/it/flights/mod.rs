//! The main job: right sums, clear errors, nothing lost or twice whatever happens in between.

mod bad_input;
mod interrupted;
mod killed;
#[cfg(feature = "cluster")]
mod servers;
mod surroundings;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{printed, run};

/// A folder for one test, and the paths in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    fn summary(&self) -> Value {
        let text =
            std::fs::read_to_string(self.path("summary.json")).expect("the summary was written");
        serde_json::from_str(&text).expect("the summary is JSON")
    }
}

/// `--name value` for each pair.
fn arguments(pairs: &[(&str, &Path)]) -> Vec<std::ffi::OsString> {
    pairs
        .iter()
        .flat_map(|(name, value)| [format!("--{name}").into(), value.as_os_str().to_owned()])
        .collect()
}

fn assert_is_the_shipped_file(summary: &Value) {
    let expected = [
        ("flights", 20_000),
        ("airports", 220),
        ("total_delay_minutes", 154_078),
        ("total_distance_miles", 14_476_934),
        ("lost", 0),
        ("duplicates", 0),
        ("order_violations", 0),
    ];
    for (name, value) in expected {
        assert_eq!(summary[name], value, "{name}");
    }
    assert!(summary["elapsed_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let by_airport = summary["by_airport"].as_object().expect("sums by airport");
    let sum = |field: &str| {
        by_airport.values().map(|sums| sums[field].as_i64().expect("a number")).sum::<i64>()
    };
    assert_eq!((by_airport.len(), sum("flights")), (220, 20_000));
    assert_eq!((sum("delay_minutes"), sum("distance_miles")), (154_078, 14_476_934));
}

#[test]
fn the_shipped_file_gives_its_known_sums() {
    let place = Place::new();
    let output = run("flights", arguments(&[("summary", &place.path("summary.json"))]));
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    assert_is_the_shipped_file(&place.summary());
    for expected in ["flights/s", "synchronous", "proof", "health"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
}

#[test]
fn running_again_on_the_same_folder_changes_nothing() {
    let place = Place::new();
    let again = || {
        run(
            "flights",
            arguments(&[
                ("data-dir", &place.path("data")),
                ("summary", &place.path("summary.json")),
            ]),
        )
    };
    assert!(again().status.success());
    let first = place.summary();
    let output = again();
    assert!(output.status.success(), "{}", printed(&output));
    assert_is_the_shipped_file(&place.summary());
    assert_eq!(first["by_airport"], place.summary()["by_airport"]);
}

#[test]
fn a_folder_that_holds_another_input_is_refused() {
    let place = Place::new();
    let header = "departed_at,origin,destination,distance_miles,delay_minutes\n";
    let one = place.write("one.csv", format!("{header}2001-01-01T00:47:00,DTW,LAS,1750,66\n"));
    let other = place.write("other.csv", format!("{header}2001-01-01T00:47:00,DTW,LAS,1750,67\n"));
    let data = place.path("data");
    let summary = place.path("summary.json");
    assert!(
        run("flights", arguments(&[("input", &one), ("data-dir", &data), ("summary", &summary)]))
            .status
            .success()
    );
    let output = run("flights", arguments(&[("input", &other), ("data-dir", &data)]));
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("another input"), "{}", printed(&output));
    assert_eq!(place.summary()["total_delay_minutes"], 66);
}

#[test]
fn a_file_with_a_header_alone_is_no_flights() {
    let place = Place::new();
    let input =
        place.write("empty.csv", "departed_at,origin,destination,distance_miles,delay_minutes\n");
    let output =
        run("flights", arguments(&[("input", &input), ("summary", &place.path("summary.json"))]));
    assert!(output.status.success(), "{}", printed(&output));
    assert_eq!((&place.summary()["flights"], &place.summary()["airports"]), (&0.into(), &0.into()));
}

#[cfg(not(feature = "cluster"))]
#[test]
fn without_the_feature_a_cluster_is_refused_by_its_name() {
    let output = run("flights", ["--cluster"]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("--features cluster"), "{}", printed(&output));
}

#[test]
fn help_names_every_option() {
    let output = run("flights", ["--help"]);
    assert!(output.status.success());
    for option in [
        "--input",
        "--data-dir",
        "--summary",
        "--workers",
        "--skip-bad-rows",
        "--cluster",
        "--chaos",
        "--features cluster",
        "--shard",
        "--cache",
        "--broker",
        "Exit codes",
    ] {
        assert!(printed(&output).contains(option), "{option}");
    }
}
