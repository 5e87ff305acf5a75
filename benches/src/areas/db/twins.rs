//! Two that take turns within one storm.
//!
//! What a single task reads depends on whether it shares a core with the server's process, and that changes every few
//! seconds. Contenders that run one after the other are then compared at different times; these two are not.

use std::cell::Cell;
use std::time::Duration;

use resonant_db::params;
use tokio::runtime::Runtime;

use super::peers::{KEYS, Readers};
use crate::harness::{Dice, now};

/// How many reads are in a piece, and for how long the pieces of each go on.
const PIECE: u64 = 16;
const SLICE: Duration = Duration::from_millis(60);

/// What `Database` and the driver alone reach within the same storm. Whoever is asked first lets it blow, and the other
/// one's share is kept for him.
pub(super) struct Twins<'a> {
    readers: &'a Readers,
    runtime: &'a Runtime,
    kept: [Cell<Option<f64>>; 2],
}

impl<'a> Twins<'a> {
    pub(super) fn new(readers: &'a Readers, runtime: &'a Runtime) -> Self {
        Self { readers, runtime, kept: Default::default() }
    }

    pub(super) fn ours(&self) -> f64 {
        self.of(0)
    }

    pub(super) fn raw(&self) -> f64 {
        self.of(1)
    }

    fn of(&self, twin: usize) -> f64 {
        if let Some(kept) = self.kept[twin].take() {
            return kept;
        }
        let rates = self.blow();
        self.kept[1 - twin].set(Some(rates[1 - twin]));
        rates[twin]
    }

    /// Reads for a while, by turns; how many each reads in a second of his own.
    fn blow(&self) -> [f64; 2] {
        let (sql, db, raw) =
            (self.readers.sql, self.readers.ours.clone(), self.readers.raw[0].clone());
        let reading = self.runtime.spawn(async move {
            let (mut dice, mut done, mut took) = (Dice::new(0), [0_u64; 2], [Duration::ZERO; 2]);
            while took.iter().sum::<Duration>() < SLICE * 2 {
                let began = now();
                for _ in 0..PIECE {
                    let key = dice.below(KEYS) as i64;
                    let row = db.read().query_one(sql, params![key]).await;
                    let found = row.ok().and_then(|row| row.get::<i64>(0).ok());
                    done[0] += u64::from(found == Some(key));
                }
                let between = now();
                for _ in 0..PIECE {
                    let key = dice.below(KEYS) as i64;
                    let row = raw.0.query_one(&raw.1, &[&key]).await;
                    let found: Option<i64> = row.ok().and_then(|row| row.try_get(0).ok());
                    done[1] += u64::from(found == Some(key));
                }
                took[0] += between - began;
                took[1] += between.elapsed();
            }
            [0, 1].map(|twin| done[twin] as f64 / took[twin].as_secs_f64())
        });
        self.runtime.block_on(reading).unwrap_or_default()
    }
}
