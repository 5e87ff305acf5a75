//! The task that moves a session's messages.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
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
        Self { end: End { facts, cause: None }, connection, heard }
    }

    /// Until the session ends.
    pub(super) async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.connection.poll_message(cx)).await {
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;
    use tokio_postgres::tls::NoTlsStream;
    use tokio_postgres::{Client, Config, NoTls};

    use super::super::tap::Tap;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    /// A server that says nothing after the login.
    async fn welcome(mut stream: DuplexStream) -> io::Result<DuplexStream> {
        let length = stream.read_u32().await? as usize;
        stream.read_exact(&mut vec![0; length - 4]).await?;
        stream.write_all(WELCOME).await?;
        Ok(stream)
    }

    type Driven = (Client, Arc<Facts>, Driver<Tap<DuplexStream>, NoTlsStream>);

    /// A session with the server at the other end of `stream`.
    async fn session(stream: DuplexStream) -> Driven {
        let facts = Arc::<Facts>::default();
        let login = Config::new()
            .user("ada")
            .connect_raw(Tap::new(stream, Arc::clone(&facts)), NoTls)
            .await;
        let (client, connection) = login.expect("a login");
        facts.start_counting();
        (client, Arc::clone(&facts), Driver::new(connection, facts, None))
    }

    #[tokio::test]
    async fn whoever_waits_for_answers_hears_of_the_end_however_the_driver_ends() {
        for polled in [true, false] {
            let (ours, theirs) = duplex(1 << 16);
            let server = tokio::spawn(welcome(theirs));
            let (_client, facts, driver) = session(ours).await;
            let _silent = server.await.expect("a server").expect("a welcome");
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
