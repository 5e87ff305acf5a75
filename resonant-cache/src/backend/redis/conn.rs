//! The task of one connection: it alone reads and writes.
//!
//! Commands wait until the other tasks that are ready have had their turn, and are then written all at once: under load a
//! command costs a fraction of a system call. Where nothing else is ready that turn is no wait at all.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::sync::{mpsc, oneshot};

use super::driver::{Answer, Fault, Signs};
use super::resp::{self, Batch};
use super::wire::Stream;

/// Bytes that are gathered for one write; one batch may be longer.
const GATHERED: usize = 256 << 10;
/// Room that is offered to a read.
const ROOM: usize = 32 << 10;
/// A buffer that grew beyond it is given back when it is empty.
const KEPT: usize = 1 << 20;

/// What a caller sends: commands, and where their answers go.
pub(super) struct Request {
    pub(super) batch: Batch,
    pub(super) answers: oneshot::Sender<Vec<Answer>>,
}

/// Who waits for answers, and for how many more.
struct Waiter {
    left: usize,
    answers: Vec<Answer>,
    done: oneshot::Sender<Vec<Answer>>,
}

pub(super) struct Conn {
    stream: Box<dyn Stream>,
    queue: mpsc::Receiver<Request>,
    signs: Arc<Signs>,
    output: BytesMut,
    input: BytesMut,
    /// In the order of their commands on the wire.
    waiting: VecDeque<Waiter>,
    /// Whether what is gathered has waited its turn.
    waited: bool,
    unflushed: bool,
}

impl Drop for Conn {
    /// What was not sent was certainly not carried out, and is told apart from what nobody knows of.
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(Request { batch, answers }) = self.queue.try_recv() {
            let unsent = || Err(Fault::Down("the connection ended before it was used".into()));
            let _ = answers.send((0..batch.count).map(|_| unsent()).collect());
        }
    }
}

impl Conn {
    pub(super) fn new(
        stream: Box<dyn Stream>,
        queue: mpsc::Receiver<Request>,
        signs: Arc<Signs>,
    ) -> Self {
        Self {
            stream,
            queue,
            signs,
            output: BytesMut::new(),
            input: BytesMut::new(),
            waiting: VecDeque::new(),
            waited: false,
            unflushed: false,
        }
    }

    /// Runs until the connection ends, or until nobody can send on it any more.
    pub(super) async fn run(mut self) {
        if let Err(error) = poll_fn(|cx| self.poll(cx)).await {
            self.signs.broke(&error);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Reading first: who is answered has something new to send as a rule.
            self.poll_read(cx)?;
            let closed = self.gather(cx);
            if self.output.is_empty() && !self.unflushed {
                let over = closed && self.waiting.is_empty();
                return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            if !self.waited {
                self.waited = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.poll_write(cx))?;
            self.waited = false;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            self.input.reserve(ROOM);
            // Dropping it loses nothing: it reads when it is polled, or not at all.
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(_)) => self.signs.heard(),
            }
            while let Some(answer) = resp::next(&mut self.input)? {
                self.answered(answer)?;
            }
            give_back(&mut self.input);
        }
    }

    fn answered(&mut self, answer: Answer) -> io::Result<()> {
        let Some(waiter) = self.waiting.front_mut() else {
            return Err(io::Error::other("the server answered what nobody asked"));
        };
        self.signs.end(1);
        waiter.answers.push(answer);
        waiter.left -= 1;
        if waiter.left == 0
            && let Some(Waiter { answers, done, .. }) = self.waiting.pop_front()
        {
            let _ = done.send(answers);
        }
        Ok(())
    }

    /// Takes what callers send, in order; answers whether none is left who could.
    fn gather(&mut self, cx: &mut Context<'_>) -> bool {
        while self.output.len() < GATHERED {
            match self.queue.poll_recv(cx) {
                // What nobody waits for any more is not sent.
                Poll::Ready(Some(request)) if request.answers.is_closed() => {
                    self.signs.end(request.batch.count);
                }
                Poll::Ready(Some(Request { batch, answers: done })) => {
                    self.output.extend_from_slice(&batch.bytes);
                    let answers = Vec::with_capacity(batch.count);
                    self.waiting.push_back(Waiter { left: batch.count, answers, done });
                }
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
            self.unflushed = true;
        }
        give_back(&mut self.output);
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > KEPT {
        *buffer = BytesMut::new();
    }
}
