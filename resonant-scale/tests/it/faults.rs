//! What users' code does wrong costs a round, never the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resonant_scale::source::FromFn;
use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{
    Autoscaler, AutoscalerConfig, ErrorKind, Reading, Reason, Result, Scale, ScaleRequest,
    ScaleTarget, TargetState, TrackingConfig,
};
use tokio::time::sleep;

use crate::scaler::{builder, eager, secs};

/// Panics in the one call or the other, after it did what it was asked for.
#[derive(Debug, Clone)]
struct Panicky {
    inner: FakeTarget,
    read: Arc<AtomicBool>,
    set: Arc<AtomicBool>,
}

impl Panicky {
    fn new(replicas: u32) -> Self {
        Self { inner: FakeTarget::new(replicas), read: Arc::default(), set: Arc::default() }
    }
}

#[async_trait]
impl ScaleTarget for Panicky {
    async fn read(&self) -> Result<TargetState> {
        assert!(!self.read.load(Ordering::SeqCst), "told to panic");
        self.inner.read().await
    }
    async fn set(&self, replicas: u32) -> Result<()> {
        self.inner.set(replicas).await?;
        assert!(!self.set.load(Ordering::SeqCst), "told to panic");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_panics_costs_its_rounds_and_not_the_loop() {
    let (target, panics) = (FakeTarget::new(4), Arc::new(AtomicBool::new(true)));
    let scaler = Autoscaler::builder("workers")
        .policy(eager())
        .measure("depth", {
            let panics = Arc::clone(&panics);
            move || {
                let panics = Arc::clone(&panics);
                async move {
                    assert!(!panics.load(Ordering::SeqCst), "told to panic");
                    Ok::<_, std::io::Error>(70.0)
                }
            }
        })
        .target(target.clone())
        .build()
        .unwrap();
    scaler.start().unwrap();
    sleep(secs(40)).await;
    let status = scaler.status();
    assert_eq!(status.recommendation.unwrap().reason, Reason::FailedGetMetric);
    assert!(status.metrics[0].error.as_deref().is_some_and(|it| it.contains("panicked")));
    panics.store(false, Ordering::SeqCst);
    sleep(secs(20)).await;
    assert_eq!(target.replicas(), 7, "the loop goes on");
}

#[tokio::test(start_paused = true)]
async fn a_metric_whose_closure_panics_before_its_future_is_failed_too() {
    let scaler = Autoscaler::builder("workers")
        .policy(eager())
        .source(
            "depth",
            FromFn::reading(|| -> std::future::Ready<Result<Reading, std::io::Error>> {
                panic!("told to panic")
            }),
        )
        .target(FakeTarget::new(4))
        .build()
        .unwrap();
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedGetMetric);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_panics_is_unavailable_and_what_it_did_is_counted() {
    let target = Panicky::new(2);
    let scaler = Autoscaler::builder("workers")
        .policy(eager())
        .source("depth", FakeMetric::new(40.0))
        .target(target.clone())
        .build()
        .unwrap();
    target.read.store(true, Ordering::SeqCst);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedGetScale);
    let error = scaler.scale(ScaleRequest::to(3)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Unavailable, false));
    target.read.store(false, Ordering::SeqCst);
    target.set.store(true, Ordering::SeqCst);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    let error = scaler.scale(ScaleRequest::to(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Unavailable, true));
    target.set.store(false, Ordering::SeqCst);
    scaler.evaluate().await;
    let changes: Vec<_> = scaler.history().iter().map(|it| (it.from, it.to)).collect();
    assert_eq!(changes, [(2, 4), (4, 5), (5, 4)], "it did what it was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_failover_signal_that_panics_forbids() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(10.0));
    let panics = Arc::new(AtomicBool::new(true));
    let scaler = builder(&target, &metric)
        .forbid_scale_in_while({
            let panics = Arc::clone(&panics);
            move || {
                assert!(!panics.load(Ordering::SeqCst), "told to panic");
                false
            }
        })
        .build()
        .unwrap();
    assert!(scaler.status().scale_in_forbidden);
    assert_eq!(scaler.evaluate().await.reason, Reason::ScaleInForbidden);
    let error = scaler.scale(ScaleRequest::to(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Held);
    panics.store(false, Ordering::SeqCst);
    assert_eq!(scaler.evaluate().await.to, 1);
}

/// Takes only a part of a change and then fails.
#[derive(Debug, Clone, Default)]
struct Partial(Arc<AtomicU32>);

#[async_trait]
impl ScaleTarget for Partial {
    async fn read(&self) -> Result<TargetState> {
        Ok(Scale::steady(self.0.load(Ordering::SeqCst)).into())
    }
    async fn set(&self, _: u32) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let error = resonant_scale::Error::new(ErrorKind::Unavailable, "set", "only one came");
        Err(error.with_may_have_applied())
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_change_counts_as_what_it_came_to() {
    let target = Partial::default();
    target.0.store(2, Ordering::SeqCst);
    let scaler = Autoscaler::builder("workers")
        .policy(eager())
        .source("depth", FakeMetric::new(60.0))
        .target(target)
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    }
    let changes: Vec<_> = scaler.history().iter().map(|it| (it.from, it.to)).collect();
    assert_eq!(changes, [(2, 3), (3, 4)]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_did_is_not_ours_where_the_target_refused() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(80.0));
    let scaler = builder(&target, &metric).build().unwrap();
    target.fail_to_set(true);
    assert_eq!(scaler.evaluate().await.reason, Reason::FailedUpdateScale);
    target.becomes(8);
    target.fail_to_set(false);
    scaler.evaluate().await;
    assert!(scaler.history().is_empty(), "{:?}", scaler.history());
}

#[tokio::test(start_paused = true)]
async fn for_ever_is_no_time_that_panics() {
    let (target, metric) = (FakeTarget::new(4), FakeMetric::new(50.0));
    let config = AutoscalerConfig {
        interval: Duration::MAX,
        timeout: Duration::MAX,
        set_timeout: Duration::MAX,
        manual_cooldown: Duration::MAX,
        max_hold: Duration::MAX,
        ..AutoscalerConfig::default()
    };
    let scaler = builder(&target, &metric).config(config.clone()).build().unwrap();
    scaler.start().unwrap();
    sleep(secs(100)).await;
    assert_eq!(target.replicas(), 5);
    let held = ScaleRequest::to(6).hold_for(Duration::MAX);
    assert_eq!(scaler.scale(held).await.unwrap().to, 6);
    assert_eq!(scaler.evaluate().await.reason, Reason::HeldByPerson);
    let error = scaler.scale(ScaleRequest::to(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limited);
    assert!(scaler.status().next_evaluation_in.is_some());
    scaler.stop().await;
    assert_eq!(scaler.status().next_evaluation_in, None, "nothing comes after a stop");
    let policy = TrackingConfig {
        scale_in_cooldown: Duration::MAX,
        scale_out_cooldown: Duration::MAX,
        max_capacity: 10,
        ..TrackingConfig::default()
    };
    let target = FakeTarget::new(4);
    let cpu = FakeMetric::new(100.0);
    let scaler = Autoscaler::builder("tracked")
        .policy(policy)
        .source("cpu", cpu.clone())
        .target(target.clone())
        .build()
        .unwrap();
    assert_eq!(scaler.evaluate().await.to, 6);
    cpu.set(10.0);
    assert_eq!(scaler.evaluate().await.reason, Reason::Cooldown);
    assert!(scaler.status().cooldowns.policy.is_some());
}
