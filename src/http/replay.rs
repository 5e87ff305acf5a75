//! Which keys were used, and what was answered. Pure: the time is an argument.
//!
//! A key is remembered while its request is under way and, if it was done, for a day. When there is no more room the oldest
//! answers go; a request under way is never forgotten, so that no change is made twice because of a full store.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;

/// How long an answer is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Replays {
    most: usize,
    entries: HashMap<[u8; 32], Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    request: [u8; 32],
    answer: Option<(StatusCode, String)>,
}

/// What a key means for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Do it, and say what came of it.
    New,
    /// It was done; this was answered.
    Answered(StatusCode, String),
    /// It is being done.
    UnderWay,
    /// The key was used for another request.
    Other,
    /// Too many are being done.
    Full,
}

impl Replays {
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new() }
    }

    pub(super) fn begin(&mut self, key: [u8; 32], request: [u8; 32], now: Instant) -> Seen {
        if let Some(entry) = self.entries.get(&key).filter(|entry| entry.lives(now)) {
            return match &entry.answer {
                _ if entry.request != request => Seen::Other,
                Some((status, body)) => Seen::Answered(*status, body.clone()),
                None => Seen::UnderWay,
            };
        }
        if self.entries.len() >= self.most {
            self.entries.retain(|_, entry| entry.lives(now));
        }
        if self.entries.len() >= self.most {
            let answered = self.entries.iter().filter(|(_, entry)| entry.answer.is_some());
            let oldest = answered.min_by_key(|(_, entry)| entry.at).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return Seen::Full };
            self.entries.remove(&oldest);
        }
        self.entries.insert(key, Entry { at: now, request, answer: None });
        Seen::New
    }

    /// What came of it; `None` if it may be tried again under the same key.
    pub(super) fn end(&mut self, key: [u8; 32], answer: Option<(StatusCode, String)>) {
        match answer {
            None => {
                self.entries.remove(&key);
            }
            Some(answer) => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.answer = Some(answer);
                }
            }
        }
    }
}

impl Entry {
    fn lives(&self, now: Instant) -> bool {
        self.answer.is_none() || self.at + KEPT > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_once_for_one_request() {
        let now = Instant::now();
        let mut replays = Replays::new(10);
        let done = (StatusCode::ACCEPTED, "done".to_owned());
        assert_eq!(replays.begin([1; 32], [7; 32], now), Seen::New);
        assert_eq!(replays.begin([1; 32], [7; 32], now), Seen::UnderWay);
        assert_eq!(replays.begin([1; 32], [8; 32], now), Seen::Other);
        replays.end([1; 32], Some(done.clone()));
        assert_eq!(replays.begin([1; 32], [7; 32], now), Seen::Answered(done.0, done.1));
        assert_eq!(replays.begin([1; 32], [8; 32], now), Seen::Other);
        let tomorrow = now + KEPT;
        assert_eq!(replays.begin([1; 32], [8; 32], tomorrow), Seen::New);
        replays.end([1; 32], None);
        assert_eq!(
            replays.begin([1; 32], [7; 32], tomorrow),
            Seen::New,
            "what failed may be tried again"
        );
    }

    #[test]
    fn the_oldest_answers_go_and_what_is_under_way_stays() {
        let now = Instant::now();
        let mut replays = Replays::new(3);
        let key = |number: u8| [number; 32];
        for number in 0..3 {
            let at = now + Duration::from_secs(number.into());
            assert_eq!(replays.begin(key(number), key(0), at), Seen::New);
        }
        assert_eq!(replays.begin(key(9), key(0), now), Seen::Full);
        replays.end(key(1), Some((StatusCode::OK, String::new())));
        replays.end(key(2), Some((StatusCode::OK, String::new())));
        assert_eq!(replays.begin(key(9), key(0), now), Seen::New);
        assert_eq!(replays.begin(key(0), key(0), now), Seen::UnderWay);
        assert!(matches!(replays.begin(key(2), key(0), now), Seen::Answered(..)));
        for number in 10..255 {
            replays.begin(key(number), key(0), now);
            assert!(replays.entries.len() <= 3);
        }
    }
}
