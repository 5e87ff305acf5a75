//! What can be done to one server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use super::PgNode;
use crate::error::{ErrorKind, Result};
use crate::wait::{ANSWER, Wait};
use rustix::process::Signal;

impl PgNode {
    /// Kills every process of the server at once (`SIGKILL`). What was acknowledged survives in the kernel's cache: this
    /// proves crash recovery, not durability against power loss.
    ///
    /// # Errors
    /// `TimedOut` when processes are still there after 20 seconds.
    pub async fn kill(&self) -> Result<()> {
        self.inner.process.kill().await
    }

    /// Kills only the postmaster. Its children notice and end by themselves, each after what it is doing;
    /// [`start`](Self::start) waits for the last of them.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub async fn kill_postmaster(&self) -> Result<()> {
        let process = self.inner.process.running()?;
        *self.inner.orphans.lock().unwrap_or_else(PoisonError::into_inner) = process.descendants();
        process.signal(Signal::KILL)?;
        process.ended(ANSWER).await?;
        self.inner.process.take();
        Ok(())
    }

    /// Freezes every process (`SIGSTOP`): connecting still succeeds, because the kernel accepts; nothing answers, and open
    /// sessions hang. The gray failure that time-outs are for.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.inner.process.freeze()
    }

    /// Freezes only the postmaster: open sessions work on, new ones hang.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn freeze_postmaster(&self) -> Result<()> {
        self.inner.process.running()?.freeze_alone()
    }

    /// Lets a frozen server go on where it was. A primary that was frozen takes writes on its open sessions again, even when
    /// another was promoted meanwhile.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.inner.process.thaw()
    }

    /// Closes all client sessions from the server's side and returns how many there were. Replication goes on.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql).
    pub async fn close_sessions(&self) -> Result<u64> {
        let closed = self
            .value(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )
            .await?;
        Ok(closed.parse().unwrap_or(0))
    }

    /// Stops a replica from applying what it receives, and waits until it has stopped: reads there stay at this moment.
    ///
    /// # Errors
    /// `Rejected` on a primary.
    pub async fn pause_replay(&self) -> Result<()> {
        let mut session = self.session().await?;
        session.sql("SELECT pg_wal_replay_pause()").await?;
        let mut wait = Wait::new(format!("{} pausing replay", self.name()), ANSWER);
        loop {
            let state = match session.value("SELECT pg_get_wal_replay_pause_state()").await {
                Ok(state) => state,
                // Before version 14 a pause is what it says at once.
                Err(error) if error.code() == Some("42883") => return Ok(()),
                Err(error) => return Err(error),
            };
            if state == "paused" {
                return Ok(());
            }
            wait.pause(state).await?;
        }
    }

    /// Lets a replica apply again.
    ///
    /// # Errors
    /// `Rejected` on a primary.
    pub async fn resume_replay(&self) -> Result<()> {
        self.sql("SELECT pg_wal_replay_resume()").await?;
        Ok(())
    }

    /// Makes a replica apply each commit this long after the primary made it; zero ends the delay.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql).
    pub async fn delay_replay(&self, delay: Duration) -> Result<()> {
        self.reconfigure(|config| config.apply_delay = delay).await
    }

    /// Whether it is a replica now.
    ///
    /// # Errors
    /// Those of [`sql`](Self::sql).
    pub async fn is_in_recovery(&self) -> Result<bool> {
        Ok(self.value("SELECT pg_is_in_recovery()").await? == "t")
    }

    /// Waits until a session can be had, for instance after a thaw.
    ///
    /// # Errors
    /// `TimedOut` when that does not happen.
    pub async fn ready(&self) -> Result<()> {
        let mut wait = Wait::new(format!("{} answering", self.name()), ANSWER);
        loop {
            match self.sql("SELECT 1").await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Lost => wait.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Removes the shared-memory segment that a killed server could not. It is 56 bytes, but a system has 4096 of them.
pub(super) fn free_shared_memory(data: &Path) {
    let Ok(pid_file) = std::fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(id) = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else {
        return;
    };
    let mut remove = Command::new("ipcrm");
    remove.args(["-m", id]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = remove.status();
}
