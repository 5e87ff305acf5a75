//! An outage, and the storm of those who try again after it: what is known of a failover spares what plain rules cost.

use std::time::Duration;

use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, Behavior, HpaConfig, MetricSpec, ScaleRequest};
use tokio::sync::watch;
use tokio::time::sleep;

/// Requests a second that a replica answers.
const EACH: f64 = 100.0;
const USUAL: f64 = 1000.0;
/// The outage lasts a quarter of an hour, longer than any window.
const OUTAGE: std::ops::Range<u64> = 600..1500;

/// Requests a second that people would like to have answered.
fn wanted(second: u64) -> f64 {
    match second {
        // Everybody tries again for five minutes, and fewer and fewer for five more.
        1500..1800 => 3.0 * USUAL,
        1800..2100 => USUAL * (3.0 - 2.0 * (second - 1800) as f64 / 300.0),
        _ => USUAL,
    }
}

/// Seconds in which more was wanted than the replicas could answer, outside the outage itself; and the fewest replicas in it.
async fn run(knows: bool, prescales: bool) -> (u32, u32) {
    let (target, load) = (FakeTarget::new(10), FakeMetric::new(USUAL));
    let (failover, signal) = watch::channel(false);
    let policy = HpaConfig::new(2, 100)
        .metric(MetricSpec::external_average("load", EACH))
        .behavior(Behavior::default());
    let scaler = Autoscaler::builder("api")
        .policy(policy)
        .source("load", load.clone())
        .forbid_scale_in_on(signal)
        .target(target.clone())
        .build()
        .unwrap();
    scaler.start().unwrap();
    let (mut breached, mut fewest) = (0, u32::MAX);
    for second in 0..3600 {
        let out = OUTAGE.contains(&second);
        failover.send_replace(knows && out);
        // Nobody reaches what fails over, so nothing is measured there.
        load.set(if out { 0.0 } else { wanted(second) });
        if prescales && second == OUTAGE.end - 15 {
            // The next primary is chosen; before it is published, room is made for those who will come.
            let room = ScaleRequest::to(30).force().reason("a failover ends");
            scaler.scale(room.actor("failover")).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        let replicas = target.replicas();
        if out {
            fewest = fewest.min(replicas);
        } else {
            breached += u32::from(wanted(second) > f64::from(replicas) * EACH);
        }
    }
    scaler.stop().await;
    let after = target.replicas();
    assert!((10..=11).contains(&after), "at the end all is as before, near enough: {after}");
    (breached, fewest)
}

#[tokio::test(start_paused = true)]
async fn room_made_before_a_failover_is_published_spares_the_storm() {
    let (plain, fewest) = run(false, false).await;
    assert_eq!(fewest, 2, "plain rules take the quiet for a reason");
    let (guarded, kept) = run(true, false).await;
    assert_eq!(kept, 10, "nothing is taken away meanwhile");
    let (prepared, kept) = run(true, true).await;
    assert_eq!(kept, 10);
    println!("FIGURE scale.storm.breached_s plain {plain} guarded {guarded} prepared {prepared}");
    assert!(guarded < plain && 3 * prepared <= plain, "{plain} {guarded} {prepared}");
}
