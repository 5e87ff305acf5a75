//! The proof: everything stored is read back and held against the input.

use serde::Serialize;

use crate::failure::Failure;
use crate::flight::{Tally, Totals};
use crate::input::Survey;

/// Reads stored flights in order of origin and number, and notes what is wrong with them.
#[derive(Debug)]
pub(crate) struct Audit {
    totals: Totals,
    seen: Vec<u64>,
    duplicates: u64,
    strangers: u64,
    misplaced: u64,
    order_violations: u64,
    last: Option<(String, u64)>,
}

/// A stored flight, as far as the proof looks at it.
#[derive(Debug, Clone)]
pub(crate) struct Stored<'a> {
    pub(crate) origin: &'a str,
    pub(crate) number: u64,
    /// Rises in the order in which flights were stored.
    pub(crate) arrival: u64,
    pub(crate) tally: Tally,
    /// Whether it lies on the shard its origin belongs to.
    pub(crate) at_home: bool,
}

impl Audit {
    /// An audit of `flights` flights, numbered from zero. Holds one bit for each.
    pub(crate) fn new(flights: u64) -> Self {
        let words = usize::try_from(flights.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            totals: Totals::default(),
            seen: vec![0; words],
            duplicates: 0,
            strangers: 0,
            misplaced: 0,
            order_violations: 0,
            last: None,
        }
    }

    /// Looks at the next stored flight of a shard. Within an origin, numbers rise from call to call.
    pub(crate) fn look_at(&mut self, flight: &Stored<'_>) {
        let tally = flight.tally;
        self.totals.add(flight.origin, tally.flights, tally.delay_minutes, tally.distance_miles);
        let (word, bit) = ((flight.number / 64) as usize, 1 << (flight.number % 64));
        match self.seen.get_mut(word) {
            Some(word) if *word & bit == 0 => *word |= bit,
            Some(_) => self.duplicates += 1,
            None => self.strangers += 1,
        }
        self.misplaced += u64::from(!flight.at_home);
        match &mut self.last {
            Some((origin, arrival)) if origin == flight.origin => {
                self.order_violations += u64::from(flight.arrival <= *arrival);
                *arrival = flight.arrival;
            }
            last => *last = Some((flight.origin.to_owned(), flight.arrival)),
        }
    }

    /// What was found.
    pub(crate) fn finish(self, elapsed_seconds: f64, rejected: u64, expected: u64) -> Summary {
        let found: u64 = self.seen.iter().map(|word| u64::from(word.count_ones())).sum();
        let overall = self.totals.overall();
        Summary {
            flights: overall.flights,
            airports: self.totals.airports(),
            total_delay_minutes: overall.delay_minutes,
            total_distance_miles: overall.distance_miles,
            lost: expected.saturating_sub(found),
            duplicates: self.duplicates,
            order_violations: self.order_violations,
            misplaced: self.misplaced + self.strangers,
            rejected,
            elapsed_seconds,
            by_airport: self.totals,
        }
    }
}

/// The result, computed from what is stored. `--summary` writes it as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) flights: u64,
    pub(crate) airports: usize,
    pub(crate) total_delay_minutes: i64,
    pub(crate) total_distance_miles: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) order_violations: u64,
    pub(crate) misplaced: u64,
    pub(crate) rejected: u64,
    pub(crate) elapsed_seconds: f64,
    pub(crate) by_airport: Totals,
}

impl Summary {
    /// Holds the result against the input.
    ///
    /// # Errors
    ///
    /// [`Failure::Proof`] that lists everything that is not as it should be.
    pub(crate) fn prove(&self, input: &Survey) -> Result<(), Failure> {
        let counts = [
            (self.lost, "flights are missing"),
            (self.duplicates, "flights are stored twice"),
            (self.order_violations, "flights were stored out of their airport's order"),
            (self.misplaced, "rows lie where no flight of the input belongs"),
        ];
        let mut faults: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let wrong = differing(&self.by_airport, &input.totals);
        if !wrong.is_empty() {
            faults.push(format!("sums differ from the input's for {}", wrong.join(", ")));
        }
        if faults.is_empty() { Ok(()) } else { Err(Failure::Proof(faults.join("; "))) }
    }
}

fn differing(stored: &Totals, read: &Totals) -> Vec<String> {
    const MOST: usize = 5;
    let stored: std::collections::BTreeMap<_, _> = stored.iter().collect();
    let read: std::collections::BTreeMap<_, _> = read.iter().collect();
    let airports: std::collections::BTreeSet<_> = stored.keys().chain(read.keys()).collect();
    let differs = airports.into_iter().filter(|airport| stored.get(*airport) != read.get(*airport));
    differs.take(MOST).map(|airport| (*airport).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(origins: &[&str]) -> Survey {
        let mut survey = Survey { flights: origins.len() as u64, ..Survey::default() };
        for origin in origins {
            survey.totals.add(origin, 1, 5, 100);
        }
        survey
    }

    fn stored(origin: &str, number: u64, arrival: u64) -> Stored<'_> {
        let tally = Tally { flights: 1, delay_minutes: 5, distance_miles: 100 };
        Stored { origin, number, arrival, tally, at_home: true }
    }

    fn verdict(input: &Survey, flights: &[Stored<'_>]) -> String {
        let mut audit = Audit::new(input.flights);
        flights.iter().for_each(|flight| audit.look_at(flight));
        audit
            .finish(1.0, 0, input.flights)
            .prove(input)
            .map_or_else(|failure| failure.to_string(), |()| "holds".into())
    }

    #[test]
    fn holds_when_all_is_stored_once_and_in_order() {
        let flights = [stored("ATL", 0, 1), stored("ATL", 2, 3), stored("DFW", 1, 2)];
        assert_eq!(verdict(&survey(&["ATL", "DFW", "ATL"]), &flights), "holds");
    }

    #[test]
    fn every_fault_is_found() {
        let input = survey(&["ATL", "DFW", "ATL"]);
        let (a, b, c) = (stored("ATL", 0, 1), stored("ATL", 2, 3), stored("DFW", 1, 2));
        let cases: [(&[Stored<'_>], &str); 6] = [
            (&[a.clone(), c.clone()], "1 flights are missing"),
            (&[a.clone(), b.clone(), b.clone(), c.clone()], "1 flights are stored twice"),
            (
                &[stored("ATL", 0, 4), b.clone(), c.clone()],
                "1 flights were stored out of their airport's order",
            ),
            (&[a.clone(), b.clone(), Stored { at_home: false, ..c.clone() }], "1 rows lie where"),
            (&[a.clone(), b.clone(), c.clone(), stored("LAX", 64, 9)], "1 rows lie where"),
            (
                &[a, b, Stored { tally: Tally { flights: 1, ..Tally::default() }, ..c }],
                "sums differ from the input's for DFW",
            ),
        ];
        for (flights, fault) in cases {
            let verdict = verdict(&input, flights);
            assert!(verdict.contains(fault), "{fault}: {verdict}");
        }
    }
}
