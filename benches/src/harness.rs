//! Runs contenders side by side.
//!
//! Contenders take turns, so that a slow minute of the machine hits all of them, and each turn begins with another one.
//! The first turn is not counted. The median of the turns counts, and the least and the most are shown. A ratio is the median
//! of the ratios within each turn: what is compared ran within the same second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::report::{Goal, Measured, Report};

/// How often each contender runs, the first time aside.
const TURNS: usize = 25;
/// How long a storm lasts.
const SLICE: Duration = Duration::from_millis(60);

/// What is measured, and so whether more is better.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit {
    /// So many a second.
    Rate(&'static str),
    /// Time, in nanoseconds.
    Nanoseconds,
    /// Time, in microseconds.
    Microseconds,
}

impl Unit {
    fn speed(self, sample: f64) -> f64 {
        match self {
            Unit::Rate(_) => sample,
            Unit::Nanoseconds | Unit::Microseconds => 1.0 / sample,
        }
    }
}

/// One comparison: ours first, then the peers. Without peers it is a figure.
pub(crate) struct Case<'a> {
    name: &'static str,
    about: String,
    unit: Unit,
    goal: Option<Goal>,
    turns: usize,
    contenders: Vec<Contender<'a>>,
}

type Turn<'a> = Box<dyn FnMut() -> Outcome<f64> + 'a>;

struct Contender<'a> {
    name: &'static str,
    run: Turn<'a>,
}

impl<'a> Case<'a> {
    /// A comparison by rate. `name` is for scripts, `about` for readers.
    pub(crate) fn new(name: &'static str, about: impl Into<String>, what: &'static str) -> Self {
        let about = about.into();
        let unit = Unit::Rate(what);
        Self { name, about, unit, goal: None, turns: TURNS, contenders: Vec::new() }
    }

    /// A comparison by time: less is better.
    pub(crate) fn of_time(name: &'static str, about: &'static str) -> Self {
        Self { unit: Unit::Nanoseconds, ..Self::new(name, about, "") }
    }

    /// A comparison by time in microseconds: less is better.
    pub(crate) fn of_microseconds(name: &'static str, about: &'static str) -> Self {
        Self { unit: Unit::Microseconds, ..Self::new(name, about, "") }
    }

    /// The ratio to the best peer we want to reach, or the figure where there is none.
    pub(crate) fn goal(mut self, value: f64) -> Self {
        self.goal = Some(Goal { value, peer: None });
        self
    }

    /// The ratio to this peer we want to reach.
    pub(crate) fn goal_against(mut self, peer: &'static str, value: f64) -> Self {
        self.goal = Some(Goal { value, peer: Some(peer) });
        self
    }

    /// How often each contender runs, where one turn takes long.
    pub(crate) fn turns(mut self, turns: usize) -> Self {
        self.turns = turns;
        self
    }

    /// A contender. The first one is ours.
    pub(crate) fn run(
        mut self,
        name: &'static str,
        run: impl FnMut() -> Outcome<f64> + 'a,
    ) -> Self {
        self.contenders.push(Contender { name, run: Box::new(run) });
        self
    }

    /// Lets them run.
    pub(crate) fn measure(mut self, report: &mut Report) -> Outcome {
        if !report.wants(self.name) {
            return Ok(());
        }
        let count = self.contenders.len();
        let mut samples = vec![Vec::with_capacity(self.turns); count];
        for turn in 0..=self.turns {
            for place in 0..count {
                let index = (turn + place) % count;
                let sample = (self.contenders[index].run)()?;
                if turn > 0 {
                    samples[index].push(sample);
                }
            }
        }
        let unit = self.unit;
        let ratios = |theirs: &[f64]| {
            let pairs = samples[0].iter().zip(theirs);
            median(pairs.map(|(ours, theirs)| unit.speed(*ours) / unit.speed(*theirs)).collect())
        };
        let measured = self.contenders.iter().zip(&samples).map(|(contender, samples)| {
            let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
            let most = samples.iter().copied().fold(0.0, f64::max);
            let ratio = ratios(samples);
            Measured { name: contender.name, median: median(samples.clone()), least, most, ratio }
        });
        report.add(self.name, &self.about, self.unit, self.goal, measured.collect());
        Ok(())
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Tells the tasks of a storm when to end.
#[derive(Debug, Clone)]
pub(crate) struct Weather(Arc<AtomicBool>);

impl Weather {
    /// Whether to go on.
    pub(crate) fn lasts(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// Lets `tasks` tasks do the same for a while, and returns how much they did in a second, all together. `work` gets the
/// number of its task and returns how many operations succeeded until the weather ended.
pub(crate) fn storm<F, Fut>(runtime: &Runtime, tasks: usize, work: F) -> f64
where
    F: Fn(usize, Weather) -> Fut,
    Fut: Future<Output = u64> + Send + 'static,
{
    let weather = Weather(Arc::default());
    // The time starts with the first task: before that it is other programs that are measured.
    let (begun, first) = std::sync::mpsc::channel();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (work, begun) = (work(task, weather.clone()), begun.clone());
            runtime.spawn(async move {
                let _ = begun.send(now());
                work.await
            })
        })
        .collect();
    let started = first.recv().unwrap_or_else(|_| now());
    pause(SLICE);
    weather.0.store(true, Ordering::Relaxed);
    let done: u64 = runtime.block_on(async {
        let mut done = 0;
        for task in running {
            done += task.await.unwrap_or_default();
        }
        done
    });
    done as f64 / started.elapsed().as_secs_f64()
}

/// The runtime all contenders of an area share: one worker for each core.
pub(crate) fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// The clock on the wall, which is what a bench measures.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets the others run for a while; the main thread is none of the runtime's.
#[expect(clippy::disallowed_methods, reason = "a bench measures for some real time")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// The median of `samples` in nanoseconds, and the one that 99 % do not exceed.
pub(crate) fn percentiles(samples: &mut [Duration]) -> (f64, f64) {
    samples.sort_unstable();
    let at = |share: usize| samples.get(samples.len() * share / 100).map_or(0.0, nanoseconds);
    (at(50), at(99))
}

fn nanoseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Random enough to walk through keys, and cheap.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Each seed has its own sequence.
    pub(crate) fn new(seed: usize) -> Self {
        Self((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub(crate) fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}
