//! Which node answers a read: a pure choice among those that may be asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Role;

/// How reads are spread over the replicas.
///
/// A replica that keeps failing is left out. When no replica is fit, or there is none, reads go to the primary, unless
/// [`primary_reads`](crate::RoutingConfig::primary_reads) says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadStrategy {
    /// The replica with the fewest statements in flight from here; of equals, each in turn.
    LeastInFlight,
    /// The replica that is the least behind; those within 100 ms of it take turns. Where no lag is known, each in turn.
    LowestLag,
    /// Of two replicas by chance the one that is expected to answer first: its peak-sensitive average latency times the
    /// statements in flight. Avoids a slow replica after one slow answer.
    PeakEwma,
    /// The primary, and nothing else when it is down.
    Primary,
    /// The primary; the replicas while it cannot be reached.
    PreferPrimary,
    /// Any replica, by chance.
    Random,
    /// One replica after the other. Default.
    #[default]
    RoundRobin,
    /// The replicas of this process's own zone in turn; others when none of them is fit.
    ZoneFirst,
}

/// A node that may answer a read, as a choice sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is to the set.
    pub role: Role,
    /// Its zone, if it was given one.
    pub zone: Option<&'a str>,
    /// Calls at it from here.
    pub in_flight: usize,
    /// What an answer is expected to take; `None` before the first.
    pub latency: Option<Duration>,
    /// How far it is behind at most; `None` where that is not known. Zero for the primary.
    pub staleness: Option<Duration>,
}

/// Replicas that are this close to the least late one are as good.
const CLOSE: Duration = Duration::from_millis(100);
/// What an answer of a node is thought to take that was never heard of while calls wait for it.
const UNHEARD: Duration = Duration::from_secs(10);

/// What a choice needs beside the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw<'a> {
    /// Rises by one with each choice.
    pub(super) turn: usize,
    /// A random number.
    pub(super) chance: u64,
    /// The zone of this process.
    pub(super) zone: Option<&'a str>,
    /// The primary is one of the candidates that reads are spread over.
    pub(super) primary_included: bool,
}

impl ReadStrategy {
    /// The place of the candidate to ask; `None` when there is none to the strategy's mind.
    pub(super) fn choose(self, field: &[Candidate<'_>], draw: Draw<'_>) -> Option<usize> {
        let primary = field.iter().position(|node| node.role == Role::Primary);
        let spread = |place: &usize| draw.primary_included || Some(*place) != primary;
        let places: Vec<usize> = (0..field.len()).filter(spread).collect();
        let chosen = match self {
            ReadStrategy::Primary => return primary,
            ReadStrategy::PreferPrimary => {
                return primary.or_else(|| at(&places, draw.turn));
            }
            ReadStrategy::RoundRobin => at(&places, draw.turn),
            ReadStrategy::Random => at(&places, index(draw.chance)),
            ReadStrategy::LeastInFlight => {
                let load = |place: usize| field[place].in_flight;
                let least = places.iter().map(|place| load(*place)).min();
                let idle: Vec<_> =
                    places.iter().copied().filter(|place| Some(load(*place)) == least).collect();
                at(&idle, draw.turn)
            }
            ReadStrategy::LowestLag => {
                let lag = |place: usize| field[place].staleness;
                let least = places.iter().filter_map(|place| lag(*place)).min();
                let close = |place: &usize| match (lag(*place), least) {
                    (Some(lag), Some(least)) => lag <= least + CLOSE,
                    (None, Some(_)) => false,
                    (_, None) => true,
                };
                at(&places.iter().copied().filter(close).collect::<Vec<_>>(), draw.turn)
            }
            ReadStrategy::ZoneFirst => {
                let near = |place: &usize| draw.zone.is_some() && field[*place].zone == draw.zone;
                let near: Vec<_> = places.iter().copied().filter(near).collect();
                at(&near, draw.turn).or_else(|| at(&places, draw.turn))
            }
            ReadStrategy::PeakEwma => two_of(&places, draw.chance).map(|(one, other)| {
                if load(&field[other]) < load(&field[one]) { other } else { one }
            }),
        };
        chosen.or(primary)
    }
}

/// How long a call at a node is expected to take, with those before it.
fn load(node: &Candidate<'_>) -> f64 {
    let each = match (node.latency, node.in_flight) {
        (Some(latency), _) => latency,
        // Nobody knows: try it once.
        (None, 0) => Duration::ZERO,
        (None, _) => UNHEARD,
    };
    each.as_secs_f64() * (node.in_flight + 1) as f64
}

fn at(places: &[usize], turn: usize) -> Option<usize> {
    places.get(turn.checked_rem(places.len())?).copied()
}

/// Two different places by chance; the same one twice when there is only one.
fn two_of(places: &[usize], chance: u64) -> Option<(usize, usize)> {
    let first = index(chance).checked_rem(places.len())?;
    let second = match places.len() - 1 {
        0 => first,
        others => (first + 1 + index(chance >> 32) % others) % places.len(),
    };
    Some((*places.get(first)?, *places.get(second)?))
}

fn index(chance: u64) -> usize {
    // The lower half is as random as the whole.
    usize::try_from(chance & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
