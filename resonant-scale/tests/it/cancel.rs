//! Calls dropped at every await.

use std::future::Future;
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use resonant_scale::testing::{FakeMetric, FakeTarget};
use resonant_scale::{Autoscaler, Result, ScaleRequest, ScaleTarget, TargetState};
use tokio::task::yield_now;

use crate::scaler::eager;

/// Gives way before and after everything it does.
#[derive(Debug, Clone)]
struct Slow(FakeTarget);

#[async_trait]
impl ScaleTarget for Slow {
    async fn read(&self) -> Result<TargetState> {
        yield_now().await;
        let read = self.0.read().await;
        yield_now().await;
        read
    }
    async fn set(&self, replicas: u32) -> Result<()> {
        yield_now().await;
        let set = self.0.set(replicas).await;
        yield_now().await;
        set
    }
}

fn scaler(target: &FakeTarget, metric: &FakeMetric) -> Autoscaler {
    let builder = Autoscaler::builder("workers").policy(eager()).source("depth", metric.clone());
    builder.target(Slow(target.clone())).build().unwrap()
}

/// Polls so many times; true if it came to its end.
fn polled<F: Future>(future: F, times: usize) -> bool {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).any(|_| future.as_mut().poll(&mut context).is_ready())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_change_is_not_forgotten() {
    for manual in [false, true] {
        let mut ended = false;
        for polls in 0..50 {
            let (target, metric) = (FakeTarget::new(2), FakeMetric::new(30.0));
            let scaler = scaler(&target, &metric);
            ended = match manual {
                true => polled(scaler.scale(ScaleRequest::to(3)), polls),
                false => polled(scaler.evaluate(), polls),
            };
            // Whatever it came to: the next round ends at three, and exactly one change is remembered.
            tokio::time::timeout(Duration::from_secs(60), scaler.evaluate()).await.unwrap();
            assert_eq!(target.replicas(), 3, "{manual} {polls}");
            let history = scaler.history();
            assert_eq!(history.len(), 1, "{manual} {polls}: {history:?}");
            assert_eq!((history[0].from, history[0].to), (2, 3));
            if ended {
                break;
            }
        }
        assert!(ended, "polled to the end at last");
    }
}
