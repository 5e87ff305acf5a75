//! The values the job is about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One flight, as it travels through the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flight {
    /// Its number among the good lines of the input, from zero. The identity under which it is stored once.
    pub(crate) number: u64,
    pub(crate) departed_at: String,
    pub(crate) origin: String,
    pub(crate) destination: String,
    pub(crate) distance_miles: u32,
    pub(crate) delay_minutes: i32,
}

/// Sums over some flights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) flights: u64,
    pub(crate) delay_minutes: i64,
    pub(crate) distance_miles: u64,
}

impl Tally {
    fn add(&mut self, flights: u64, delay_minutes: i64, distance_miles: u64) {
        self.flights += flights;
        self.delay_minutes += delay_minutes;
        self.distance_miles += distance_miles;
    }
}

/// Sums by airport of origin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Totals(BTreeMap<String, Tally>);

impl Totals {
    pub(crate) fn add(
        &mut self,
        origin: &str,
        flights: u64,
        delay_minutes: i64,
        distance_miles: u64,
    ) {
        if let Some(tally) = self.0.get_mut(origin) {
            return tally.add(flights, delay_minutes, distance_miles);
        }
        self.0.entry(origin.to_owned()).or_default().add(flights, delay_minutes, distance_miles);
    }

    pub(crate) fn airports(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.0.iter().map(|(origin, tally)| (origin.as_str(), tally))
    }

    pub(crate) fn overall(&self) -> Tally {
        let mut overall = Tally::default();
        for tally in self.0.values() {
            overall.add(tally.flights, tally.delay_minutes, tally.distance_miles);
        }
        overall
    }
}
