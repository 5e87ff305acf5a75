//! An agent on the servers' host, as a user would write it.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use async_trait::async_trait;
use resonant_ha::backend::postgres::{PledgeFile, PostgresAgent};
use resonant_ha::{Error, ErrorKind, Pledge, PledgedTo, RegionTarget, Result};
use resonant_testkit::{PgNode, PostgresCluster};

use super::stage::REGIONS;

#[derive(Debug, Clone)]
pub(super) struct KitAgent {
    cluster: PostgresCluster,
    node: PgNode,
}

fn failed(error: impl Into<resonant_common::error::BoxError>) -> Error {
    Error::new(ErrorKind::Failed, "agent", "the kit could not").with_source(error)
}

impl KitAgent {
    pub(super) fn new(cluster: &PostgresCluster, node: PgNode) -> Self {
        Self { cluster: cluster.clone(), node }
    }

    /// Stops the server, unless it has pledged itself to somebody newer.
    async fn end(&self, order: &Pledge) -> Result<PledgeFile> {
        let file = PledgeFile::new(self.node.data_dir());
        let pledged = file.read()?;
        if !pledged.admits(order) {
            return Err(PledgedTo(pledged).refuse("agent"));
        }
        self.node.kill().await.map_err(failed)?;
        // Until now it could be given orders.
        if let Err(newer) = file.take(order) {
            self.node.start().await.map_err(failed)?;
            return Err(newer);
        }
        Ok(file)
    }

    /// The slot this server keeps its place with has to be there before it starts: it may have to receive to be consistent.
    async fn make_slot(&self, source: &PgNode) -> Result<()> {
        let config = self.node.socket_dir().join("postgresql.conf");
        let config = std::fs::read_to_string(config).map_err(failed)?;
        let slot = config.lines().find_map(|line| line.strip_prefix("primary_slot_name = "));
        let Some(slot) = slot.filter(|slot| *slot != "''") else { return Ok(()) };
        let make = format!(
            "SELECT pg_create_physical_replication_slot({slot}, true) \
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot})"
        );
        source.sql(&make).await.map(drop).map_err(failed)
    }

    async fn rewind(&self, source: &PgNode) -> Result<()> {
        let data = self.node.data_dir();
        let owner = std::fs::metadata(&data).map_err(failed)?;
        let signal = data.join("standby.signal");
        let _ = std::fs::remove_file(&signal);
        let config = self.node.socket_dir().join("postgresql.conf").display().to_string();
        let (folder, binaries) = (self.node.socket_dir(), self.node.binaries());
        let tool = |name: &str| {
            let mut tool = std::process::Command::new(binaries.join(name));
            tool.uid(owner.uid()).gid(owner.gid()).current_dir(folder).stdin(Stdio::null());
            tool
        };
        // A rewind needs a server that ended in order, and its recovery must not wait for standbys.
        let mut recover = tool("postgres");
        recover.args(["--single", "-F", "-D"]).arg(&data);
        recover.arg("-c").arg(format!("config_file={config}"));
        recover.args(["-c", "synchronous_standby_names=", "template1"]);
        run(recover).await?;
        let mut rewind = tool("pg_rewind");
        rewind.arg("-D").arg(&data).args(["--no-sync", "--no-ensure-shutdown"]).arg(format!(
            "--source-server=host={} port={} user=postgres dbname=postgres",
            source.socket_dir().display(),
            source.port()
        ));
        run(rewind).await?;
        std::fs::write(&signal, "").map_err(failed)?;
        chown(&signal, Some(owner.uid()), Some(owner.gid())).map_err(failed)
    }
}

async fn run(tool: std::process::Command) -> Result<()> {
    let name = format!("{:?}", tool.get_program());
    let mut tool = tokio::process::Command::from(tool);
    let output = tool.kill_on_drop(true).output().await.map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Failed, "agent", format!("{name}: {text}"))),
    }
}

#[async_trait]
impl PostgresAgent for KitAgent {
    async fn stop(&self, order: &Pledge) -> Result<String> {
        self.end(order).await?;
        Ok("every process was killed".to_owned())
    }

    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<()> {
        let file = self.end(order).await?;
        let nodes = self.cluster.nodes();
        let number = REGIONS.iter().position(|region| primary.region == *region);
        let source = number.and_then(|number| nodes.get(number));
        let source = source.or_else(|| nodes.iter().find(|node| primary.url == node.url()));
        let source = source.expect("a node of the kit");
        self.make_slot(source).await?;
        self.rewind(source).await?;
        // The primary's files came, and its pledge with them.
        file.follow(order, primary, self.node.name())?;
        self.node.start().await.map_err(failed)
    }
}
