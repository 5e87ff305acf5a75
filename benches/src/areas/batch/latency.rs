//! How long a lone submitter waits when nobody else is there.

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::contenders::{Adds, aint_one, ours};
use crate::Outcome;
use crate::harness::{Case, now, percentiles};
use crate::report::Report;

const CHANNEL: &str = "bare channel";
const SUBMISSIONS: u64 = 10_000;

pub(super) fn run(runtime: &Runtime, report: &mut Report) -> Outcome {
    let (ours, peer, channel) = (ours(false)?, aint_one(false, false), Channel::open(runtime));
    Case::of_time("batch.idle.p50", "one submitter alone, median latency")
        .goal_against(CHANNEL, 0.5)
        .run("BatchProcessor", || Ok(alone(runtime, &ours)?.0))
        .run("batch-aint-one immediate", || Ok(alone(runtime, &peer)?.0))
        .run(CHANNEL, || Ok(alone(runtime, &channel)?.0))
        .measure(report)?;
    Case::of_time("batch.idle.p99", "one submitter alone, 99th percentile")
        .goal_against(CHANNEL, 0.5)
        .run("BatchProcessor", || Ok(alone(runtime, &ours)?.1))
        .run("batch-aint-one immediate", || Ok(alone(runtime, &peer)?.1))
        .run(CHANNEL, || Ok(alone(runtime, &channel)?.1))
        .measure(report)
}

/// The median and the 99th percentile of one submission after another.
fn alone(runtime: &Runtime, batcher: &impl Adds) -> Outcome<(f64, f64)> {
    let batcher = batcher.clone();
    let task = runtime.spawn(async move {
        let mut samples = Vec::new();
        for item in 0..SUBMISSIONS {
            let started = now();
            if batcher.add(item).await == Some(item + 1) {
                samples.push(started.elapsed());
            }
        }
        samples
    });
    Ok(percentiles(&mut runtime.block_on(task)?))
}

/// The least that a submission to another task can cost: a message there and one back.
#[derive(Debug, Clone)]
struct Channel(mpsc::Sender<(u64, oneshot::Sender<u64>)>);

impl Channel {
    fn open(runtime: &Runtime) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(1000);
        runtime.spawn(async move {
            while let Some((item, reply)) = receiver.recv().await {
                let _ = reply.send(item + 1);
            }
        });
        Self(sender)
    }
}

impl Adds for Channel {
    async fn add(&self, item: u64) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.0.send((item, reply)).await.ok()?;
        answer.await.ok()
    }
}
