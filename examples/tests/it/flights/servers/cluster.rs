//! The same job on four PostgreSQL shards, a Redis Cluster and a RabbitMQ cluster, its workers in processes of their own.

use crate::flights::{Place, arguments};
use crate::program::{example, printed, run};

/// The first so many flights of the shipped file.
pub(super) fn first(place: &Place, flights: usize) -> std::path::PathBuf {
    let shipped = include_str!("../../../../data/flights-20k.csv");
    let lines: Vec<&str> = shipped.lines().take(flights + 1).collect();
    place.write("input.csv", lines.join("\n"))
}

#[test]
fn on_real_clusters_the_proof_is_the_same() {
    let (clusters, embedded) = (Place::new(), Place::new());
    let input = first(&clusters, 5_000);
    let summary = clusters.path("summary.json");
    let mut command = example("flights");
    command.arg("--cluster").args(arguments(&[("input", &input), ("summary", &summary)]));
    let output = command.output().expect("the example starts");
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    for expected in ["flights/s", "fsync", "quorum", "health: pass", "proof: 5000 flights"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    let figure = text.lines().find(|line| line.contains("flights/s")).unwrap_or_default();
    println!("FIGURE flights --cluster: {figure}");

    let summary = embedded.path("summary.json");
    assert!(
        run("flights", arguments(&[("input", &input), ("summary", &summary)])).status.success()
    );
    let (real, small) = (clusters.summary(), embedded.summary());
    for same in [
        "flights",
        "airports",
        "total_delay_minutes",
        "total_distance_miles",
        "by_airport",
        "lost",
        "duplicates",
        "order_violations",
        "misplaced",
    ] {
        assert_eq!(real[same], small[same], "{same}");
    }
}

#[test]
fn what_is_not_installed_is_named_with_what_installs_it() {
    let nothing = tempfile::tempdir().expect("a temporary folder");
    let mut command = example("flights");
    let output = command
        .arg("--cluster")
        .env("RESONANT_SERVERS_ROOT", nothing.path())
        .output()
        .expect("the example starts");
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for expected in ["postgres", "redis-server", "rabbitmq-server", "scripts/setup", "--shard"] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
}
