//! What the key hash costs.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::time::Duration;

use resonant_common::hash::key_hash;

use super::Area;
use crate::Outcome;
use crate::harness::{Case, now};
use crate::report::Report;

pub(crate) const AREA: Area = Area {
    name: "hash",
    about: "The hash that decides partitions and buckets (XXH64, the same for ever and in every language) beside the hash of the \
            standard library's maps (SipHash 1-3, which promises neither).",
    peers: &[],
    run,
};

const LENGTHS: [(usize, &str, &str); 3] = [
    (9, "hash.9", "a key of 9 bytes"),
    (36, "hash.36", "a key of 36 bytes"),
    (1024, "hash.1024", "a key of 1,024 bytes"),
];
const SLICE: Duration = Duration::from_millis(50);

fn run(report: &mut Report) -> Outcome {
    for (length, name, about) in LENGTHS {
        let key = vec![b'x'; length];
        let std_hash = BuildHasherDefault::<DefaultHasher>::default();
        Case::new(name, about, "keys")
            .goal(1.0)
            .run("key_hash", || Ok(rate(|| key_hash(black_box(&key)))))
            .run("std DefaultHasher", || Ok(rate(|| std_hash.hash_one(black_box(&*key)))))
            .measure(report)?;
    }
    Ok(())
}

fn rate(hash: impl Fn() -> u64) -> f64 {
    let (mut done, started) = (0_u64, now());
    while started.elapsed() < SLICE {
        for _ in 0..10_000 {
            black_box(hash());
        }
        done += 10_000;
    }
    done as f64 / started.elapsed().as_secs_f64()
}
