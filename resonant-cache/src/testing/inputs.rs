//! Whatever the cache reads that somebody else wrote, as bytes nobody chose.
//!
//! Each body takes any bytes, reads them as the cache reads what a store, a server or a user gives it, and panics where something
//! does not hold that must hold of any input. The suite runs them on inputs mutated from `fuzz/corpus`, on stable Rust;
//! `fuzz/` runs the same bodies under `cargo fuzz`. Not part of the crate's API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resonant_common::join::Position;

use crate::backend::{Bump, FenceAt, Key, TagId};
use crate::codec::{Codec, Json, Raw};
use crate::config::CacheConfig;
use crate::envelope;
use crate::journal::{Deed, Journal};

#[cfg(feature = "redis")]
pub use self::redis::{frames, names, replies, urls};

/// A body, by the name of its folder in the corpus.
pub type Body = (&'static str, fn(&[u8]));

/// Every body.
pub const BODIES: &[Body] = &[
    ("envelope", envelope),
    ("journal", journal),
    ("settings", settings),
    #[cfg(feature = "redis")]
    ("frames", frames),
    #[cfg(feature = "redis")]
    ("names", names),
    #[cfg(feature = "redis")]
    ("replies", replies),
    #[cfg(feature = "redis")]
    ("urls", urls),
];

#[cfg(feature = "redis")]
mod redis {
    use crate::backend::redis::inputs;

    /// Answers to commands.
    pub fn replies(data: &[u8]) {
        inputs::replies(data);
    }

    /// What a listener hears.
    pub fn frames(data: &[u8]) {
        inputs::frames(data);
    }

    /// Names of keys and messages.
    pub fn names(data: &[u8]) {
        inputs::names(data);
    }

    /// Node URLs, one on each line.
    pub fn urls(data: &[u8]) {
        inputs::urls(data);
    }
}

/// What any bytes of a store go through on their way to a user: it opens or is a miss, says the same twice, takes no more room
/// than allowed, and decodes or does not.
pub fn envelope(data: &[u8]) {
    const LIMIT: usize = 4096;
    let bytes = Bytes::copy_from_slice(data);
    let version = envelope::version(&bytes);
    let Some((head, payload)) = envelope::open(&bytes) else { return };
    assert_eq!(version, Some(head.version), "a store sees another version than the cache");
    assert!(head.tags.len() <= envelope::MAX_TAGS);
    let again = head.seal(None, |out| {
        out.extend_from_slice(b"payload");
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(again) = again;
    let opened = envelope::open(&again.bytes).map(|(head, _)| head);
    assert_eq!(opened.as_ref(), Some(&head), "written again it says something else");
    for clock in [0, 1, 1 << 40, u64::MAX] {
        assert!(head.age(clock) < 1 << 40);
    }
    let Some(payload) = payload.inflate(LIMIT) else { return };
    assert!(payload.len() <= LIMIT.max(data.len()), "{} bytes came out", payload.len());
    let _ = Codec::<serde_json::Value>::decode(&Json, &payload);
    let _ = Codec::<Bytes>::decode(&Raw, &payload);
    #[cfg(feature = "postcard")]
    let _ = Codec::<(u64, String, Vec<Option<i32>>)>::decode(&crate::Postcard, &payload);
}

/// Settings from a file. What is accepted is accepted again when it is written down.
pub fn settings(data: &[u8]) {
    let Ok(config) = serde_json::from_slice::<CacheConfig>(data) else { return };
    let accepted = config.validate().is_ok();
    let _ = format!("{config:?}");
    let Ok(written) = serde_json::to_vec(&config) else { panic!("settings can be written down") };
    match serde_json::from_slice::<CacheConfig>(&written) {
        Ok(again) => assert_eq!(again.validate().is_ok(), accepted),
        Err(error) => panic!("settings that were written down do not read: {error}"),
    }
}

/// A removal that the store must hear of.
#[derive(Debug, Clone, Copy)]
struct Owed {
    /// When it was asked for last.
    since: usize,
    fenced: bool,
}

/// What the journal must make up for, told by a table that forgets nothing.
#[derive(Debug, Default)]
struct Debts {
    removals: BTreeMap<Key, Owed>,
    /// Of each namespace whose tags were invalidated, when last.
    tags: BTreeMap<Arc<str>, usize>,
}

const PLAIN: &str = "plain";

impl Debts {
    /// The store has heard a deed that was taken from the journal at `taken`.
    fn heard(&mut self, deed: &Deed, taken: usize) {
        match deed {
            Deed::Remove(key, fence) => {
                let over = self
                    .removals
                    .get(key)
                    .is_some_and(|owed| owed.since <= taken && (fence.is_some() || !owed.fenced));
                if over {
                    self.removals.remove(key);
                }
            }
            Deed::Bump(namespace, what) => {
                if *what == Bump::All {
                    self.removals.retain(|key, owed| {
                        key.namespace() != namespace
                            || owed.since > taken
                            || owed.fenced
                            || &**namespace == PLAIN
                    });
                }
                self.tags.retain(|of, since| of != namespace || *since > taken);
            }
        }
    }
}

/// What a journal is told, in any order, while the store hears of it now and then: within its room, nothing that was not
/// heard is forgotten, unless it says so.
pub fn journal(data: &[u8]) {
    let Some((most, steps)) = data.split_first() else { return };
    let most = usize::from(*most % 24);
    let journal = Journal::new(most);
    let mut debts = Debts::default();
    let mut taken: Option<(usize, u64, Deed)> = None;
    let mut lossy = false;
    for (now, step) in steps.iter().enumerate() {
        let namespace: Arc<str> = ["users", "orders", PLAIN][usize::from(step >> 6) % 3].into();
        let plain = &*namespace == PLAIN;
        let key = Key::new(Arc::clone(&namespace), (step >> 3 & 7).to_string());
        match step & 7 {
            kind @ 0..=2 => {
                let position = Position { system: 1, timeline: 1, offset: now as u64 };
                let fence =
                    (kind == 2).then_some(FenceAt { position, ttl: Duration::from_secs(1) });
                journal.remove(key.clone(), fence, plain);
                let fenced = kind == 2 || debts.removals.get(&key).is_some_and(|owed| owed.fenced);
                debts.removals.insert(key, Owed { since: now, fenced });
            }
            3 => {
                journal.superseded(&key);
                if debts.removals.get(&key).is_some_and(|owed| !owed.fenced) {
                    debts.removals.remove(&key);
                }
            }
            4 if !plain => {
                journal.bump(&namespace, Bump::Tags(vec![TagId(u64::from(*step))]));
                debts.tags.insert(namespace, now);
            }
            5 if !plain => {
                journal.bump(&namespace, Bump::All);
                debts.tags.insert(namespace, now);
            }
            6 => {
                if let Some((number, deed)) = journal.from(0, 1).pop() {
                    taken = Some((now, number, deed));
                }
            }
            _ => {
                if let Some((at, number, deed)) = taken.take() {
                    debts.heard(&deed, at);
                    journal.done(number);
                }
                if journal.rest() {
                    assert!(
                        lossy || most == 0 || (debts.removals.is_empty() && debts.tags.is_empty()),
                        "it rests, and the store has not heard of {debts:?}"
                    );
                    (debts, lossy) = (Debts::default(), false);
                }
            }
        }
        // A clear of each namespace stands for all there is, and cannot be given up.
        let allowed = if most == 0 { 0 } else { most.max(2) };
        assert!(journal.len() <= allowed, "{} entries, {most} are allowed", journal.len());
        lossy |= journal.lost() > 0;
        if most > 0 && !lossy {
            for key in debts.removals.keys() {
                assert!(journal.concerns(key), "{key:?} was forgotten at step {now}: {debts:?}");
            }
            for namespace in debts.tags.keys() {
                assert!(journal.concerns(&Key::new(Arc::clone(namespace), "any")), "{namespace}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// What inputs of all kinds are made of.
    const WORDS: &[&[u8]] = &[
        b"\r\n",
        b"$-1\r\n",
        b"*2\r\n",
        b"*-1\r\n",
        b">2\r\n",
        b"_\r\n",
        b":0\r\n",
        b"$5\r\n",
        b"|1\r\n",
        b"%1\r\n",
        b"-MOVED 1 h:2\r\n",
        b"18446744073709551616",
        b"9223372036854775807",
        b"-1",
        b"0",
        b"%25",
        b"%7D",
        b"%3A",
        b"%",
        b"}",
        b"{",
        b":",
        b",",
        b"@",
        b"/",
        b"[",
        b"]",
        b"://",
        b"\"",
        b"\n",
        b"\xa1",
        b"\xff",
        b"\x80",
        b"\0",
    ];

    /// A few changes of `seed`, some of them by pieces of `other`.
    fn mutate(dice: &mut StdRng, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..dice.random_range(1..6) {
            let at = dice.random_range(0..=bytes.len());
            let to = dice.random_range(at..=bytes.len().min(at + 16));
            match dice.random_range(0..9) {
                0 if at < bytes.len() => bytes[at] = dice.random(),
                1 if at < bytes.len() => bytes[at] ^= 1 << dice.random_range(0..8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, dice.random()),
                4 => drop(bytes.drain(at..to)),
                5 => {
                    let piece = bytes[at..to].to_vec();
                    bytes.splice(at..at, piece);
                }
                6 => {
                    let from = dice.random_range(0..=other.len());
                    let piece = &other[from..other.len().min(from + 32)];
                    bytes.splice(at..to, piece.iter().copied());
                }
                _ => {
                    let word = WORDS[dice.random_range(0..WORDS.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
            }
        }
        bytes
    }

    /// The first of so many inputs on which a body panics.
    fn breaks(body: impl Fn(&[u8]), seeds: &[Vec<u8>], count: usize) -> Option<Vec<u8>> {
        let survives = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| body(bytes))).is_ok();
        if let Some(seed) = seeds.iter().find(|seed| !survives(seed)) {
            return Some(seed.clone());
        }
        let mut dice = StdRng::seed_from_u64(7);
        (0..count).find_map(|n| {
            let other = &seeds[dice.random_range(0..seeds.len())];
            let bytes = mutate(&mut dice, &seeds[n % seeds.len()], other);
            (!survives(&bytes)).then_some(bytes)
        })
    }

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = files.map(|file| file.path()).collect();
        files.sort();
        files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
    }

    /// The long form: `RESONANT_MUTANTS=1000000 cargo test --release -p resonant-cache --all-features --lib mutated`.
    #[test]
    fn mutated_inputs_never_panic() {
        let count = std::env::var("RESONANT_MUTANTS").ok().and_then(|count| count.parse().ok());
        let count = count.unwrap_or(8_000);
        // Absent from a packaged crate.
        if !Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").is_dir() {
            return;
        }
        for (name, body) in BODIES {
            let seeds = corpus(name);
            assert!(seeds.len() >= 4, "{} inputs of {name} to begin with", seeds.len());
            if let Some(bytes) = breaks(body, &seeds, count) {
                panic!(
                    "{name} breaks on \"{}\": put it into fuzz/corpus/{name}",
                    bytes.escape_ascii()
                );
            }
        }
        println!("FIGURE {count} mutated inputs for each of {} bodies", BODIES.len());
    }

    #[test]
    fn what_breaks_is_found() {
        let seeds = corpus("envelope");
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let opens = |bytes: &[u8]| envelope::open(&Bytes::copy_from_slice(bytes)).is_some();
        let found = [
            breaks(|bytes| assert!(bytes.len() > 2), &seeds, 8_000),
            breaks(|bytes| assert!(!bytes.windows(2).any(|two| two == b"\r\n")), &seeds, 8_000),
            breaks(|bytes| assert!(!opens(bytes) || bytes[1] & 3 != 3), &seeds, 8_000),
            breaks(|bytes| assert!(opens(bytes) || bytes.first() != Some(&0xa1)), &seeds, 8_000),
        ]
        .map(|found| found.is_some());
        std::panic::set_hook(quiet);
        assert_eq!(found, [true; 4]);
    }
}
