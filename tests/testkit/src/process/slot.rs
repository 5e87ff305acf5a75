//! A place for a server's process: empty while the server is down, so that it can come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use super::{Launch, Process};
use crate::error::{Error, ErrorKind, Result};
use crate::wait::LIMIT;

/// Holds at most one process of one server.
#[derive(Debug)]
pub(crate) struct Slot {
    name: String,
    process: Mutex<Option<Arc<Process>>>,
}

impl Slot {
    /// An empty one; the name is for messages.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), process: Mutex::new(None) }
    }

    /// Starts a process and keeps it; one that was there is ended.
    pub(crate) fn start(&self, launch: Launch) -> Result<Arc<Process>> {
        let process = Arc::new(Process::start(launch)?);
        let old = self.lock().replace(Arc::clone(&process));
        drop(old);
        Ok(process)
    }

    /// The process, which may have ended by itself.
    pub(crate) fn get(&self) -> Option<Arc<Process>> {
        self.lock().clone()
    }

    /// The process, for what needs one.
    pub(crate) fn running(&self) -> Result<Arc<Process>> {
        self.get()
            .ok_or_else(|| Error::new(ErrorKind::Lost, format!("{} is not running", self.name)))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Whether the process runs and is not frozen.
    pub(crate) fn is_responsive(&self) -> bool {
        self.get().is_some_and(|process| process.is_responsive())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.get().filter(|process| process.is_running()).map(|process| process.pid())
    }

    /// Takes the process out, for whoever ends it.
    pub(crate) fn take(&self) -> Option<Arc<Process>> {
        self.lock().take()
    }

    /// Kills the whole tree and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        match self.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Signals the process to end in order, and waits until it has.
    pub(crate) async fn end(&self, signal: Signal) -> Result<()> {
        let Some(process) = self.get() else { return Ok(()) };
        if process.is_running() {
            process.signal(signal)?;
            process.ended(LIMIT).await?;
        }
        self.take();
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        self.running()?.freeze()
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.running()?.thaw()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
