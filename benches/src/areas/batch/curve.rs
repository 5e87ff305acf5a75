//! Latency against load: the more submitters, the more load, and what each of them waits then.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::contenders::{Adds, aint_one, graphql, loader, ours, ultra};
use crate::Outcome;
use crate::harness::{now, percentiles, storm};
use crate::plot::{Curve, draw};
use crate::report::{Plot, Report};

const SUBMITTERS: [usize; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// Each point is the best of so many, by its latency: the machine's slow moments are nobody's property.
const TURNS: usize = 3;
const ABOUT: &str = "Time from submit to result, median (solid) and 99th percentile (dashed), against the load: 1 to 4,096 submitters, \
                     a processor that sleeps 1 ms for each batch of at most 100, 4 batches in flight where that can be set. Further down \
                     and to the right is better.";

pub(super) fn run(runtime: &Runtime, report: &mut Report) -> Outcome {
    if !report.wants("batch.curve") {
        return Ok(());
    }
    let mut text = String::new();
    let curves = vec![
        measure(runtime, "BatchProcessor", &ours(true)?, &mut text),
        measure(runtime, "batch-aint-one", &aint_one(true, false), &mut text),
        measure(runtime, "dataloader", &loader(true), &mut text),
        measure(runtime, "async-graphql", &graphql(true), &mut text),
        measure(runtime, "ultra-batch", &ultra(true), &mut text),
    ];
    println!("\nlatency against load\n{text}");
    let svg = draw("items a second", "latency in ms", &curves);
    report.plot(Plot { file: "batch-latency.svg", about: ABOUT, svg });
    Ok(())
}

fn measure(runtime: &Runtime, name: &'static str, batcher: &impl Adds, text: &mut String) -> Curve {
    let points = SUBMITTERS.map(|submitters| {
        let turns = (0..TURNS).map(|_| point(runtime, submitters, batcher));
        let best = turns.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or_default();
        let (load, median, high) = best;
        let _ = writeln!(
            text,
            "  {name:<16} {submitters:>5} submitters {load:>10.0} items/s, median {median:.2} ms, p99 {high:.2} ms"
        );
        best
    });
    Curve { name, points: points.into() }
}

/// Items a second, the median and the 99th percentile in milliseconds.
fn point(runtime: &Runtime, submitters: usize, batcher: &impl Adds) -> (f64, f64, f64) {
    let (sender, samples) = std::sync::mpsc::channel::<Vec<Duration>>();
    let load = storm(runtime, submitters, |task, weather| {
        let (batcher, sender) = (batcher.clone(), sender.clone());
        async move {
            let (mut taken, mut item) = (Vec::new(), (task as u64) << 32);
            while weather.lasts() {
                let started = now();
                if batcher.add(item).await == Some(item + 1) {
                    taken.push(started.elapsed());
                }
                item += 1;
            }
            let done = taken.len() as u64;
            let _ = sender.send(taken);
            done
        }
    });
    drop(sender);
    let mut all: Vec<_> = samples.into_iter().flatten().collect();
    let (median, high) = percentiles(&mut all);
    (load, median / 1e6, high / 1e6)
}
