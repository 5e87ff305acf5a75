//! Servers that are there already, named by their URLs.

use resonant_testkit::{PostgresCluster, RabbitMq, RedisCluster};

use super::cluster::first;
use crate::flights::{Place, arguments};
use crate::program::{example, printed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_servers_of_ones_own_a_second_run_finds_everything_stored() {
    let (shards, cache, broker) = tokio::join!(
        PostgresCluster::builder().start_shards(2),
        RedisCluster::start(),
        RabbitMq::start()
    );
    let (shards, cache, broker) = (shards.unwrap(), cache.unwrap(), broker.unwrap());
    let place = Place::new();
    let (input, summary) = (first(&place, 1_500), place.path("summary.json"));
    let mut given = arguments(&[("input", &input), ("summary", &summary)]);
    for shard in &shards {
        given.extend(["--shard".into(), shard.primary().url().into()]);
    }
    given.extend(["--cache".into(), cache.urls().join(",").into()]);
    given.extend(["--broker".into(), broker.urls().join(",").into()]);
    for stored in [1_500, 0] {
        let mut command = example("flights");
        command.arg("--cluster").args(&given);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().expect("the example starts");
        let text = printed(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains(&format!("stored {stored} flights")), "{text}");
        assert_eq!(place.summary()["flights"], 1_500);
    }
    // What lies there belongs to one input.
    let other = place.write(
        "other.csv",
        "departed_at,origin,destination,distance_miles,delay_minutes\n2001-01-01T00:47:00,DTW,LAS,1750,66\n",
    );
    given.extend(arguments(&[("input", &other)]));
    given.drain(..2);
    let mut command = example("flights");
    command.arg("--cluster").args(&given);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().expect("the example starts");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("another input"), "{}", printed(&output));
}
