//! The task that moves a session's messages.
//!
//! It gathers requests: a reader that sends one wakes this task, which the runtime then polls at once, and so each request
//! would leave alone, in a system call of its own, and wake the server for itself. Where readers have been handed answers
//! and not been polled since, more requests are about to come; the task then goes to the back of the queue once, behind
//! those readers, and sends what they have asked together.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Connection};

use crate::backend::Notification;

use super::error::words;
use super::facts::Facts;

pub(super) struct Driver<S, T> {
    /// In front of the connection, so that it is dropped first: the cause is told before whoever waits hears of the end.
    end: End,
    connection: Connection<S, T>,
    /// Where notifications go.
    heard: Option<mpsc::Sender<Notification>>,
    gather: Gather,
}

impl<S, T> Driver<S, T>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(
        connection: Connection<S, T>,
        facts: Arc<Facts>,
        heard: Option<mpsc::Sender<Notification>>,
    ) -> Self {
        Self { end: End { facts, cause: None }, connection, heard, gather: Gather::default() }
    }

    /// Until the session ends.
    pub(super) async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Some(Ok(AsyncMessage::Notification(said))) => {
                    // Who does not take them holds the server back.
                    if let Some(heard) = &self.heard {
                        let said = Notification::new(said.channel(), said.payload());
                        let _ = heard.send(said).await;
                    }
                }
                // Notices may quote values.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.end.cause = Some(cause_of(&error));
                    return;
                }
                None => return,
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        let facts = &self.end.facts;
        if self.gather.waits(|| facts.expects_more()) {
            // Not the runtime's own yielding: that puts the task behind a look at the sockets.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.connection.poll_message(cx)
    }
}

/// Tells that the session is over, however the task ends: also when it is aborted, or its runtime is.
struct End {
    facts: Arc<Facts>,
    cause: Option<String>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.facts.end(self.cause.take());
    }
}

/// The cause of a session's end, in words without a value.
fn cause_of(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(said), _) => format!("{}: {}", said.code().code(), words(said)),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

/// When a round behind the others takes longer than this, they do more than ask: what is there is sent at once, …
const LONG: Duration = Duration::from_millis(2);
/// … for so many turns.
const PAUSE: u32 = 64;

/// Whether to let others go first. It does so at most once in a row.
#[derive(Debug, Default)]
struct Gather {
    since: Option<Instant>,
    pause: u32,
}

impl Gather {
    fn waits(&mut self, expects_more: impl FnOnce() -> bool) -> bool {
        if let Some(since) = self.since.take() {
            if since.elapsed() > LONG {
                self.pause = PAUSE;
            }
            return false;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if !expects_more() {
            return false;
        }
        self.since = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
    use tokio::runtime::Builder;
    use tokio::time::timeout;
    use tokio_postgres::tls::NoTlsStream;
    use tokio_postgres::{Client, Config, NoTls};

    use super::super::tap::Tap;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Counts how often something is written.
    struct Counted(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const EMPTY: &[u8] = b"I\0\0\0\x04Z\0\0\0\x05I";

    /// A server to which every query is an empty one.
    async fn serve(mut stream: DuplexStream) -> io::Result<()> {
        let length = stream.read_u32().await? as usize;
        stream.read_exact(&mut vec![0; length - 4]).await?;
        stream.write_all(WELCOME).await?;
        let mut asked = Vec::new();
        while stream.read_buf(&mut asked).await? > 0 {
            let mut answers = Vec::new();
            while let [_, a, b, c, d, ..] = asked[..] {
                let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                if asked.len() < length {
                    break;
                }
                asked.drain(..length);
                answers.extend_from_slice(EMPTY);
            }
            stream.write_all(&answers).await?;
        }
        Ok(())
    }

    type Driven = (Client, Arc<Facts>, Driver<Tap<Counted>, NoTlsStream>, Arc<AtomicUsize>);

    /// A session with the server at the other end of `stream`, and how often it wrote.
    async fn session(stream: DuplexStream) -> Driven {
        let (facts, writes) = (Arc::<Facts>::default(), Arc::<AtomicUsize>::default());
        let tap = Tap::new(Counted(stream, Arc::clone(&writes)), Arc::clone(&facts));
        let login = Config::new().user("ada").connect_raw(tap, NoTls).await;
        let (client, connection) = login.expect("a login");
        facts.start_counting();
        writes.store(0, Ordering::Relaxed);
        (client, Arc::clone(&facts), Driver::new(connection, facts, None), writes)
    }

    /// So many readers ask again and again, counted as on a lane or not; how often something was written.
    async fn writes(readers: u32, counted: bool) -> usize {
        const READS: usize = 50;
        let (ours, theirs) = duplex(1 << 16);
        // As a server is: what it answers comes from outside the runtime.
        let outside = Builder::new_current_thread().build().expect("a runtime");
        std::thread::spawn(move || outside.block_on(serve(theirs)));
        let (client, facts, driver, writes) = session(ours).await;
        tokio::spawn(driver.run());
        let client = Arc::new(client);
        let reading = (0..readers).map(|_| {
            let (client, facts) = (Arc::clone(&client), Arc::clone(&facts));
            tokio::spawn(async move {
                for _ in 0..READS {
                    if counted {
                        facts.join();
                    }
                    client.batch_execute("").await.expect("an answer");
                    if counted {
                        facts.leave();
                    }
                }
            })
        });
        let reading: Vec<_> = reading.collect();
        for reader in reading {
            timeout(LIMIT, reader).await.expect("nobody is left waiting").expect("a reader");
        }
        writes.load(Ordering::Relaxed)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn requests_of_readers_that_share_leave_together() {
        let of =
            async |readers, counted| tokio::spawn(writes(readers, counted)).await.expect("readers");
        // A machine that stands still now and then looks like readers that are busy: a round without that is wanted.
        let mut rounds = 0;
        loop {
            let (apart, together) = (of(16, false).await, of(16, true).await);
            if together * 4 < apart {
                break;
            }
            rounds += 1;
            assert!(rounds < 20, "{together} times, and {apart} times where nobody counts");
        }
        assert_eq!(of(1, true).await, of(1, false).await, "who is alone waits for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn where_readers_are_busy_with_something_else_nobody_waits_for_them() {
        let mut gather = Gather::default();
        for _ in 0..3 {
            assert!(!gather.waits(|| false));
            assert!(gather.waits(|| true));
            assert!(!gather.waits(|| true), "once in a row");
        }
        assert!(gather.waits(|| true));
        tokio::time::advance(LONG * 2).await;
        for _ in 0..=PAUSE {
            assert!(!gather.waits(|| true));
        }
        assert!(gather.waits(|| true), "and later it tries again");
    }

    #[tokio::test]
    async fn whoever_waits_for_answers_hears_of_the_end_however_the_driver_ends() {
        for polled in [true, false] {
            let (ours, theirs) = duplex(1 << 16);
            tokio::spawn(serve(theirs));
            let (_client, facts, driver, _) = session(ours).await;
            facts.count_asked();
            let driver = tokio::spawn(driver.run());
            if polled {
                tokio::task::yield_now().await;
            }
            driver.abort();
            timeout(LIMIT, facts.settled()).await.expect("it has ended");
            assert!(facts.has_ended());
        }
    }
}
