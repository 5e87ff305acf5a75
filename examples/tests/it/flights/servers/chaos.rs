//! A worker process, a Redis primary, a RabbitMQ node and a shard's primary die in the middle of the work.

use super::cluster::first;
use crate::flights::{Place, arguments};
use crate::program::{example, printed};

#[test]
fn whatever_is_killed_the_sums_are_exact_and_nothing_is_lost_or_out_of_order() {
    let place = Place::new();
    let (input, summary) = (first(&place, 8_000), place.path("summary.json"));
    let mut command = example("flights");
    command.args(["--cluster", "--chaos"]);
    command.args(arguments(&[("input", &input), ("summary", &summary)]));
    let output = command.output().expect("the example starts");
    let text = printed(&output);
    // The program holds every airport's sums against the input; the counts are looked at here, too.
    assert!(output.status.success(), "{text}");
    for (name, value) in
        [("flights", 8_000), ("lost", 0), ("duplicates", 0), ("order_violations", 0)]
    {
        assert_eq!(place.summary()[name], value, "{name}: {text}");
    }
    for expected in [
        "a worker process is killed",
        "(SIGKILL)); it is started again",
        "a Redis primary is killed",
        "its replica was elected",
        "the RabbitMQ node that leads partition 0 is killed",
        "the RabbitMQ node is back",
        "the primary of shard_0 is killed",
        "the old primary is back as a replica",
        "proof: 8000 flights",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in:\n{text}");
    }
    let figures =
        text.lines().filter(|line| line.contains("flights/s") || line.starts_with("board"));
    println!("FIGURE flights --cluster --chaos: {}", Vec::from_iter(figures).join("; "));
}
