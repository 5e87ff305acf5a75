//! The table of flights, in the dialect of each engine.

use resonant_db::{Param, row};

use crate::flight::Flight;

/// Whose dialect it is.
///
/// A flight that is delivered twice is stored once. `arrival` rises with every flight stored, across runs: the proof of
/// order. One process alone writes to SQLite and counts for itself; for PostgreSQL, which several write to, each shard
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Sqlite,
    #[cfg(feature = "cluster")]
    Postgres,
}

const SQLITE: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS flights (
    origin TEXT NOT NULL,
    number BIGINT NOT NULL,
    arrival BIGINT NOT NULL,
    departed_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    distance_miles BIGINT NOT NULL,
    delay_minutes BIGINT NOT NULL,
    PRIMARY KEY (origin, number)
) WITHOUT ROWID",
    "INSERT INTO flights
    (origin, number, departed_at, destination, distance_miles, delay_minutes, arrival)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (origin, number) DO NOTHING",
];

#[cfg(feature = "cluster")]
const POSTGRES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS flights (
    origin TEXT NOT NULL,
    number BIGINT NOT NULL,
    arrival BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY,
    departed_at TEXT NOT NULL,
    destination TEXT NOT NULL,
    distance_miles BIGINT NOT NULL,
    delay_minutes BIGINT NOT NULL,
    PRIMARY KEY (origin, number)
)",
    "INSERT INTO flights
    (origin, number, departed_at, destination, distance_miles, delay_minutes)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (origin, number) DO NOTHING",
];

impl Table {
    /// Makes the table.
    pub(crate) fn create(self) -> &'static str {
        self.sql()[0]
    }

    /// Stores a [`row`](Self::row).
    pub(crate) fn insert(self) -> &'static str {
        self.sql()[1]
    }

    /// What [`insert`](Self::insert) takes.
    pub(crate) fn row(self, flight: &Flight, arrival: u64) -> Row<'_> {
        let values = row![
            &flight.origin,
            flight.number as i64,
            &flight.departed_at,
            &flight.destination,
            flight.distance_miles,
            flight.delay_minutes,
            arrival as i64
        ];
        Row { used: values.len() - usize::from(self != Self::Sqlite), values }
    }

    fn sql(self) -> [&'static str; 2] {
        match self {
            Self::Sqlite => SQLITE,
            #[cfg(feature = "cluster")]
            Self::Postgres => POSTGRES,
        }
    }
}

/// The parameters of one flight.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    values: [Param<'a>; 7],
    used: usize,
}

impl<'a> AsRef<[Param<'a>]> for Row<'a> {
    fn as_ref(&self) -> &[Param<'a>] {
        &self.values[..self.used]
    }
}
