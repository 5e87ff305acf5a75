//! What an autoscaler costs.

use std::hint::black_box;
use std::time::Duration;

use resonant_scale::{
    Autoscaler, Behavior, Hpa, HpaConfig, MetricSpec, Observed, Reading, Scale, ScaleTarget,
    TargetState,
};

use super::Area;
use crate::Outcome;
use crate::harness::{Case, now};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "scale",
    about: "What it costs to decide for 1,000 targets by three metrics each, on one thread, with windows and rates: the rules alone, and \
            whole rounds of 1,000 `Autoscaler`s whose sources and targets answer at once.",
    peers: &[],
    run,
};

const TARGETS: usize = 1000;
/// A round is 15 s, as Kubernetes has it.
const ROUND: Duration = Duration::from_secs(15);

fn config() -> HpaConfig {
    HpaConfig::new(1, 500)
        .metric(MetricSpec::external_average("depth", 10.0))
        .metric(MetricSpec::external("load", 70.0))
        .metric(MetricSpec::external("age", 30.0))
        .behavior(Behavior::default())
}

fn run(report: &mut Report) -> Outcome {
    let mut rules = vec![Hpa::new(config())?; TARGETS];
    let mut current = vec![10; TARGETS];
    let mut at = tokio::time::Instant::from_std(now());
    let mut round = 0_u32;
    Case::of_microseconds("scale.rules", "the rules for 1,000 targets")
        .goal(20_000.0)
        .run("Hpa", || {
            (at, round) = (at + ROUND, round + 1);
            let observed: Vec<_> = current
                .iter()
                .enumerate()
                .map(|(index, current)| observed(*current, index, round))
                .collect();
            let started = now();
            for (index, observed) in observed.iter().enumerate() {
                let to = rules[index].decide(black_box(observed), at).to;
                rules[index].scaled(current[index], to, at);
                current[index] = to;
            }
            Ok(started.elapsed().as_secs_f64() * 1e6)
        })
        .measure(report)?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scalers = (0..TARGETS).map(scaler).collect::<Result<Vec<_>, _>>()?;
    Case::of_microseconds("scale.rounds", "rounds of 1,000 autoscalers")
        .goal(20_000.0)
        .run("Autoscaler::evaluate", || {
            let started = now();
            runtime.block_on(async {
                for scaler in &scalers {
                    black_box(scaler.evaluate().await);
                }
            });
            Ok(started.elapsed().as_secs_f64() * 1e6)
        })
        .measure(report)
}

/// Restless, so that windows and rates have something to remember.
fn observed(current: u32, index: usize, round: u32) -> Observed {
    let noise =
        f64::from((round * 7919 + u32::try_from(index).unwrap_or(0) * 104_729) % 1000) / 1000.0;
    let value = |name: &str, value: f64| (name.to_owned(), Reading::Total(value));
    Observed {
        scale: Scale::steady(current),
        readings: [
            value("depth", 1000.0 * noise),
            value("load", 140.0 * (1.0 - noise)),
            value("age", 30.0 + noise),
        ]
        .into(),
        ..Observed::default()
    }
}

/// A target that is a number.
#[derive(Debug)]
struct Number(std::sync::atomic::AtomicU32);

#[async_trait::async_trait]
impl ScaleTarget for Number {
    async fn read(&self) -> resonant_scale::Result<TargetState> {
        Ok(Scale::steady(self.0.load(std::sync::atomic::Ordering::Relaxed)).into())
    }

    async fn set(&self, replicas: u32) -> resonant_scale::Result<()> {
        self.0.store(replicas, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

fn scaler(index: usize) -> Result<Autoscaler, resonant_scale::Error> {
    let rounds = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let metric = |which: usize| {
        let rounds = std::sync::Arc::clone(&rounds);
        move || {
            let round = rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / 3;
            let observed = observed(1, index, round);
            let name = ["depth", "load", "age"][which];
            let value = match observed.readings.get(name) {
                Some(Reading::Total(value)) => *value,
                _ => 0.0,
            };
            std::future::ready(Ok::<_, std::io::Error>(value))
        }
    };
    Autoscaler::builder(format!("target-{index}"))
        .policy(config())
        .measure("depth", metric(0))
        .measure("load", metric(1))
        .measure("age", metric(2))
        .target(Number(10.into()))
        .build()
}
