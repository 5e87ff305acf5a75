//! What servers send, and what users write as node URLs, as bytes nobody chose: read as the store reads them, with what must
//! hold of any. See [`testing::inputs`](crate::testing::inputs).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use redis_protocol::resp3::types::BytesFrame;
use tokio::time::Instant;

use super::clock::Clock;
use super::cluster::Map;
use super::driver::{Fault, Reply};
use super::hub::Hub;
use super::target::{Address, Targets};
use super::wire::Scan;
use super::{ear, epochs_of, is_mark, resp, slots};
use crate::backend::{Event, Key, Listener};
use crate::{DistributedCache, ErrorKind};

/// What must not be repeated, in the inputs that have it.
const SECRET: &str = "secret";

fn asked() -> Address {
    Address { host: "asked".into(), port: 1 }
}

/// Answers to commands. They are the same however they are cut; and whatever they say of slots, epochs and redirections is
/// understood or left.
pub(crate) fn replies(data: &[u8]) {
    let Some((cut, wire)) = data.split_first() else { return };
    let whole = answers(wire, wire.len());
    let pieces = answers(wire, usize::from(*cut % 32) + 1);
    assert_eq!(whole, pieces, "answers that were cut are other answers");
    for answer in whole.0 {
        match answer {
            Ok(reply) => understood(&reply),
            Err(text) => {
                let _ = slots::redirection(&text, &asked());
                let fault = Fault::Refused(text);
                let _ = fault.code().len();
                let error = fault.into_error("write", true);
                assert!(!error.may_have_applied(), "what was refused was not done");
            }
        }
    }
}

fn understood(reply: &Reply) {
    if let Some(ranges) = slots::parse(reply, &asked()) {
        let map = Map::new(ranges);
        for slot in [0, 1, 8_191, slots::SLOTS - 1] {
            let range = map.range(slot);
            assert!(range.is_none_or(|range| (range.first..=range.last).contains(&slot)));
        }
        assert!(map.primaries().len() >= usize::from(!map.replicas().is_empty()));
    }
    let _ = epochs_of(reply);
    if let Reply::Bytes(bytes) = reply {
        let _ = is_mark(bytes);
    }
}

/// The answers in `wire`, which comes in pieces; and whether it ended in something that is none.
fn answers(wire: &[u8], step: usize) -> (Vec<Result<Reply, String>>, bool) {
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for piece in wire.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match resp::next(&mut buffer) {
                Ok(Some(Err(Fault::Refused(text)))) => found.push(Err(text)),
                Ok(Some(Err(fault))) => found.push(Err(fault.to_string())),
                Ok(Some(Ok(reply))) => found.push(Ok(reply)),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    // What is only said to come takes no room.
    assert!(buffer.capacity() <= wire.len() * 4 + (2 << 20), "{} bytes", buffer.capacity());
    (found, false)
}

/// What a listener hears. Frames are the same however they are cut; and whatever they announce, refuse or say of the time is
/// understood or left.
pub(crate) fn frames(data: &[u8]) {
    let Some((cut, wire)) = data.split_first() else { return };
    let (whole, broken) = scanned(wire, wire.len());
    let (pieces, too) = scanned(wire, usize::from(*cut % 32) + 1);
    // By their lengths: maps show themselves in any order.
    let lengths = |frames: &[(usize, BytesFrame)]| {
        frames.iter().map(|(length, _)| *length).collect::<Vec<_>>()
    };
    assert_eq!((lengths(&whole), broken), (lengths(&pieces), too), "frames that were cut");
    let (hub, _ear) = hub();
    let clock = Clock::new();
    for (_, frame) in &whole {
        if let BytesFrame::Push { data, .. } = frame {
            ear::announced(&hub, data);
        }
        let _ = ear::refusal(frame, "HELLO");
        if let Some(time) = ear::time(frame) {
            let now = Instant::now();
            clock.sample(&asked(), time, now, now);
            clock.sample(&Address { port: 2, ..asked() }, Duration::ZERO, now, now);
            let _ = clock.now();
        }
    }
}

/// The frames in `wire`, which comes in pieces, with their lengths; and whether it ended in something that is none.
fn scanned(wire: &[u8], step: usize) -> (Vec<(usize, BytesFrame)>, bool) {
    let (mut scan, mut buffer, mut found) = (Scan::default(), BytesMut::new(), Vec::new());
    for piece in wire.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match scan.next(&mut buffer) {
                Ok(Some(frame)) => found.push((before - buffer.len(), frame)),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

#[derive(Debug, Default)]
struct Ear(Mutex<Vec<Event>>);

impl Listener for Ear {
    fn apply(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

fn hub() -> (Hub, Arc<Ear>) {
    let (hub, ear) = (Hub::new("p", true), Arc::new(Ear::default()));
    let weak = Arc::downgrade(&ear);
    hub.attach(weak);
    (hub, ear)
}

/// Names of changed keys, and messages, which are names too. What is announced of a key is announced of that key; and no name
/// chooses its slot.
pub(crate) fn names(data: &[u8]) {
    let (hub, ear) = hub();
    for beginning in ["", "p:{", "p:b{"] {
        hub.changed(&[beginning.as_bytes(), data].concat());
    }
    for event in std::mem::take(&mut *ear.0.lock().unwrap_or_else(PoisonError::into_inner)) {
        assert_ne!(event, Event::Lost, "a name is no loss");
        match event {
            Event::Changed(key) => assert_eq!(Key::decode("p", &key.encode("p")), Some(key)),
            Event::TagsInvalidated { tags, .. } => assert!(!tags.is_empty()),
            Event::Cleared { .. } | Event::Lost => {}
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (namespace, key) = text.split_once('\n').unwrap_or((text, text));
    let key = Key::new(namespace, key);
    let stored = key.encode("p");
    let tag = stored.strip_prefix("p:{").and_then(|rest| rest.split_once('}'));
    assert!(tag.is_some_and(|(_, rest)| rest.is_empty()), "{stored:?} ends where its tag ends");
    hub.changed(stored.as_bytes());
    let heard = std::mem::take(&mut *ear.0.lock().unwrap_or_else(PoisonError::into_inner));
    assert_eq!(heard, [Event::Changed(key)]);
}

/// Node URLs, one on each line. Those that are taken name a server; those that are refused are not repeated, and what they say
/// of a login is never shown.
pub(crate) fn urls(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let nodes: Vec<String> = text.split('\n').map(str::to_owned).collect();
    for cluster in [true, false] {
        match Targets::parse(&nodes, cluster) {
            Ok(targets) => taken(&nodes, &targets),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(!format!("{error:?} {error}").contains(SECRET), "{text:?} is repeated");
                let built = DistributedCache::builder().nodes(nodes.clone()).cluster_mode(cluster);
                if let Err(error) = built.build() {
                    assert!(!format!("{error:?} {error}").contains(SECRET), "{text:?} is repeated");
                }
            }
        }
    }
}

fn taken(nodes: &[String], targets: &Targets) {
    assert_eq!(targets.seeds.len(), nodes.len());
    assert!(targets.seeds.iter().all(|(at, _)| !at.host.is_empty() && at.port > 0));
    let in_a_host = targets.seeds.iter().any(|(at, _)| at.host.contains(SECRET));
    assert!(in_a_host || !format!("{targets:?}").contains(SECRET), "a login is shown");
}
