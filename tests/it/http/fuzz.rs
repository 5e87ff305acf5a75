//! The body that cargo-fuzz runs, over its corpus and mutants of it, on stable Rust.

#[path = "../../../fuzz/bodies/http.rs"]
mod body;

use std::collections::BTreeMap;
use std::fs;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};

use self::body::{Asked, Told, faults, requests, run};
use crate::telemetry::repository;

/// The inputs by name, in an order that is always the same.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = repository().join("fuzz/corpus/http");
    let mut inputs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// The words of the dictionary, which libFuzzer reads too.
fn dictionary() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(repository().join("fuzz/dictionaries/http.dict")).unwrap();
    let quoted = text.lines().map(|line| {
        line.strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or_else(|| panic!("{line}"))
    });
    quoted
        .map(|word| {
            word.replace("\\x0a", "\n").replace("\\\"", "\"").replace("\\\\", "\\").into_bytes()
        })
        .collect()
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % sides as u64).unwrap()
    }
}

/// Changes some of an input: bytes, words of the dictionary, pieces of other inputs.
fn mutate(dice: &mut Dice, corpus: &[(String, Vec<u8>)], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[dice.roll(corpus.len())].1.clone();
    for _ in 0..=dice.roll(5) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, u8::try_from(dice.roll(256)).unwrap()),
            2 | 3 => drop(bytes.splice(at..at, words[dice.roll(words.len())].iter().copied())),
            4 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            5 => {
                let end = (at + dice.roll(20)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            6 => {
                let other = &corpus[dice.roll(corpus.len())].1;
                let from = dice.roll(other.len());
                drop(bytes.splice(at.., other[from..].iter().copied()));
            }
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes.truncate(30_000);
    bytes
}

#[test]
fn every_input_of_the_corpus_is_answered_as_it_must_be() {
    let mut seen = BTreeMap::<u16, usize>::new();
    for (name, input) in corpus() {
        let asked = requests(&input).len();
        let statuses = run(&input);
        assert!(asked > 0 && statuses.len() == asked, "{name} holds {asked} requests");
        statuses.iter().for_each(|status| *seen.entry(*status).or_default() += 1);
    }
    // What the corpus leads to is what mutants begin from.
    let statuses: Vec<_> = seen.keys().copied().collect();
    for status in [200, 202, 400, 401, 404, 405, 412, 413, 415, 422, 423, 429, 503] {
        assert!(seen.contains_key(&status), "nothing leads to {status}: {statuses:?}");
    }
}

/// Whatever comes: an answer of the API's own, never a panic, and every refusal readable.
///
/// The long form: `RESONANT_MUTANTS=1000000 cargo test -p resonant-tests --test it -- http::fuzz --nocapture`.
#[test]
fn garbage() {
    let count = std::env::var("RESONANT_MUTANTS").ok().and_then(|count| count.parse().ok());
    let (corpus, words) = (corpus(), dictionary());
    let mut dice = Dice(0x5eed_cafe_f00d_d00d);
    let mut seen = BTreeMap::<u16, usize>::new();
    for _ in 0..count.unwrap_or(2000_usize) {
        let input = mutate(&mut dice, &corpus, &words);
        run(&input).iter().for_each(|status| *seen.entry(*status).or_default() += 1);
    }
    println!("FIGURE http.garbage.answers {seen:?}");
    assert!(seen.len() >= 10, "{seen:?}");
}

/// An answer that is wrong in one way is found in that way.
#[test]
fn what_is_wrong_with_an_answer_is_found() {
    let asked = |method: Method, path: &str, token: bool| {
        let mut headers = HeaderMap::new();
        if token {
            let value = format!("bearer  {} ", body::TOKEN);
            headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
        }
        Asked { method, uri: path.parse().unwrap(), headers, body: Vec::new() }
    };
    let told = |status: u16, kind: &'static str, text: &str, sets: &[u32]| {
        let headers = [("content-type".parse().unwrap(), HeaderValue::from_static(kind))];
        Told {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.into_iter().collect(),
            body: text.into(),
            sets: sets.to_vec(),
            paused: (false, false),
        }
    };
    let scale = "/api/v1/scaling/scale";
    let (json, problem) = ("application/json", "application/problem+json");
    let words = |status: u16| {
        format!(r#"{{"status":{status},"title":"Not so","detail":"it must not be"}}"#)
    };
    let ada = asked(Method::POST, scale, true);
    let stranger = asked(Method::POST, scale, false);
    assert_eq!(faults(&ada, &told(202, json, "{}", &[5])), [""; 0]);
    assert_eq!(faults(&stranger, &told(401, problem, &words(401), &[])), [""; 0]);
    for (asked, told, fault) in [
        (&ada, told(500, problem, &words(500), &[]), "a fault of the service's own"),
        (&ada, told(422, "text/plain", "no", &[]), "a refusal is no problem+json"),
        (&ada, told(422, problem, "{}", &[]), "a refusal says nothing"),
        (&ada, told(422, problem, &words(400), &[]), "a refusal does not tell its status"),
        (&ada, told(405, problem, &words(405), &[]), "a method is refused and none is named"),
        (&ada, told(202, json, "{}", &[]), "the answer does not say what was done"),
        (&ada, told(200, json, "{}", &[5]), "the answer does not say what was done"),
        (&ada, told(202, json, "{}", &[21]), "a change beyond the bounds"),
        (&ada, told(202, json, "{}", &[5, 6]), "two changes of one request"),
        (&ada, told(200, json, body::TOKEN, &[]), "the token is told"),
        (&stranger, told(200, json, "{}", &[]), "a stranger is let in"),
        (&stranger, told(401, problem, "zebra", &[]), "a stranger reads a name"),
        (&stranger, told(401, problem, &words(401), &[5]), "a stranger changes something"),
    ] {
        let found = faults(asked, &told);
        assert!(found.iter().any(|it| it == fault), "{fault}: {found:?}");
    }
    let head = asked(Method::HEAD, "/", false);
    assert_eq!(faults(&head, &told(200, "text/html", "x", &[])), ["an answer to HEAD has a body"]);
    let paused = Told { paused: (false, true), ..told(200, json, "{}", &[]) };
    assert_eq!(faults(&ada, &paused), ["it was paused or resumed by something else"]);
    let pause = asked(Method::POST, "/api/v1/scaling/pause", true);
    assert_eq!(faults(&pause, &paused), [""; 0]);
}

#[test]
fn an_input_is_read_as_requests_are_written() {
    let asked =
        requests(b"POST /x?y\na: b\na: c\nbroken\n\nthe body\nof it\n---\nGET /z\n---\nnonsense");
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].method.as_str(), asked[0].uri.to_string().as_str()), ("POST", "/x?y"));
    assert_eq!(asked[0].headers.get_all("a").iter().count(), 2);
    assert_eq!((&asked[0].body[..], asked[1].uri.path()), (&b"the body\nof it"[..], "/z"));
    assert!(requests(&b"GET /\n---\n".repeat(100)).len() < 10);
}
