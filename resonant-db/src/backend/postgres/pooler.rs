//! What a pooler between here and the server needs: no statement with a name ever leaves.
//!
//! A pooler in transaction mode (PgBouncer) gives each transaction another session of the server, and knows nothing of
//! what was prepared in the one before. The driver prepares by name, also for questions of its own. So the names stay
//! here: a statement is sent without one, and right before each use it is sent again. The answers to what was sent
//! additionally are taken out, and the driver notices nothing. It costs no round trip.

use std::collections::{HashMap, VecDeque};

/// What is still to come from the server, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// A ParseComplete the driver waits for.
    Parsed,
    /// One it knows nothing of.
    Extra,
    /// A ReadyForQuery.
    Ready,
}

#[derive(Debug, Default)]
pub(super) struct Translator {
    /// What was sent as a statement of this name: its text and the types of its parameters.
    known: HashMap<Vec<u8>, Vec<u8>>,
    due: VecDeque<Due>,
    asked: Vec<u8>,
    answered: Passage,
}

/// Answers on their way through.
#[derive(Debug, Default)]
struct Passage {
    header: Vec<u8>,
    left: usize,
    kept_back: bool,
}

impl Translator {
    /// Takes what the driver sends and adds to `out` what is to be sent.
    pub(super) fn ask(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.asked.extend_from_slice(bytes);
        let mut asked = std::mem::take(&mut self.asked);
        let mut start = 0;
        while let Some(length) = message_length(&asked[start..]) {
            if asked.len() - start < length {
                break;
            }
            self.translate(&asked[start..start + length], out);
            start += length;
        }
        asked.drain(..start);
        self.asked = asked;
    }

    fn translate(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let (kind, body) = (message[0], &message[5..]);
        match kind {
            b'P' => {
                let (name, rest) = text(body);
                if !name.is_empty() {
                    self.known.insert(name.to_vec(), rest.to_vec());
                }
                self.due.push_back(Due::Parsed);
                put(out, b'P', &[b"\0", rest]);
            }
            b'B' => {
                let (portal, rest) = text(body);
                let (name, rest) = text(rest);
                if let Some(known) = self.known.get(name) {
                    self.due.push_back(Due::Extra);
                    put(out, b'P', &[b"\0", known]);
                }
                put(out, b'B', &[portal, b"\0\0", rest]);
            }
            b'D' | b'C' if body.first() == Some(&b'S') => {
                let (name, _) = text(&body[1..]);
                if kind == b'C' {
                    self.known.remove(name);
                }
                put(out, kind, &[b"S\0"]);
            }
            _ => {
                if matches!(kind, b'Q' | b'S') {
                    self.due.push_back(Due::Ready);
                }
                out.extend_from_slice(message);
            }
        }
    }

    /// Takes what the server sends and adds to `out` what the driver is to see.
    pub(super) fn answer(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.answered.left == 0 {
                let part = (5 - self.answered.header.len()).min(bytes.len());
                self.answered.header.extend_from_slice(&bytes[..part]);
                bytes = &bytes[part..];
                let Some(length) = message_length(&self.answered.header) else { return };
                let header = std::mem::take(&mut self.answered.header);
                self.answered.left = length.saturating_sub(5);
                self.answered.kept_back = self.comes(header[0]);
                if !self.answered.kept_back {
                    out.extend_from_slice(&header);
                }
            }
            let part = self.answered.left.min(bytes.len());
            if !self.answered.kept_back {
                out.extend_from_slice(&bytes[..part]);
            }
            bytes = &bytes[part..];
            self.answered.left -= part;
        }
    }

    /// Notes what comes; true when it is not for the driver.
    fn comes(&mut self, kind: u8) -> bool {
        match kind {
            b'1' => return self.due.pop_front() == Some(Due::Extra),
            // After an error the server leaves out the rest up to here.
            b'Z' => while self.due.pop_front().is_some_and(|due| due != Due::Ready) {},
            // The server overlooks the Sync that was sent before the data.
            b'G' => {
                if let Some(place) = self.due.iter().position(|due| *due == Due::Ready) {
                    self.due.remove(place);
                }
            }
            _ => {}
        }
        false
    }
}

/// The length of a message that begins here, with its kind; `None` while that is not known.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    Some((u32::from_be_bytes(length) as usize).max(4) + 1)
}

/// The text up to the next NUL, and what is behind it.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend_from_slice(&(length as u32 + 4).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, kind, &[body]);
        out
    }

    fn ask(translator: &mut Translator, messages: &[Vec<u8>], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in messages.concat().chunks(cut) {
            translator.ask(piece, &mut out);
        }
        out
    }

    fn answer(translator: &mut Translator, messages: &[Vec<u8>], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in messages.concat().chunks(cut) {
            translator.answer(piece, &mut out);
        }
        out
    }

    #[test]
    fn a_named_statement_travels_without_its_name_and_with_every_use() {
        for cut in 1..40 {
            let mut translator = Translator::default();
            let prepare = [
                message(b'P', b"s7\0SELECT $1\0\0\0"),
                message(b'D', b"Ss7\0"),
                message(b'S', b""),
            ];
            let sent = ask(&mut translator, &prepare, cut);
            let expected =
                [message(b'P', b"\0SELECT $1\0\0\0"), message(b'D', b"S\0"), message(b'S', b"")];
            assert_eq!(sent, expected.concat());
            let come =
                [message(b'1', b""), message(b't', b"\0\x01\0\0\0\x17"), message(b'Z', b"I")];
            assert_eq!(answer(&mut translator, &come, cut), come.concat());

            let run = [
                message(b'B', b"\0s7\0\0\0\0\0"),
                message(b'E', b"\0\0\0\0\0"),
                message(b'S', b""),
            ];
            let sent = ask(&mut translator, &run, cut);
            let expected = [
                message(b'P', b"\0SELECT $1\0\0\0"),
                message(b'B', b"\0\0\0\0\0\0"),
                message(b'E', b"\0\0\0\0\0"),
                message(b'S', b""),
            ];
            assert_eq!(sent, expected.concat());
            let come = [
                message(b'1', b""),
                message(b'2', b""),
                message(b'D', b"1111"),
                message(b'Z', b"I"),
            ];
            assert_eq!(answer(&mut translator, &come, cut), come[1..].concat());

            ask(&mut translator, &[message(b'C', b"Ss7\0"), message(b'S', b"")], cut);
            assert!(translator.known.is_empty());
        }
    }

    #[test]
    fn after_an_error_the_next_answers_are_told_apart_again() {
        let mut translator = Translator::default();
        ask(&mut translator, &[message(b'P', b"s1\0SELECT\0\0\0"), message(b'S', b"")], 100);
        answer(&mut translator, &[message(b'1', b""), message(b'Z', b"I")], 100);
        let run = [message(b'B', b"\0s1\0"), message(b'S', b"")];
        // Two uses under way at once; the first one fails where the statement is sent again.
        ask(&mut translator, &[run.concat(), run.concat()], 100);
        let come = [message(b'E', b"42P01"), message(b'Z', b"I")];
        assert_eq!(answer(&mut translator, &come, 100), come.concat());
        let come = [message(b'1', b""), message(b'2', b""), message(b'Z', b"I")];
        assert_eq!(answer(&mut translator, &come, 100), come[1..].concat());
        assert!(translator.due.is_empty());
    }

    #[test]
    fn the_sync_before_the_data_of_a_copy_is_not_waited_for() {
        let mut translator = Translator::default();
        let copy = [message(b'P', b"s1\0COPY\0\0\0"), message(b'B', b"\0s1\0"), message(b'S', b"")];
        ask(&mut translator, &copy, 100);
        ask(&mut translator, &[message(b'd', b"1"), message(b'c', b""), message(b'S', b"")], 100);
        let come =
            [message(b'1', b""), message(b'1', b""), message(b'G', b"..."), message(b'Z', b"I")];
        answer(&mut translator, &come, 100);
        assert!(translator.due.is_empty());
    }
}
