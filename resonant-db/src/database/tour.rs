//! From node to node, until one answers.

use crate::{Error, ErrorKind, Result};

use super::Inner;
use super::node::Node;
use super::strategy::Choice;
use super::verdicts::{Stage, read_elsewhere};

/// The nodes a read is sent to, one after the other: each at most once, as the strategy chooses, and after a failure
/// within the retry budget.
pub(super) struct Tour<'a> {
    inner: &'a Inner,
    only_primary: bool,
    tried: Vec<Choice>,
    last: Option<Error>,
}

impl<'a> Tour<'a> {
    pub(super) fn new(inner: &'a Inner, only_primary: bool) -> Self {
        Self { inner, only_primary, tried: Vec::new(), last: None }
    }

    /// The next node, or `None` when no more are asked.
    pub(super) fn next(&mut self) -> Option<&'a Node> {
        let inner = self.inner;
        let (choice, node) = match self.only_primary {
            true if self.tried.is_empty() => (Choice::Primary, &inner.primary),
            true => return None,
            false => inner.choose(&self.tried)?,
        };
        if self.last.is_some() {
            if !inner.budget.withdraw() {
                return None;
            }
            inner.meters.read_retries.increment(1);
        }
        self.tried.push(choice);
        inner.count_routed(node.role);
        Some(node)
    }

    /// Notes how the node failed; answers the error when no other node would do better.
    pub(super) fn failed(&mut self, node: &Node, stage: Stage, error: Error) -> Result<()> {
        self.inner.note_failure(node, &error);
        if !read_elsewhere(error.kind(), stage) {
            return Err(error);
        }
        self.last = Some(error);
        Ok(())
    }

    /// The error after the last node.
    pub(super) fn end(self) -> Error {
        match self.last {
            Some(error) if self.tried.len() > 1 => error.with_retries_exhausted(),
            Some(error) => error,
            None => {
                let message = "no node has come as far as the session's last write; try again";
                Error::new(ErrorKind::Unavailable, "query", message)
            }
        }
    }
}
