//! A stream that listens in: it reads the few bytes of the protocol that the driver drops.
//!
//! The status of the session travels with every answer, in ReadyForQuery, and so does the tag of every command. The
//! driver keeps neither, yet they tell for free whether a transaction was left open, whether COMMIT really committed and
//! whether somebody changed the session. Asking the server instead costs a round trip each time. The tap looks only at
//! the five-byte headers, and into the three kinds of messages it is after.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::facts::Facts;
use super::pooler::Translator;

/// As much of a message as is kept to be looked at. Command tags and the parameters of interest are shorter.
const KEPT: usize = 64;

#[derive(Debug)]
pub(super) struct Tap<S> {
    stream: S,
    facts: Arc<Facts>,
    answers: Answers,
    requests: Requests,
    /// There from when it is known that a pooler stands in between.
    pooled: Option<Box<Pooled>>,
}

/// Translated bytes on their way.
#[derive(Debug, Default)]
struct Pooled {
    translator: Translator,
    /// For the server.
    asked: Vec<u8>,
    sent: usize,
    /// For the driver.
    answers: Vec<u8>,
    seen: usize,
}

impl<S> Tap<S> {
    /// A tap on a stream that has not carried any message yet.
    pub(super) fn new(stream: S, facts: Arc<Facts>) -> Self {
        Self {
            stream,
            facts,
            answers: Answers::default(),
            requests: Requests::default(),
            pooled: None,
        }
    }
}

impl<S: AsyncRead + Unpin> Tap<S> {
    fn poll_translated(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, facts, answers, pooled, .. } = self;
        let pooled = pooled.get_or_insert_default();
        while pooled.seen == pooled.answers.len() {
            pooled.answers.clear();
            pooled.seen = 0;
            let mut bytes = [0; 8192];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            let new = read.filled();
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            facts.count_received(new.len());
            answers.feed(new, facts);
            pooled.translator.answer(new, &mut pooled.answers);
        }
        let rest = &pooled.answers[pooled.seen..];
        let part = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..part]);
        pooled.seen += part;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Tap<S> {
    /// Sends what was translated.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, facts, requests, pooled, .. } = self;
        let Some(pooled) = pooled else { return Poll::Ready(Ok(())) };
        while pooled.sent < pooled.asked.len() {
            let rest = &pooled.asked[pooled.sent..];
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            facts.count_sent(written);
            requests.feed(&rest[..written], facts);
            pooled.sent += written;
        }
        pooled.asked.clear();
        pooled.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.facts.is_pooled() {
            return this.poll_translated(cx, buffer);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let new = &buffer.filled()[before..];
        this.facts.count_received(new.len());
        this.answers.feed(new, &this.facts);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.facts.is_pooled() {
            ready!(this.poll_sent(cx))?;
            let pooled = this.pooled.get_or_insert_default();
            pooled.translator.ask(bytes, &mut pooled.asked);
            // What does not go now goes with the next flush.
            let _ = this.poll_sent(cx)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.facts.count_sent(written);
        this.requests.feed(&bytes[..written], &this.facts);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// A header as it comes in, in pieces of any size.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; 5],
    len: usize,
}

impl Header {
    /// Takes what belongs to the header from `bytes`; the kind and the length of the body once it is whole. `wanted` is
    /// 5, or 4 for the one message without a kind.
    fn take(&mut self, bytes: &mut &[u8], wanted: usize) -> Option<(u8, usize)> {
        let part = (wanted - self.len).min(bytes.len());
        self.bytes[self.len..self.len + part].copy_from_slice(&bytes[..part]);
        self.len += part;
        *bytes = &bytes[part..];
        if self.len < wanted {
            return None;
        }
        self.len = 0;
        let [kind, a, b, c, d] = self.bytes;
        let (kind, length) = match wanted {
            4 => (0, u32::from_be_bytes([kind, a, b, c])),
            _ => (kind, u32::from_be_bytes([a, b, c, d])),
        };
        // The length counts itself.
        Some((kind, (length as usize).saturating_sub(4)))
    }
}

/// What the server says.
#[derive(Debug)]
struct Answers {
    header: Header,
    /// The kind of the message under way, and how much of its body is still to come.
    kind: u8,
    left: usize,
    body: [u8; KEPT],
    kept: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Self { header: Header::default(), kind: 0, left: 0, body: [0; KEPT], kept: 0 }
    }
}

impl Answers {
    fn feed(&mut self, mut bytes: &[u8], facts: &Facts) {
        while !bytes.is_empty() {
            if self.kind == 0 {
                let Some((kind, length)) = self.header.take(&mut bytes, 5) else { return };
                (self.kind, self.left, self.kept) = (kind, length, 0);
            }
            let part = self.left.min(bytes.len());
            if matches!(self.kind, b'C' | b'S' | b'Z') {
                let keep = part.min(KEPT - self.kept);
                self.body[self.kept..self.kept + keep].copy_from_slice(&bytes[..keep]);
                self.kept += keep;
            }
            bytes = &bytes[part..];
            self.left -= part;
            if self.left == 0 {
                self.finish(facts);
                self.kind = 0;
            }
        }
    }

    fn finish(&self, facts: &Facts) {
        let body = &self.body[..self.kept];
        let mut texts = body.split(|byte| *byte == 0);
        match self.kind {
            b'C' => facts.completed(texts.next().unwrap_or_default()),
            b'S' => {
                facts.parameter(texts.next().unwrap_or_default(), texts.next().unwrap_or_default())
            }
            b'Z' => facts.ready(body.first().copied().unwrap_or(b'I')),
            b'G' => facts.overlooked(),
            _ => {}
        }
    }
}

/// What we ask: how many answers are to come.
#[derive(Debug, Default)]
struct Requests {
    header: Header,
    started: bool,
    left: usize,
}

impl Requests {
    fn feed(&mut self, mut bytes: &[u8], facts: &Facts) {
        loop {
            let part = self.left.min(bytes.len());
            bytes = &bytes[part..];
            self.left -= part;
            if bytes.is_empty() {
                return;
            }
            // Only the first message, which opens the session, has no kind.
            let wanted = if self.started { 5 } else { 4 };
            let Some((kind, length)) = self.header.take(&mut bytes, wanted) else { return };
            self.started = true;
            self.left = length;
            // Query and Sync; whatever else is sent is answered before the next of these.
            if matches!(kind, b'Q' | b'S') {
                facts.count_asked();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::facts::{Status, Tag};
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_say_the_same(
            rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in proptest::collection::vec(1_usize..50, 1..40),
        ) {
            let mut stream = message(b'S', b"in_hot_standby\0on\0");
            for row in &rows {
                stream.extend(message(b'D', row));
            }
            stream.extend(message(b'C', b"ROLLBACK\0"));
            stream.extend(message(b'Z', b"E"));
            let (facts, mut answers) = (Facts::default(), Answers::default());
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(*cuts.next().expect("a cycle")));
                answers.feed(piece, &facts);
                rest = later;
            }
            prop_assert_eq!(facts.status(), Status::Failed);
            prop_assert_eq!(facts.tag(), Tag::Rollback);
            prop_assert_eq!(facts.standby(), Some(true));
        }

        #[test]
        fn requests_are_counted_in_pieces_of_any_size(cut in 1_usize..40) {
            let mut stream = 20_u32.to_be_bytes().to_vec();
            stream.extend([0; 16]); // the startup message
            stream.extend(message(b'p', b"S and Q in a password"));
            stream.extend(message(b'P', b"\0SELECT 1\0\0\0"));
            stream.extend(message(b'S', b""));
            stream.extend(message(b'Q', b"SELECT 'S'\0"));
            let (facts, mut requests) = (Facts::default(), Requests::default());
            facts.start_counting();
            for piece in stream.chunks(cut) {
                requests.feed(piece, &facts);
            }
            let mut settled = std::pin::pin!(facts.settled());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for _ in 0..2 {
                prop_assert!(settled.as_mut().poll(&mut cx).is_pending());
                facts.ready(b'I');
            }
            prop_assert!(settled.as_mut().poll(&mut cx).is_ready());
        }
    }

    #[test]
    fn a_message_longer_than_what_is_kept_is_skipped() {
        let (facts, mut answers) = (Facts::default(), Answers::default());
        answers.feed(&message(b'C', &[b'x'; 500]), &facts);
        answers.feed(&message(b'Z', b"T"), &facts);
        assert_eq!((facts.tag(), facts.status()), (Tag::Other, Status::Open));
    }
}
