//! Watching: sources of topologies that somebody else decides on, and observers that are asked before a failover.

mod dns;
mod patroni;
mod probe;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::error::BoxError;
use resonant_common::join::{Node, Topology};

pub use self::dns::DnsSource;
pub use self::patroni::PatroniSource;
pub use self::probe::ProbeSource;
use crate::core::{Event, EventKind};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::Shared;
use crate::region::{RegionName, RegionTarget};

/// Who is there and who is the primary, as a source knows it. Epochs are given by the manager.
///
/// URLs may hold passwords: `Debug` shows names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The primary's name, if there is one now.
    pub primary: Option<String>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Where the source has one: a number that rises with each new primary, such as PostgreSQL's timeline. A sighting
    /// with a lower one is older and left alone.
    pub generation: Option<u64>,
}

impl fmt::Debug for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        f.debug_struct("Sighting")
            .field("primary", &self.primary)
            .field("nodes", &nodes)
            .field("generation", &self.generation)
            .finish()
    }
}

/// Somebody who knows the topology.
///
/// # Contract
///
/// An answer is the source's newest. No answer is an error, never an empty topology: the last one holds meanwhile.
#[async_trait]
pub trait TopologySource: fmt::Debug + Send + Sync + 'static {
    /// Asks for the topology.
    async fn sight(&self) -> Result<Sighting>;
}

/// Somebody in another place who can tell whether the primary lives, before this manager believes itself.
#[async_trait]
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Whether it hears the region now. An error counts as no.
    async fn hears(&self, region: &RegionTarget) -> Result<bool>;
}

/// A closure as a source.
#[derive(Clone)]
pub struct FnSource<F>(F);

impl<F> FnSource<F> {
    /// A source that asks this closure.
    ///
    /// ```
    /// use resonant_ha::observe::{FnSource, Sighting};
    ///
    /// # async fn ask_my_registry() -> std::io::Result<Sighting> { Ok(Sighting::default()) }
    /// let source = FnSource::new(|| async { ask_my_registry().await });
    /// ```
    pub fn new<Fut, E>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Sighting, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        Self(ask)
    }
}

impl<F> fmt::Debug for FnSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnSource")
    }
}

#[async_trait]
impl<F, Fut, E> TopologySource for FnSource<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Sighting, E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    async fn sight(&self) -> Result<Sighting> {
        (self.0)().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "observe", "the closure failed").with_source(error)
        })
    }
}

/// Asks a source again and again, and gives what changes a higher epoch.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    source: Arc<dyn TopologySource>,
}

impl Watch {
    pub(crate) fn new(source: Arc<dyn TopologySource>) -> Self {
        Self { source }
    }

    pub(crate) async fn run(&self, shared: &Shared) {
        let (mut failing, mut newest) = (false, None);
        loop {
            let limit = shared.config.probe_timeout;
            let asked = tokio::time::timeout(limit, self.source.sight()).await;
            let asked = asked.unwrap_or_else(|_| {
                let message = format!("no answer within {limit:?}");
                Err(Error::new(ErrorKind::TimedOut, "observe", message))
            });
            match asked {
                Ok(sighting) => {
                    failing = false;
                    // A node that has not heard of the last change answers with what was.
                    if sighting.generation >= newest {
                        newest = sighting.generation.or(newest);
                        take(shared, sighting);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(cluster = %shared.name, %error, "the source cannot be asked; the last topology holds");
                    }
                }
            }
            tokio::time::sleep(shared.config.poll_interval).await;
        }
    }
}

fn take(shared: &Shared, sighting: Sighting) {
    let primary = sighting.primary.as_deref().map(RegionName::from);
    let mut turned = None;
    shared.topology.send_if_modified(|current| {
        let same = current.primary == sighting.primary && current.nodes == sighting.nodes;
        // While there is none, writes wait at the one that was: it may be back.
        let nobody = sighting.primary.is_none() && current.epoch > 0;
        if same || nobody || sighting.nodes.is_empty() {
            return false;
        }
        let epoch = current.epoch + 1;
        if current.primary != sighting.primary {
            turned = Some(epoch);
        }
        *current = Topology { epoch, primary: sighting.primary, nodes: sighting.nodes };
        true
    });
    if let Some(epoch) = turned {
        let at = crate::manager::wall();
        let event = Event { at, epoch, kind: EventKind::Observed { primary } };
        shared.meter.count(&event);
        shared.remember(&event);
    }
}
