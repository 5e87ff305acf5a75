//! Making a node follow another, and seeing that it does.

use super::PgNode;
use super::config::Upstream;
use crate::error::{Error, Result};
use crate::process::run_tool;
use crate::wait::{LIMIT, Wait};

impl PgNode {
    /// Makes the slot a replica keeps its place with on this node.
    pub(super) async fn make_slot(&self, slot: &str) -> Result<()> {
        self.sql(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))
        .await?;
        Ok(())
    }

    /// Writes whom this node follows; takes effect at once where it runs as a replica, else at its next start.
    pub(super) async fn follow(&self, primary: &PgNode) -> Result<()> {
        let slot = format!("{}_slot", self.name());
        primary.make_slot(&slot).await?;
        let port = match &self.inner.link {
            Some(link) => {
                link.retarget(primary.address());
                // What still flows from the old one must not.
                link.cut().await?;
                link.port()
            }
            None => primary.port(),
        };
        self.reconfigure(|config| config.upstream = Some(Upstream { port, slot })).await
    }

    /// Takes a fresh copy of the primary's data; this node must be down.
    pub(super) async fn base_backup(&self, primary: &PgNode) -> Result<()> {
        let data = self.data_dir();
        match std::fs::remove_dir_all(&data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", data.display()), e));
            }
            _ => {}
        }
        let backup = self
            .tool("pg_basebackup")
            .arg("-h")
            .arg(primary.socket_dir())
            .args([
                "-p",
                &primary.port().to_string(),
                "-U",
                "postgres",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
                "-D",
            ])
            .arg(&data);
        run_tool(backup, LIMIT).await?;
        self.mark_standby()
    }

    /// Waits until this replica receives from that primary.
    pub(super) async fn streaming_from(&self, primary: &PgNode, mut wait: Wait) -> Result<()> {
        let question = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{}' AND state = 'streaming'",
            self.name()
        );
        loop {
            let process = self.inner.process.running()?;
            process.check()?;
            match primary.value(&question).await?.as_str() {
                "0" => wait.pause("not streaming").await?,
                _ => return Ok(()),
            }
        }
    }

    /// Waits until this replica has applied what the primary has written so far.
    ///
    /// # Errors
    /// `TimedOut` when it does not get there: it is paused, delayed, cut off or diverged.
    pub async fn caught_up_with(&self, primary: &PgNode) -> Result<()> {
        let target = primary.value("SELECT pg_current_wal_lsn()").await?;
        let question =
            format!("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{target}'::pg_lsn");
        let mut session = self.session().await?;
        let mut wait = Wait::new(format!("{} applying up to {target}", self.name()), LIMIT);
        while session.value(&question).await? != "t" {
            wait.pause("behind").await?;
        }
        Ok(())
    }
}
