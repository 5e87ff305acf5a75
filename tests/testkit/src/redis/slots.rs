//! Who has which slot, and moving one: in one go, or stopped halfway for a look at `ASK` and `TRYAGAIN`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::config::{OWN_PASSWORD, OWN_USER};
use super::{RedisCluster, RedisNode, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::wait::{LIMIT, Wait};

pub(super) const SLOTS: u16 = 16_384;

/// Keys moved by one `MIGRATE`.
const BATCH: &str = "100";

/// A range of slots and who has it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) primary: RedisNode,
}

/// Reads the answer to `CLUSTER SLOTS`.
pub(super) fn parse_slots(reply: &Reply, nodes: &[RedisNode]) -> Vec<Part> {
    let node = |reply: &Reply| {
        let [ip, port, ..] = reply.items() else { return None };
        let address: SocketAddr = format!("{}:{}", ip.text()?, port.integer()?).parse().ok()?;
        nodes.iter().find(|node| node.address() == address).cloned()
    };
    let part = |reply: &Reply| {
        let [first, last, primary, ..] = reply.items() else { return None };
        let slot = |reply: &Reply| u16::try_from(reply.integer()?).ok();
        Some(Part { slots: slot(first)?..=slot(last)?, primary: node(primary)? })
    };
    reply.items().iter().filter_map(part).collect()
}

/// A slot on its way from one primary to another; see [`RedisCluster::begin_move`].
#[derive(Debug)]
pub struct SlotMove {
    cluster: RedisCluster,
    slot: u16,
    source: RedisNode,
    target: RedisNode,
}

impl RedisCluster {
    /// Moves a slot with all its keys to another primary, and waits until every running node knows.
    ///
    /// # Errors
    /// `Rejected` when the target is no primary, `Lost` when one of both is down.
    pub async fn move_slot(&self, slot: u16, target: &RedisNode) -> Result<()> {
        let moving = self.begin_move(slot, target).await?;
        moving.move_keys().await?;
        moving.finish().await
    }

    /// Opens a slot for its move and moves nothing yet: the source answers `ASK` for keys it has not, and `TRYAGAIN` for
    /// commands on keys of both sides.
    ///
    /// # Errors
    /// Those of [`move_slot`](Self::move_slot), and `Config` when the target has the slot already.
    pub async fn begin_move(&self, slot: u16, target: &RedisNode) -> Result<SlotMove> {
        let source = self.owner_of_slot(slot).await?;
        if source.index() == target.index() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} has slot {slot} already", target.name()),
            ));
        }
        let number = slot.to_string();
        target.command(["CLUSTER", "SETSLOT", &number, "IMPORTING", &source.id().await?]).await?;
        source.command(["CLUSTER", "SETSLOT", &number, "MIGRATING", &target.id().await?]).await?;
        Ok(SlotMove { cluster: self.clone(), slot, source, target: target.clone() })
    }
}

impl SlotMove {
    /// Where the slot comes from.
    pub fn source(&self) -> &RedisNode {
        &self.source
    }

    /// Where it goes.
    pub fn target(&self) -> &RedisNode {
        &self.target
    }

    /// Moves single keys.
    ///
    /// # Errors
    /// `Rejected` when a server refuses.
    pub async fn migrate(&self, keys: &[&str]) -> Result<()> {
        let port = self.target.port().to_string();
        let mut words = vec![
            "MIGRATE",
            "127.0.0.1",
            &port,
            "",
            "0",
            "5000",
            "AUTH2",
            OWN_USER,
            OWN_PASSWORD,
            "KEYS",
        ];
        words.extend(keys);
        self.source.command(words).await?;
        Ok(())
    }

    /// Moves all keys that are left.
    ///
    /// # Errors
    /// Those of [`migrate`](Self::migrate).
    pub async fn move_keys(&self) -> Result<()> {
        let slot = self.slot.to_string();
        loop {
            let keys = self.source.command(["CLUSTER", "GETKEYSINSLOT", &slot, BATCH]).await?;
            let keys: Vec<String> = keys.items().iter().filter_map(Reply::text).collect();
            if keys.is_empty() {
                return Ok(());
            }
            self.migrate(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
    }

    /// Hands the slot over and waits until every node that runs and is not frozen knows.
    ///
    /// # Errors
    /// `Rejected` while the source still has keys of it.
    pub async fn finish(self) -> Result<()> {
        let (slot, id) = (self.slot.to_string(), self.target.id().await?);
        self.target.command(["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await?;
        self.source.command(["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await?;
        let mut wait = Wait::new(format!("everybody knowing that slot {slot} has moved"), LIMIT);
        for node in self.cluster.nodes().iter().filter(|node| node.is_responsive()) {
            loop {
                let part = self.cluster.part_of(node, self.slot).await?;
                if part.is_some_and(|part| part.primary.index() == self.target.index()) {
                    break;
                }
                wait.pause(format!("{} does not know", node.name())).await?;
            }
        }
        Ok(())
    }
}
