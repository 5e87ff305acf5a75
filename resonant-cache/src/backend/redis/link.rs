//! The driver of our own: one connection, written and read by one task. Behind it are `conn`, `resp` and `wire`.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::conn::{Conn, Request};
use super::driver::{Answer, Fault, Settings, Signs, all};
use super::resp::{Batch, Command};
use super::target::Address;
use super::wire;

/// A connection.
pub(super) struct Link {
    queue: mpsc::Sender<Request>,
    signs: Arc<Signs>,
    task: tokio::sync::Mutex<JoinHandle<()>>,
    abort: tokio::task::AbortHandle,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Link {
    /// Connects; nobody is logged in yet.
    pub(super) async fn open(address: &Address, settings: &Settings) -> Result<Self, Fault> {
        let stream = wire::open(address, settings).await;
        let stream = stream.map_err(|error| Fault::Broken(error.to_string()))?;
        let (queue, queued) = mpsc::channel(settings.max_queued);
        let signs = Arc::new(Signs::new());
        let task = tokio::spawn(Conn::new(stream, queued, Arc::clone(&signs)).run());
        let abort = task.abort_handle();
        Ok(Self { queue, signs, task: tokio::sync::Mutex::new(task), abort })
    }

    /// Sends commands all at once, and answers for each.
    pub(super) async fn send(&self, commands: &[&Command]) -> Vec<Answer> {
        let (answers, answered) = oneshot::channel();
        let batch = Batch::of(commands.iter().copied());
        self.signs.begin(commands.len());
        let sent = self.queue.try_send(Request { batch, answers });
        let why = match sent {
            Ok(()) => {
                let ended = |_| all(commands.len(), self.signs.fault());
                return answered.await.unwrap_or_else(ended);
            }
            Err(mpsc::error::TrySendError::Full(_)) => "too many commands wait for the server",
            Err(mpsc::error::TrySendError::Closed(_)) => "the connection has ended",
        };
        self.signs.end(commands.len());
        all(commands.len(), Fault::Down(why.into()))
    }

    pub(super) fn signs(&self) -> &Signs {
        &self.signs
    }

    pub(super) fn end(&self) {
        self.abort.abort();
    }

    pub(super) async fn ended(&self) {
        let _ = (&mut *self.task.lock().await).await;
    }

    pub(super) fn is_ended(&self) -> bool {
        self.abort.is_finished()
    }
}
