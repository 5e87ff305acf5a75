//! A person's changes.

use std::time::Duration;

use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{
    Autoscaler, AutoscalerConfig, Behavior, ErrorKind, Reason, ScaleRequest, ScalingPolicy,
    ScalingRules,
};
use tokio::time::sleep;

use crate::scaler::{builder, eager, secs};

fn scaler(replicas: u32) -> (Autoscaler, FakeTarget, FakeMetric) {
    let (target, metric) = (FakeTarget::new(replicas), FakeMetric::new(f64::from(replicas) * 10.0));
    (builder(&target, &metric).build().unwrap(), target, metric)
}

#[tokio::test(start_paused = true)]
async fn to_a_number_and_by_a_number() {
    let (scaler, target, _) = scaler(4);
    let plan = scaler.scale(ScaleRequest::to(6).actor("ada").reason("a sale")).await.unwrap();
    assert_eq!((plan.from, plan.to, plan.applied, plan.generation), (4, 6, true, 2));
    sleep(secs(30)).await;
    assert_eq!(scaler.scale(ScaleRequest::by(-2)).await.unwrap().to, 4);
    assert_eq!(target.sets(), [6, 4]);
    let history = scaler.history();
    assert_eq!((history[0].actor.as_str(), history[0].reason.as_str()), ("ada", "a sale"));
    assert_eq!(history[1].actor, "operator");
}

#[tokio::test(start_paused = true)]
async fn bounds_hold_even_by_force() {
    let (scaler, target, _) = scaler(4);
    for request in [
        ScaleRequest::to(0),
        ScaleRequest::to(21),
        ScaleRequest::by(-4),
        ScaleRequest::by(17),
        ScaleRequest::by(i64::MAX),
        ScaleRequest::by(i64::MIN),
        ScaleRequest::to(u32::MAX).force(),
    ] {
        let error = scaler.scale(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfBounds);
        assert!(error.message().contains("1 to 20"));
    }
    assert!(target.sets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_the_run_then_does() {
    let (scaler, target, _) = scaler(4);
    for to in [4, 5, 20] {
        let dry = scaler.scale(ScaleRequest::to(to).dry_run()).await.unwrap();
        assert!(dry.dry_run && !dry.applied && target.replicas() == 4);
        let wet = scaler.scale(ScaleRequest::to(to)).await.unwrap();
        assert_eq!((dry.to, dry.limited_by), (wet.to, wet.limited_by));
        assert_eq!(wet.applied, wet.to != 4);
        target.becomes(4);
        sleep(secs(3600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_follows_and_says_how_long() {
    let (scaler, _, _) = scaler(4);
    scaler.scale(ScaleRequest::to(5)).await.unwrap();
    sleep(secs(10)).await;
    let error = scaler.scale(ScaleRequest::to(6)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Limited, Some(secs(20))));
    assert_eq!(scaler.status().cooldowns.manual, Some(20.0));
    assert_eq!(
        scaler.scale(ScaleRequest::to(5)).await.unwrap().to,
        5,
        "nothing to do is no change"
    );
    assert!(scaler.scale(ScaleRequest::to(6).force()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn rates_count_people_and_people_keep_to_the_rates() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(200.0));
    let minute = secs(60);
    let up = ScalingRules::new(secs(0), [ScalingPolicy::pods(3, minute)]);
    let down = ScalingRules::new(secs(0), [ScalingPolicy::pods(2, minute)]);
    let policy = eager().behavior(Behavior { scale_up: up, scale_down: down });
    let config =
        AutoscalerConfig { manual_cooldown: Duration::ZERO, ..AutoscalerConfig::default() };
    let scaler = builder(&target, &metric).policy(policy).config(config).build().unwrap();
    let plan = scaler.scale(ScaleRequest::to(6)).await.unwrap();
    assert_eq!((plan.to, plan.limited_by), (6, None));
    // Of three a minute two are used up: the loop gets one.
    assert_eq!(scaler.evaluate().await.to, 7);
    let error = scaler.scale(ScaleRequest::to(9)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Limited, Some(minute)));
    sleep(minute).await;
    let plan = scaler.scale(ScaleRequest::to(20)).await.unwrap();
    assert_eq!((plan.to, plan.wanted, plan.limited_by), (10, 20, Some(Reason::ScaleUpLimit)));
    assert_eq!(scaler.scale(ScaleRequest::to(20).force()).await.unwrap().to, 20);
}

#[tokio::test(start_paused = true)]
async fn the_generation_named_must_be_the_present_one() {
    let (scaler, _, _) = scaler(4);
    let now = scaler.status().generation;
    assert!(scaler.scale(ScaleRequest::to(5).generation(now)).await.is_ok());
    let error = scaler.scale(ScaleRequest::to(6).generation(now).force()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn of_sixteen_who_name_the_same_generation_one_wins() {
    let (scaler, target, _) = scaler(4);
    let asked = (0..16).map(|index| {
        let scaler = scaler.clone();
        tokio::spawn(async move {
            scaler.scale(ScaleRequest::to(5 + index % 4).force().generation(1)).await
        })
    });
    let answers = futures::future::join_all(asked).await;
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((won.len(), lost.len(), target.sets().len()), (1, 15, 1));
    assert!(lost.into_iter().all(|it| it.unwrap_err().kind() == ErrorKind::Conflict));
}

#[tokio::test(start_paused = true)]
async fn a_hold_keeps_the_loop_away() {
    let (scaler, target, metric) = scaler(4);
    metric.set(10.0);
    let held = ScaleRequest::to(8).hold_for(secs(600));
    scaler.scale(held).await.unwrap();
    assert_eq!(scaler.evaluate().await.reason, Reason::HeldByPerson);
    assert_eq!(scaler.status().held_for, Some(600.0));
    sleep(secs(600)).await;
    assert_eq!((scaler.evaluate().await.to, scaler.status().held_for), (1, None));
    // Nothing for no time: a hold ends.
    scaler.scale(ScaleRequest::to(1).hold_for(secs(60))).await.unwrap();
    scaler.scale(ScaleRequest::to(1).hold_for(secs(0))).await.unwrap();
    metric.set(30.0);
    assert_eq!((scaler.evaluate().await.to, target.replicas()), (3, 3));
    let error = scaler.scale(ScaleRequest::to(3).hold_for(secs(90_000))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_a_failover_hold_people_too() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(40.0));
    let (signal, failover) = tokio::sync::watch::channel(false);
    let scaler = builder(&target, &metric).forbid_scale_in_on(failover).build().unwrap();
    scaler.pause();
    let kind = |result: Result<_, resonant_scale::Error>| result.map(drop).unwrap_err().kind();
    assert_eq!(kind(scaler.scale(ScaleRequest::to(5)).await), ErrorKind::Held);
    assert!(scaler.scale(ScaleRequest::to(5).force()).await.is_ok());
    scaler.resume();
    signal.send_replace(true);
    assert_eq!(kind(scaler.scale(ScaleRequest::to(4).force()).await), ErrorKind::Held);
    assert!(scaler.scale(ScaleRequest::to(6).force()).await.is_ok(), "more is always possible");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_answer_is_busy_or_unavailable() {
    let (scaler, target, _) = scaler(4);
    target.fail_to_read(true);
    let error = scaler.scale(ScaleRequest::to(5)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.is_transient());
    target.fail_to_read(false);
    target.hang(true);
    let first = tokio::spawn({
        let scaler = scaler.clone();
        async move { scaler.scale(ScaleRequest::to(5)).await }
    });
    sleep(secs(1)).await;
    let second = scaler.scale(ScaleRequest::to(6)).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Busy);
    let first = first.await.unwrap().unwrap_err();
    assert!(first.kind() == ErrorKind::Unavailable && first.may_have_applied());
}
