//! From node to node, until one answers.

use crate::replica_set::{Pick, Tour as Nodes, Wish};
use crate::{Error, ErrorKind, Result};

use super::Inner;
use super::node::{Handle, Report};
use super::verdicts::{Stage, read_elsewhere};

/// The nodes a read is sent to, and what became of it.
pub(super) struct Tour {
    nodes: Nodes<Handle>,
    wish: Wish,
    last: Option<Error>,
}

impl Tour {
    pub(super) fn new(inner: &Inner, wish: Wish) -> Self {
        Self { nodes: inner.set.tour_with(wish), wish, last: None }
    }

    /// The next node, or `None` when no more are asked.
    pub(super) fn next(&mut self) -> Option<Pick<Handle>> {
        self.nodes.next_node()
    }

    /// Notes how the node failed; answers the error when no other node would do better.
    pub(super) fn failed(&mut self, pick: &Pick<Handle>, stage: Stage, error: Error) -> Result<()> {
        pick.note(&error);
        if !read_elsewhere(error.kind(), stage) {
            return Err(error);
        }
        self.nodes.moves_on();
        self.last = Some(error);
        Ok(())
    }

    /// The error after the last node.
    pub(super) fn end(self) -> Error {
        let message = match self.last {
            Some(error) if self.nodes.asked() > 1 => return error.with_retries_exhausted(),
            Some(error) => return error,
            None if self.wish.only_primary => "no node takes writes now; try again",
            None if self.wish.own_writes => {
                "no node has come as far as the session's last write; try again"
            }
            None if self.wish.max_staleness.is_some() => {
                "no node is known to be as fresh as asked for; try again or allow the primary to answer reads"
            }
            None => "no node may answer: the read strategy rules out those that there are",
        };
        Error::new(ErrorKind::Unavailable, "query", message)
    }
}
