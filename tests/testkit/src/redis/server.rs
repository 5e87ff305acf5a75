//! A server alone.

use std::ops::Deref;

use super::RedisNode;
use super::config::{Options, shared_options};
use crate::error::Result;

/// How a standalone [`Redis`] is built. The default has no password, no TLS and keeps nothing on disk.
#[derive(Clone, Debug, Default)]
pub struct RedisBuilder {
    options: Options,
}

impl RedisBuilder {
    shared_options!();

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// `MissingBinary`, `Config` for an impossible login, `Exited` and `TimedOut` when it does not come up.
    pub async fn start(self) -> Result<Redis> {
        let node = RedisNode::prepare(0, &self.options, None)?;
        node.start().await?;
        Ok(Redis { node })
    }
}

/// A standalone Redis server. What can be asked of it and done to it is on [`RedisNode`].
#[derive(Clone, Debug)]
pub struct Redis {
    node: RedisNode,
}

impl Redis {
    /// A builder.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Starts a server with the defaults.
    ///
    /// # Errors
    /// Those of [`RedisBuilder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }
}

impl Deref for Redis {
    type Target = RedisNode;

    fn deref(&self) -> &RedisNode {
        &self.node
    }
}
