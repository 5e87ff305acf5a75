//! What was decided, how it came about, and who holds it.

use std::time::Duration;

use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{
    Autoscaler, AutoscalerConfig, Behavior, Error, ErrorKind, HpaConfig, MetricSpec, PauseRequest,
    Reason,
};
use tokio::time::sleep;

use crate::scaler::{builder, secs};

fn rounds(scaler: &Autoscaler) -> Vec<(u32, u32, u64, Reason)> {
    let decisions = scaler.decisions();
    decisions.iter().map(|it| (it.from, it.to, it.rounds, it.reason)).collect()
}

#[tokio::test(start_paused = true)]
async fn decisions_that_say_the_same_are_one_and_changes_are_not() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(40.0));
    let scaler = builder(&target, &metric).build().unwrap();
    assert_eq!(rounds(&scaler), []);
    for _ in 0..3 {
        scaler.evaluate().await;
    }
    metric.set(60.0);
    scaler.evaluate().await;
    scaler.evaluate().await;
    metric.set(None);
    scaler.evaluate().await;
    assert_eq!(
        rounds(&scaler),
        [
            (4, 4, 3, Reason::WithinTolerance),
            (4, 6, 1, Reason::MetricAboveTarget),
            (6, 6, 1, Reason::WithinTolerance),
            (6, 6, 1, Reason::FailedGetMetric),
        ]
    );
    let last = scaler.decisions().pop().unwrap();
    assert!(last.text.starts_with("keep 6: ") && last.until.ends_with('Z'), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn two_changes_alike_are_two_and_the_oldest_go() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(60.0));
    let config = AutoscalerConfig { history: 3, ..AutoscalerConfig::default() };
    let scaler = builder(&target, &metric).config(config).build().unwrap();
    for _ in 0..5 {
        target.becomes(4);
        scaler.evaluate().await;
        sleep(secs(60)).await;
    }
    assert_eq!(rounds(&scaler), [(4, 6, 1, Reason::MetricAboveTarget); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_explained_step_by_step() {
    let target = FakeTarget::new(4);
    let (depth, load) = (FakeMetric::new(900.0), FakeMetric::new(8.0));
    let policy = HpaConfig::new(2, 50)
        .metric(MetricSpec::external_average("depth", 10.0))
        .metric(MetricSpec::external("load", 4.0))
        .behavior(Behavior::default());
    let scaler = Autoscaler::builder("workers")
        .policy(policy)
        .source("depth", depth.clone())
        .source("load", load.clone())
        .target(target.clone())
        .build()
        .unwrap();
    assert_eq!(scaler.explain(), None);
    scaler.evaluate().await;
    let told = |scaler: &Autoscaler| {
        let explanation = scaler.explain().unwrap();
        let steps = explanation.steps.into_iter();
        steps.map(|it| format!("{} {:?}: {}", it.name, it.replicas, it.text)).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&scaler),
        [
            "current Some(4): asked for now",
            "metric Some(90): depth is 225 of 10",
            "metric Some(8): load is 8 of 4",
            "metrics Some(90): depth decides: it asks for the most",
            "windows Some(90): no window holds it back",
            "limits Some(8): the rate of scaling up",
            "decision Some(8): the rate of scaling up",
        ]
    );
    // What a person may ask for: the rate is used up, and down nothing limits.
    let allowed = scaler.explain().unwrap().allowed;
    assert_eq!((allowed.fewest, allowed.most), (2, 8));
    sleep(secs(15)).await;
    assert_eq!(scaler.explain().unwrap().allowed.most, 16);
    // Less is wanted, and the window remembers more.
    depth.set(20.0);
    load.set(None);
    scaler.set_paused(PauseRequest::pause()).unwrap();
    scaler.evaluate().await;
    assert_eq!(
        told(&scaler),
        [
            "current Some(8): asked for now",
            "metric Some(2): depth is 2.5 of 10",
            "metric None: load: told to fail",
            "metrics None: they do not say how many; nothing is taken away",
            "decision Some(8): paused",
        ]
    );
    load.set(1.0);
    scaler.evaluate().await;
    assert_eq!(
        told(&scaler)[3..],
        [
            "metrics Some(2): depth decides: it asks for the most",
            "windows Some(8): the window of scaling down",
            "limits Some(8): within bounds and rates",
            "decision Some(8): paused",
        ]
    );
    target.fail_to_read(true);
    scaler.evaluate().await;
    assert_eq!(
        told(&scaler),
        ["current Some(8): asked for now", "decision Some(8): the target could not be read"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_says_who_and_why_and_can_be_raced() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(60.0));
    let scaler = builder(&target, &metric).build().unwrap();
    let by_ada = || PauseRequest::pause().actor("ada").reason("an incident").generation(1);
    let status = scaler.set_paused(by_ada()).unwrap();
    let paused_by = status.paused_by.unwrap();
    assert_eq!((paused_by.actor.as_str(), paused_by.reason.as_str()), ("ada", "an incident"));
    assert_eq!((status.paused, status.generation), (true, 2));
    assert_eq!(scaler.evaluate().await.reason, Reason::Paused);
    let refused = scaler.set_paused(PauseRequest::resume().generation(1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    // Who pauses what is paused changes nothing, not even who it was.
    let status = scaler.set_paused(PauseRequest::pause().actor("bob")).unwrap();
    assert_eq!((status.paused_by.unwrap().actor.as_str(), status.generation), ("ada", 2));
    let status = scaler.set_paused(PauseRequest::resume().actor("bob").generation(2)).unwrap();
    assert_eq!((status.paused, status.paused_by, status.generation), (false, None, 3));
    assert_eq!(scaler.evaluate().await.to, 6);
    sleep(Duration::from_millis(1)).await;
    let sixteen = (0..16).map(|_| scaler.set_paused(PauseRequest::pause().generation(4)));
    let won = sixteen.filter(|it: &Result<_, Error>| it.is_ok()).count();
    assert_eq!(won, 1);
}
