//! The protocol of connections that carry commands: RESP2, which every server speaks and which says all that is asked here.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};

use super::driver::{Fault, Reply};

/// Arrays within arrays; no answer we ask for has more than three.
const MAX_DEPTH: usize = 8;
/// The longest string a server may send: its own limit. No whole answer is longer.
const MAX_LENGTH: usize = 512 << 20;
/// The longest line: a simple string, an error, a number.
const MAX_LINE: usize = 64 << 10;
/// Parts of one array; no answer we ask for has more than a few thousand.
const MAX_PARTS: usize = 1 << 20;
/// Room that is made at once for what a server says it will send; more is made when that has come.
const MAX_ROOM: usize = 1 << 20;

/// A command: its name and its arguments.
#[derive(Clone)]
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) args: Vec<Bytes>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name, self.args.len())
    }
}

impl Command {
    pub(super) fn new(name: &'static str, args: impl IntoIterator<Item = Bytes>) -> Self {
        Self { name, args: args.into_iter().collect() }
    }

    /// Of words known beforehand.
    pub(super) fn of(name: &'static str, words: &[&'static str]) -> Self {
        Self::new(name, words.iter().map(|word| Bytes::from_static(word.as_bytes())))
    }
}

/// Commands as they go over the wire, with nothing of others in between.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Answers to expect.
    pub(super) count: usize,
}

impl Batch {
    pub(super) fn of<'a>(commands: impl IntoIterator<Item = &'a Command>) -> Self {
        let mut batch = Self::default();
        commands.into_iter().for_each(|command| batch.push(command));
        batch
    }

    pub(super) fn push(&mut self, command: &Command) {
        let length: usize = command.args.iter().map(|arg| arg.len() + 16).sum();
        self.bytes.reserve(length + command.name.len() + 32);
        self.header(b'*', command.args.len() + 1);
        self.word(command.name.as_bytes());
        command.args.iter().for_each(|arg| self.word(arg));
        self.count += 1;
    }

    fn word(&mut self, word: &[u8]) {
        self.header(b'$', word.len());
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn header(&mut self, kind: u8, mut number: usize) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            // A digit fits.
            digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&digits[at..]);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// The next answer in `buffer`, taken out of it, or `None` if it is not there in full. What comes out is as long as it says:
/// it holds nothing of the buffer, which is used again.
pub(super) fn next(buffer: &mut BytesMut) -> io::Result<Option<Result<Reply, Fault>>> {
    let mut reader = Reader { bytes: buffer, at: 0 };
    match reader.answer(0) {
        Ok(answer) => {
            let length = reader.at;
            buffer.advance(length);
            Ok(Some(answer))
        }
        Err(Stop::Short(_)) if buffer.len() > MAX_LENGTH + MAX_LINE => {
            let what = "the server's answer is longer than its own limit";
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
        Err(Stop::Short(more)) => {
            buffer.reserve(more.min(MAX_ROOM));
            Ok(None)
        }
        Err(Stop::Broken(what)) => Err(io::Error::new(io::ErrorKind::InvalidData, what)),
    }
}

enum Stop {
    /// So many bytes are missing, at least.
    Short(usize),
    Broken(&'static str),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn answer(&mut self, depth: usize) -> Result<Result<Reply, Fault>, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Broken("the server's answer is nested too deeply"));
        }
        let line = self.line()?;
        let (kind, rest) = line.split_first().ok_or(Stop::Broken("an empty line is no answer"))?;
        Ok(Ok(match kind {
            b'+' => Reply::Bytes(Bytes::copy_from_slice(rest)),
            b'-' => return Ok(Err(Fault::Refused(String::from_utf8_lossy(rest).into_owned()))),
            b':' => Reply::Int(number(rest)?),
            b'$' => match length(rest)? {
                Some(length) => Reply::Bytes(Bytes::copy_from_slice(self.string(length)?)),
                None => Reply::Nil,
            },
            b'*' => match length(rest)? {
                Some(length) if length > MAX_PARTS => {
                    return Err(Stop::Broken("the server's answer has too many parts"));
                }
                Some(length) => {
                    // What a server says it will send takes room when it comes.
                    let mut parts = Vec::with_capacity(length.min(64));
                    for _ in 0..length {
                        parts.push(self.answer(depth + 1)?.unwrap_or(Reply::Nil));
                    }
                    Reply::Array(parts)
                }
                None => Reply::Nil,
            },
            b'_' => Reply::Nil,
            _ => return Err(Stop::Broken("the server's answer is of no known kind")),
        }))
    }

    /// Up to the end of the line, without it.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest: &'a [u8] = &self.bytes[self.at..];
        let end = match rest.iter().take(MAX_LINE).position(|byte| *byte == b'\r') {
            Some(end) => end,
            None if rest.len() < MAX_LINE => return Err(Stop::Short(1)),
            None => return Err(Stop::Broken("a line of the server's answer has no end")),
        };
        match rest.get(end + 1) {
            None => Err(Stop::Short(1)),
            Some(b'\n') => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            Some(_) => Err(Stop::Broken("a line of the server's answer ends in a wrong way")),
        }
    }

    fn string(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let rest: &'a [u8] = &self.bytes[self.at..];
        if rest.len() < length + 2 {
            return Err(Stop::Short(length + 2 - rest.len()));
        }
        if &rest[length..length + 2] != b"\r\n" {
            return Err(Stop::Broken("a string of the server's answer has another length"));
        }
        self.at += length + 2;
        Ok(&rest[..length])
    }
}

fn number(text: &[u8]) -> Result<i64, Stop> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok()).ok_or(Stop::Broken("the server sent no number"))
}

/// `None` for nothing, -1.
fn length(text: &[u8]) -> Result<Option<usize>, Stop> {
    match number(text)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= MAX_LENGTH => Ok(Some(length)),
            _ => Err(Stop::Broken("the server sent a length beyond its own limit")),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_written_as_servers_read_them() {
        let get = Command::new("GET", [Bytes::from_static(b"a-key-of-13ch")]);
        let batch = Batch::of([&get, &Command::new("PING", [])]);
        let expected = b"*2\r\n$3\r\nGET\r\n$13\r\na-key-of-13ch\r\n*1\r\n$4\r\nPING\r\n";
        assert_eq!((&batch.bytes[..], batch.count), (&expected[..], 2));
    }

    fn all(buffer: &mut BytesMut) -> io::Result<Vec<Result<Reply, String>>> {
        let mut found = Vec::new();
        while let Some(answer) = next(buffer)? {
            found.push(answer.map_err(|fault| fault.code().to_owned()));
        }
        Ok(found)
    }

    #[test]
    fn answers_are_found_however_they_are_cut() -> io::Result<()> {
        let wire = b"+OK\r\n:-7\r\n$5\r\na\r\nb\0\r\n$-1\r\n*-1\r\n-MOVED 1 h:2\r\n*2\r\n*1\r\n:1\r\n-ERR x\r\n$0\r\n\r\n";
        let text = |text: &'static [u8]| Ok(Reply::Bytes(Bytes::from_static(text)));
        let expected = [
            text(b"OK"),
            Ok(Reply::Int(-7)),
            text(b"a\r\nb\0"),
            Ok(Reply::Nil),
            Ok(Reply::Nil),
            Err("MOVED".to_owned()),
            Ok(Reply::Array(vec![Reply::Array(vec![Reply::Int(1)]), Reply::Nil])),
            text(b""),
        ];
        for step in [1, 2, 3, 7, wire.len()] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                found.extend(all(&mut buffer)?);
            }
            assert_eq!(found, expected, "in steps of {step}");
            assert!(buffer.is_empty());
        }
        Ok(())
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let deep = "*1\r\n".repeat(100);
        let endless = "+".repeat(MAX_LINE + 1);
        for wire in [
            "*1048577\r\n",
            &endless,
            "?\r\n",
            "\r\n",
            ":x\r\n",
            "$-2\r\n",
            "$999999999999\r\n",
            "$1\r\nabc",
            &deep,
        ] {
            assert!(next(&mut BytesMut::from(wire)).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn room_is_made_for_what_has_come_and_not_for_what_is_said() -> io::Result<()> {
        let mut buffer = BytesMut::from("$500000000\r\nabc");
        assert!(next(&mut buffer)?.is_none());
        assert!(buffer.capacity() < 4 << 20, "{}", buffer.capacity());
        Ok(())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(&b"+-:$*_0129\r\nx"[..]), 0..64)) {
            let _ = all(&mut BytesMut::from(&bytes[..]));
        }
    }
}
