//! Promotion, and bringing the others along. The two traps are handled here: a rewind before the new primary has written a
//! checkpoint silently does nothing, and a replica that received more than the promoted one never follows it.

use std::fs;
use std::time::Duration;

use super::{PgNode, PostgresCluster};
use crate::error::{Error, ErrorKind, Result};
use crate::process::run_tool;
use crate::wait::{LIMIT, Wait};

/// How long a re-pointed replica may take to stream before it is taken to have diverged.
const PATIENCE: Duration = Duration::from_secs(10);

impl PgNode {
    /// Makes this replica the primary and waits until it takes writes. The old primary is not touched: kill, freeze or cut it
    /// first, or there are two. [`PostgresCluster::primary`] is this node from now on.
    ///
    /// # Errors
    /// `Rejected` when it is no replica, `TimedOut` when the promotion does not end.
    pub async fn promote(&self) -> Result<()> {
        let mut session = self.session().await?;
        if session.value("SELECT pg_promote(true, 60)").await? != "t" {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("{} was not promoted within 60 s", self.name()),
            ));
        }
        let mut wait = Wait::new(format!("{} taking writes", self.name()), LIMIT);
        while session.value("SELECT pg_is_in_recovery()").await? != "f" {
            wait.pause("still a replica").await?;
        }
        self.inner.roles.set_primary(self.inner.index);
        self.reconfigure(|config| config.upstream = None).await?;
        // Until this is written the control file still says the old timeline.
        session.sql("CHECKPOINT").await?;
        Ok(())
    }

    /// Takes note that somebody else promoted this server, such as the failover tool under test:
    /// [`PostgresCluster::primary`] is this node from now on.
    ///
    /// # Errors
    /// `Rejected` when it is still a replica, and those of [`sql`](Self::sql).
    pub async fn was_promoted(&self) -> Result<()> {
        if self.is_in_recovery().await? {
            let message = format!("{} is still a replica", self.name());
            return Err(Error::new(ErrorKind::Rejected, message));
        }
        self.inner.roles.set_primary(self.inner.index);
        self.reconfigure(|config| config.upstream = None).await
    }
}

impl PostgresCluster {
    /// Makes every running node but the primary follow the primary, and waits until each receives from it. A node that got
    /// further than the primary is rewound first. Nodes that are down or frozen are left alone.
    ///
    /// # Errors
    /// `Lost` when the primary does not answer, `TimedOut` when a node does not follow.
    pub async fn repoint_all(&self) -> Result<()> {
        let primary = self.primary();
        for node in self
            .nodes()
            .iter()
            .filter(|node| node.index() != primary.index() && node.is_responsive())
        {
            if !node.is_in_recovery().await? || diverged(node, &primary).await? {
                self.rejoin_by_rewind(node.index()).await?;
                continue;
            }
            node.follow(&primary).await?;
            let wait = Wait::new(format!("{} following {}", node.name(), primary.name()), PATIENCE);
            match node.streaming_from(&primary, wait).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    self.rejoin_by_rewind(node.index()).await?
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Brings a node back as a replica of the primary by rewinding its data to where the two parted. Stops it first when it
    /// runs (a frozen one is killed). What only it had is gone afterwards.
    ///
    /// # Errors
    /// `Config` when it is the primary, `Exited` when the rewind fails, for instance because the log it needs was removed: see
    /// [`rebuild`](Self::rebuild).
    pub async fn rejoin_by_rewind(&self, index: usize) -> Result<()> {
        let (node, primary) = (self.follower(index)?, self.primary());
        node.kill().await?;
        primary.sql("CHECKPOINT").await?;
        node.recover_alone().await?;
        let source = format!(
            "host={} port={} user=postgres dbname=postgres",
            primary.socket_dir().display(),
            primary.port()
        );
        let rewind = node
            .tool("pg_rewind")
            .arg("-D")
            .arg(node.data_dir())
            .arg(format!("--source-server={source}"))
            .args(["--no-sync", "--no-ensure-shutdown"]);
        run_tool(rewind, LIMIT).await?;
        node.mark_standby()?;
        self.come_back(&node, &primary).await
    }

    /// Brings a node back as a replica of the primary from a fresh copy of all data.
    ///
    /// # Errors
    /// `Config` when it is the primary, `Exited` when the copy fails.
    pub async fn rebuild(&self, index: usize) -> Result<()> {
        let (node, primary) = (self.follower(index)?, self.primary());
        node.kill().await?;
        super::faults::free_shared_memory(&node.data_dir());
        node.base_backup(&primary).await?;
        self.come_back(&node, &primary).await
    }

    async fn come_back(&self, node: &PgNode, primary: &PgNode) -> Result<()> {
        node.follow(primary).await?;
        node.start().await?;
        let wait = Wait::new(format!("{} following {}", node.name(), primary.name()), LIMIT);
        node.streaming_from(primary, wait).await
    }

    fn follower(&self, index: usize) -> Result<PgNode> {
        let node = self.node(index);
        if node.is_primary() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} is the primary: promote another first", node.name()),
            ));
        }
        Ok(node)
    }
}

impl PgNode {
    /// Crash recovery without taking part in anything, which a rewind needs: its target must have ended in order.
    async fn recover_alone(&self) -> Result<()> {
        match fs::remove_file(self.data_dir().join("standby.signal")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("making {} recover", self.name()), e));
            }
            _ => {}
        }
        let single = self
            .tool("postgres")
            .args(["--single", "-F", "-D"])
            .arg(self.data_dir())
            .arg("-c")
            .arg(format!("config_file={}", self.config_file().display()))
            .args(["-c", "synchronous_standby_names=", "template1"]);
        run_tool(single, LIMIT).await?;
        Ok(())
    }
}

/// Whether a replica has received more of the old timeline than the new primary kept.
async fn diverged(node: &PgNode, primary: &PgNode) -> Result<bool> {
    let timeline =
        primary.value("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").await?;
    if timeline == "00000001" {
        return Ok(false);
    }
    let history =
        primary.value(&format!("SELECT pg_read_file('pg_wal/{timeline}.history')")).await?;
    let fork = history.lines().filter_map(|line| line.split('\t').nth(1)).next_back();
    let Some(fork) = fork else { return Ok(false) };
    // Ahead of the fork is only wrong for a node that is still on the old timeline.
    let ahead = node
        .value(&format!(
            "SELECT greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), pg_last_wal_replay_lsn()) > '{fork}'::pg_lsn \
             AND coalesce((SELECT received_tli FROM pg_stat_wal_receiver), 0) < x'{timeline}'::int"
        ))
        .await?;
    Ok(ahead == "t")
}
