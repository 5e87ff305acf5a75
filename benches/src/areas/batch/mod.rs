//! What gathering items into batches costs, with a processor that adds one.

mod contenders;
mod curve;
mod keys;
mod latency;

use tokio::runtime::Runtime;

use self::contenders::{Adds, aint_one, graphql, loader, ours, ultra};
use super::Area;
use crate::Outcome;
use crate::harness::{Case, runtime, storm};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "batch",
    about: "`BatchProcessor` gathers items into batches of at most 100 for a processor that adds one; each submitter waits for its \
            result before it submits the next item, and an item counts when its result is right. batch-aint-one runs under its policies \
            immediate and balanced (50) with queues that never reject, dataloader with its default of ten yields, \
            async-graphql's loader and ultra-batch without the delays they have by default (1 and 10 ms). In the cases with a \
            wait the processor sleeps 1 ms for each batch, as a server would, with 4 batches in flight (dataloader has one). Latency is \
            that of one submitter alone; the channel is a task that answers each message, a bare mpsc with a oneshot.",
    peers: &["batch-aint-one", "dataloader", "async-graphql", "ultra-batch"],
    run,
};

/// Submitters and the names of their cases.
const LOADS: [(usize, &str, &str, Option<f64>); 4] = [
    (1, "batch.submit.vs_best_peer.1", "1 submitter", None),
    (64, "batch.submit.vs_best_peer.64", "64 submitters", Some(1.5)),
    (256, "batch.submit.vs_best_peer.256", "256 submitters", Some(1.5)),
    (1000, "batch.submit.vs_best_peer.1000", "1,000 submitters", Some(1.5)),
];

fn run(report: &mut Report) -> Outcome {
    let runtime = runtime()?;
    let _entered = runtime.enter();
    for (submitters, name, about, goal) in LOADS {
        let case = Case::new(name, about, "items");
        let case = if let Some(goal) = goal { case.goal(goal) } else { case };
        against_all(case, &runtime, submitters, false, report)?;
    }
    let about = "256 submitters, the processor waits";
    let case = Case::new("batch.waiting.256", about, "items");
    against_all(case, &runtime, 256, true, report)?;

    let processor = ours(false)?;
    Case::new("batch.submit_many", "64 submitters of 100 items each", "items")
        .run("submit_many", || Ok(many(&runtime, &processor)))
        .measure(report)?;
    latency::run(&runtime, report)?;
    curve::run(&runtime, report)?;
    keys::run(&runtime, report)
}

fn against_all(
    case: Case<'_>,
    runtime: &Runtime,
    submitters: usize,
    wait: bool,
    report: &mut Report,
) -> Outcome {
    let ours = ours(wait)?;
    let (immediate, balanced, loader) = (aint_one(wait, false), aint_one(wait, true), loader(wait));
    let (graphql, ultra) = (graphql(wait), ultra(wait));
    case.run("BatchProcessor", || Ok(submit(runtime, submitters, &ours)))
        .run("batch-aint-one immediate", || Ok(submit(runtime, submitters, &immediate)))
        .run("batch-aint-one balanced", || Ok(submit(runtime, submitters, &balanced)))
        .run("dataloader", || Ok(submit(runtime, submitters, &loader)))
        .run("async-graphql", || Ok(submit(runtime, submitters, &graphql)))
        .run("ultra-batch", || Ok(submit(runtime, submitters, &ultra)))
        .measure(report)
}

fn submit(runtime: &Runtime, submitters: usize, batcher: &impl Adds) -> f64 {
    storm(runtime, submitters, |task, weather| {
        let batcher = batcher.clone();
        async move {
            // Items of different tasks differ: some peers process equal ones once.
            let (mut done, mut item) = (0, (task as u64) << 32);
            while weather.lasts() {
                done += u64::from(batcher.add(item).await == Some(item + 1));
                item += 1;
            }
            done
        }
    })
}

fn many(runtime: &Runtime, processor: &contenders::Ours) -> f64 {
    storm(runtime, 64, |task, weather| {
        let processor = processor.clone();
        async move {
            let (mut done, mut first) = (0, (task as u64) << 32);
            while weather.lasts() {
                let outcomes = processor.submit_many(first..first + 100).await;
                let right = |(item, outcome): &(u64, Result<u64, _>)| matches!(outcome, Ok(output) if *output == item + 1);
                done += (first..).zip(outcomes).filter(right).count() as u64;
                first += 100;
            }
            done
        }
    })
}
