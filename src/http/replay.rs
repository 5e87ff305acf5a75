//! Which keys were used, and what was answered. Pure: the time is an argument.
//!
//! A key is remembered while its request is under way and, if it was done, for a day. When there is no more room the oldest
//! answers go; a request under way is never forgotten, so that no change is made twice because of a full store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::builder::lock;
use super::problem::Problem;

/// How long an answer is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What was answered: a plan, or a problem after which the change may have been made.
pub(super) type Kept = Result<(StatusCode, String), Problem>;

#[derive(Debug)]
pub(super) struct Replays {
    most: usize,
    entries: HashMap<[u8; 32], Entry>,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    request: [u8; 32],
    answer: Option<Kept>,
}

/// What a key means for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Do it, and say what came of it.
    New,
    /// It was done; this was answered.
    Answered(Kept),
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
                Some(answer) => Seen::Answered(answer.clone()),
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
    fn end(&mut self, key: [u8; 32], answer: Option<Kept>) {
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

/// A request under way. If it ends without a word, by a panic or with its task, its answer is lost; its key is not.
#[derive(Debug)]
pub(super) struct UnderWay {
    replays: Arc<Mutex<Replays>>,
    key: [u8; 32],
    answer: Option<Kept>,
}

impl UnderWay {
    pub(super) fn new(replays: &Arc<Mutex<Replays>>, key: [u8; 32]) -> Self {
        Self { replays: Arc::clone(replays), key, answer: Some(Err(Problem::lost())) }
    }

    /// What came of it. What was refused may be asked again; what may have been done must not be done again under this key.
    pub(super) fn end(mut self, answer: &Kept) {
        let done = answer.as_ref().map_or_else(|problem| problem.may_have_applied, |_| true);
        self.answer = done.then(|| answer.clone());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.replays).end(self.key, self.answer.take());
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
        let done = Ok((StatusCode::ACCEPTED, "done".to_owned()));
        assert_eq!(replays.begin([1; 32], [7; 32], now), Seen::New);
        assert_eq!(replays.begin([1; 32], [7; 32], now), Seen::UnderWay);
        assert_eq!(replays.begin([1; 32], [8; 32], now), Seen::Other);
        replays.end([1; 32], Some(done.clone()));
        assert_eq!(replays.begin([1; 32], [7; 32], now), Seen::Answered(done));
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
    fn a_request_that_panics_leaves_its_key_with_a_lost_answer() {
        let now = Instant::now();
        let replays = Arc::new(Mutex::new(Replays::new(10)));
        let begin = |key: u8| lock(&replays).begin([key; 32], [7; 32], now);
        for key in 1..=4 {
            assert_eq!(begin(key), Seen::New);
        }
        let panics = || {
            let _under_way = UnderWay::new(&replays, [1; 32]);
            panic!("told to panic");
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).map(drop).unwrap_err();
        assert_eq!(begin(1), Seen::Answered(Err(Problem::lost())));
        let refused = Problem::invalid("refused");
        UnderWay::new(&replays, [2; 32]).end(&Err(refused.clone()));
        assert_eq!(begin(2), Seen::New);
        let mut unsure = refused;
        unsure.may_have_applied = true;
        UnderWay::new(&replays, [3; 32]).end(&Err(unsure.clone()));
        assert_eq!(begin(3), Seen::Answered(Err(unsure)));
        let done = Ok((StatusCode::ACCEPTED, "done".to_owned()));
        UnderWay::new(&replays, [4; 32]).end(&done);
        assert_eq!(begin(4), Seen::Answered(done));
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
        replays.end(key(1), Some(Ok((StatusCode::OK, String::new()))));
        replays.end(key(2), Some(Ok((StatusCode::OK, String::new()))));
        assert_eq!(replays.begin(key(9), key(0), now), Seen::New);
        assert_eq!(replays.begin(key(0), key(0), now), Seen::UnderWay);
        assert!(matches!(replays.begin(key(2), key(0), now), Seen::Answered(..)));
        for number in 10..255 {
            replays.begin(key(number), key(0), now);
            assert!(replays.entries.len() <= 3);
        }
    }
}
