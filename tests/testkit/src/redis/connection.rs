//! A connection for the test itself: to prepare data, to look, and to stand for a client that a fault hits.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::resp::{self, Reply};
use crate::error::{Error, Result};
use crate::wait::{ANSWER, within};

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// An open connection, without TLS: for the test's own use, not a driver.
///
/// Each command is bounded: 30 seconds unless [`limit`](Self::limit) says otherwise. After a `TimedOut` the connection is out
/// of step and must be dropped.
pub struct RedisConnection {
    stream: BufReader<Box<dyn Stream>>,
    name: String,
    limit: Duration,
    pushed: VecDeque<Reply>,
}

impl std::fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisConnection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RedisConnection {
    /// Connects over TCP, for instance through a [`FaultProxy`](crate::FaultProxy).
    ///
    /// # Errors
    /// `Lost` when nobody listens, `TimedOut` after 30 seconds.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let connect = async {
            TcpStream::connect(address)
                .await
                .map_err(|e| Error::lost(format!("connecting to {address}"), e))
        };
        let stream = within(ANSWER, format!("connecting to {address}"), connect).await?;
        Ok(Self::over(Box::new(stream), address.to_string()))
    }

    pub(super) async fn connect_unix(socket: &Path, name: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| Error::lost(format!("connecting to {name}"), e))?;
        Ok(Self::over(Box::new(stream), name.to_owned()))
    }

    fn over(stream: Box<dyn Stream>, name: String) -> Self {
        Self { stream: BufReader::new(stream), name, limit: ANSWER, pushed: VecDeque::new() }
    }

    /// Bounds every command of this connection.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends a command and returns its answer. Messages the server pushes meanwhile are kept for
    /// [`next_push`](Self::next_push).
    ///
    /// # Errors
    /// `Rejected` with the first word as [`code`](Error::code) when the server answers with an error, `Lost` when the
    /// connection breaks, `TimedOut` when no answer comes.
    ///
    /// # Cancel safety
    /// Not cancel safe: the command may be carried out, and the connection is out of step. Drop it.
    pub async fn command<S: AsRef<str>>(
        &mut self,
        words: impl IntoIterator<Item = S>,
    ) -> Result<Reply> {
        let message = resp::encode(words);
        let (stream, pushed, name) = (&mut self.stream, &mut self.pushed, &self.name);
        let exchange = async {
            stream
                .write_all(&message)
                .await
                .map_err(|e| Error::lost(format!("asking {name}"), e))?;
            loop {
                match resp::read(stream, name).await? {
                    Reply::Failed(text) => return Err(resp::refusal(name, &text)),
                    push @ Reply::Push(_) => pushed.push_back(push),
                    reply => return Ok(reply),
                }
            }
        };
        within(self.limit, &self.name, exchange).await
    }

    /// The next message that answers no command: an invalidation, or what a channel published.
    ///
    /// # Errors
    /// `TimedOut` when none comes, `Lost` when the connection breaks.
    pub async fn next_push(&mut self) -> Result<Reply> {
        if let Some(push) = self.pushed.pop_front() {
            return Ok(push);
        }
        within(self.limit, &self.name, resp::read(&mut self.stream, &self.name)).await
    }
}
