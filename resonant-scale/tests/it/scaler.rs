//! The loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{
    Autoscaler, AutoscalerBuilder, Behavior, Error, ErrorKind, HpaConfig, MetricSpec, Reason,
    ScalingRules, TrackingConfig,
};
use tokio::sync::watch;
use tokio::time::sleep;

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Without a window, so that each round does what the metric asks for.
pub(crate) fn eager() -> HpaConfig {
    let down = ScalingRules { stabilization_window: Some(secs(0)), ..ScalingRules::down() };
    HpaConfig::new(1, 20)
        .metric(MetricSpec::external_average("depth", 10.0))
        .behavior(Behavior { scale_down: down, ..Behavior::default() })
}

pub(crate) fn builder(target: &FakeTarget, metric: &FakeMetric) -> AutoscalerBuilder {
    Autoscaler::builder("workers")
        .policy(eager())
        .source("depth", metric.clone())
        .target(target.clone())
}

#[tokio::test(start_paused = true)]
async fn the_loop_follows_the_metric_and_ends() {
    let (target, metric) = (FakeTarget::new(2), FakeMetric::new(40.0));
    let scaler = builder(&target, &metric).build().unwrap();
    assert_eq!(scaler.status().next_evaluation_in, None);
    scaler.start().unwrap();
    scaler.start().unwrap();
    sleep(secs(1)).await;
    assert_eq!(target.sets(), [4], "at once first, and once");
    metric.set(65.0);
    sleep(secs(15)).await;
    assert_eq!(target.sets(), [4, 7]);
    metric.set(10.0);
    sleep(secs(30)).await;
    assert_eq!(target.replicas(), 1);
    assert!(scaler.status().next_evaluation_in.is_some_and(|seconds| seconds <= 15.0));
    scaler.stop().await;
    metric.set(100.0);
    sleep(secs(60)).await;
    assert_eq!(target.replicas(), 1);
    scaler.start().unwrap();
    sleep(secs(1)).await;
    assert_eq!(target.replicas(), 5);
    drop(scaler);
    metric.set(10.0);
    sleep(secs(60)).await;
    assert_eq!(target.replicas(), 5, "the last handle took the loop with it");
}

#[tokio::test(start_paused = true)]
async fn what_fails_changes_nothing_and_is_said() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(10.0));
    let scaler = builder(&target, &metric).build().unwrap();
    metric.set(None);
    let decision = scaler.evaluate().await;
    assert_eq!((decision.to, decision.reason), (4, Reason::FailedGetMetric));
    assert_eq!(decision.metrics[0].error.as_deref(), Some("told to fail"));
    metric.set(10.0);
    target.fail_to_read(true);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedGetScale);
    target.fail_to_read(false);
    target.fail_to_set(true);
    let decision = scaler.evaluate().await;
    assert_eq!((decision.to, decision.reason), (4, Reason::FailedUpdateScale));
    assert!(scaler.history().is_empty());
    assert_eq!(scaler.status().generation, 1);
    target.fail_to_set(false);
    assert_eq!(scaler.evaluate().await.to, 1);
    assert_eq!(scaler.status().generation, 2);
    let last = scaler.status().last_scale.unwrap();
    assert_eq!((last.from, last.to, last.actor.as_str()), (4, 1, "autoscaler"));
    assert!(last.reason.contains("all metrics are below"), "{}", last.reason);
}

#[tokio::test(start_paused = true)]
async fn a_metric_or_target_that_hangs_is_given_up() {
    let target = FakeTarget::new(4);
    let scaler = Autoscaler::builder("workers")
        .policy(eager())
        .measure("depth", std::future::pending::<Result<f64, Error>>)
        .target(target.clone())
        .build()
        .unwrap();
    let decision = scaler.evaluate().await;
    assert_eq!((decision.to, decision.reason), (4, Reason::FailedGetMetric));
    // One that takes a change and never says so: the next round sees that it did.
    let metric = FakeMetric::new(100.0);
    let scaler = builder(&target, &metric).build().unwrap();
    target.hang(true);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    assert!(scaler.history().is_empty());
    target.hang(false);
    scaler.evaluate().await;
    let changes: Vec<_> = scaler.history().iter().map(|it| (it.from, it.to)).collect();
    assert_eq!(changes, [(4, 8)], "and the rates count it");
    assert_eq!(target.replicas(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_failover_forbids_scale_in_by_closure_and_by_channel() {
    let (target, metric) = (FakeTarget::new(10), FakeMetric::new(10.0));
    let (signal, failover) = watch::channel(true);
    let outage = Arc::new(AtomicBool::new(true));
    let scaler = builder(&target, &metric)
        .forbid_scale_in_on(failover)
        .forbid_scale_in_while({
            let outage = Arc::clone(&outage);
            move || outage.load(Ordering::Relaxed)
        })
        .build()
        .unwrap();
    assert_eq!(scaler.evaluate().await.reason, Reason::ScaleInForbidden);
    assert!(scaler.status().scale_in_forbidden);
    signal.send_replace(false);
    assert_eq!(scaler.evaluate().await.to, 10, "the other still does");
    outage.store(false, Ordering::Relaxed);
    assert_eq!(scaler.evaluate().await.to, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_shows_what_would_be_done() {
    let (target, metric) = (FakeTarget::new(2), FakeMetric::new(100.0));
    let scaler = builder(&target, &metric).build().unwrap();
    scaler.pause();
    scaler.pause();
    assert_eq!(scaler.status().generation, 2);
    let decision = scaler.evaluate().await;
    assert_eq!((decision.to, decision.recommended, decision.reason), (2, Some(10), Reason::Paused));
    scaler.resume();
    assert_eq!(scaler.evaluate().await.to, 6);
}

#[tokio::test(start_paused = true)]
async fn the_status_is_plain_data() {
    let (target, metric) = (FakeTarget::new(3), FakeMetric::new(58.0));
    let scaler = builder(&target, &metric).build().unwrap();
    let before = serde_json::to_value(scaler.status()).unwrap();
    assert_eq!(before["replicas"]["current"], serde_json::Value::Null);
    assert_eq!(before["replicas"]["max"], 20);
    scaler.evaluate().await;
    let status = serde_json::to_value(scaler.status()).unwrap();
    assert_eq!(status["target"], "workers");
    assert_eq!(status["generation"], 2);
    assert_eq!(status["recommendation"]["raw"], 6);
    assert_eq!(status["recommendation"]["limited"], 6);
    assert_eq!(status["metrics"][0]["proposal"], 6);
    assert_eq!(status["metrics"][0]["name"], "depth");
    assert_eq!(status["conditions"][0]["kind"], "AbleToScale");
    assert_eq!(status["conditions"][0]["reason"], "SucceededRescale");
    assert_eq!(status["replicas"]["desired"], 6);
    assert!(status["last_scale"]["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test(start_paused = true)]
async fn history_is_bounded() {
    let (target, metric) = (FakeTarget::new(2), FakeMetric::new(10.0));
    let config = resonant_scale::AutoscalerConfig { history: 3, ..Default::default() };
    let scaler = builder(&target, &metric).config(config).build().unwrap();
    for round in 0..20 {
        metric.set(if round % 2 == 0 { 20.0 } else { 40.0 });
        scaler.evaluate().await;
        sleep(secs(15)).await;
    }
    assert_eq!(scaler.history().len(), 3);
}

#[test]
fn what_cannot_work_is_refused() {
    let (target, metric) = (FakeTarget::new(1), FakeMetric::new(1.0));
    let refused =
        |builder: AutoscalerBuilder| builder.build().map(drop).unwrap_err().message().to_owned();
    assert!(refused(Autoscaler::builder("x")).contains("policy"));
    assert!(refused(Autoscaler::builder("x").policy(eager())).contains("target"));
    let without = Autoscaler::builder("x").policy(eager()).target(target.clone());
    assert!(refused(without).contains("\"depth\" of the policy has no source"));
    let other = builder(&target, &metric).source("deepness", metric.clone());
    assert!(refused(other).contains("no metric \"deepness\""));
    assert!(refused(builder(&target, &metric).interval(Duration::ZERO)).contains("interval"));
    assert!(
        refused(Autoscaler::builder("").policy(eager()).target(target.clone())).contains("name")
    );
    let bad = TrackingConfig { target_value: -1.0, ..TrackingConfig::default() };
    assert!(
        refused(
            Autoscaler::builder("x")
                .policy(bad)
                .target(target.clone())
                .source("cpu", metric.clone())
        )
        .contains("target_value")
    );
    let scaler = builder(&target, &metric).build().unwrap();
    assert_eq!(scaler.start().unwrap_err().kind(), ErrorKind::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn it_compiles_where_users_put_it() {
    let depth = Arc::new(std::sync::Mutex::new(30.0));
    let target = FakeTarget::new(1);
    let task = tokio::spawn({
        let target = target.clone();
        async move {
            let scaler = Autoscaler::builder("spawned")
                .policy(eager())
                .measure("depth", move || {
                    let depth = Arc::clone(&depth);
                    async move { Ok::<_, std::io::Error>(*depth.lock().unwrap()) }
                })
                .target(target)
                .build()?;
            scaler.evaluate().await;
            Ok::<_, Error>(())
        }
    });
    task.await.unwrap().unwrap();
    assert_eq!(target.replicas(), 3);
}
