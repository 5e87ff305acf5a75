//! Runs contenders side by side and prints what was measured.
//!
//! Contenders take turns, so that a slow minute of the machine hits all of them; the median of the turns counts and the
//! spread is shown. Two kinds of line are for scripts: `FIGURE <name> <value>` and `RATIO <name> <value>` (ours / theirs
//! in throughput, so above 1 is faster).

use std::time::{Duration, Instant};

/// One contender: a name, and a run that returns operations per second.
pub(crate) struct Contender<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> f64 + 'a>,
}

/// A contender from a run that returns how many operations it did.
pub(crate) fn contender<'a>(
    name: &'static str,
    mut run: impl FnMut() -> u64 + 'a,
) -> Contender<'a> {
    let run = move || {
        let started = now();
        let operations = run();
        operations as f64 / started.elapsed().as_secs_f64()
    };
    Contender { name, run: Box::new(run) }
}

/// What a contender reached.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) median: f64,
}

/// Runs all contenders `turns` times in turn after one unmeasured turn, and prints a line for each.
pub(crate) fn compare(
    title: &str,
    turns: usize,
    mut contenders: Vec<Contender<'_>>,
) -> Vec<Outcome> {
    println!("\n{title}");
    let mut samples = vec![Vec::with_capacity(turns); contenders.len()];
    for turn in 0..=turns {
        for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
            let rate = (contender.run)();
            if turn > 0 {
                samples.push(rate);
            }
        }
    }
    let outcomes = contenders.iter().zip(samples).map(|(contender, mut samples)| {
        samples.sort_by(f64::total_cmp);
        let median = samples[samples.len() / 2];
        let (least, most) = (samples[0], samples[samples.len() - 1]);
        println!(
            "  {:<28} {:>14} /s   ({} to {})",
            contender.name,
            round(median),
            round(least),
            round(most)
        );
        Outcome { name: contender.name, median }
    });
    outcomes.collect()
}

/// Prints the ratio of the first outcome to the best of the others.
pub(crate) fn ratio_to_best(name: &str, outcomes: &[Outcome]) {
    let Some((ours, peers)) = outcomes.split_first() else { return };
    if let Some(best) = peers.iter().max_by(|a, b| a.median.total_cmp(&b.median)) {
        println!("  best peer: {}", best.name);
        ratio(name, ours.median / best.median);
    }
}

/// Prints a ratio for scripts.
pub(crate) fn ratio(name: &str, value: f64) {
    println!("RATIO {name} {value:.2}");
}

/// Prints a figure for scripts.
pub(crate) fn figure(name: &str, value: f64) {
    println!("FIGURE {name} {}", round(value));
}

/// The clock on the wall, which is what a bench measures.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The median duration of `samples`, and the one that 99 % do not exceed.
pub(crate) fn percentiles(samples: &mut [Duration]) -> (Duration, Duration) {
    samples.sort_unstable();
    let at = |share: usize| samples.get(samples.len() * share / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

fn round(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
