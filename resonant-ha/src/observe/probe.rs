//! The topology by looking at the regions themselves.

use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::join::Node;

use super::{Sighting, TopologySource};
use crate::error::{Error, ErrorKind, Result};
use crate::region::{RegionBackend, RegionName, Role};

/// Probes each region: the primary is the one that takes writes; of several, the one whose data reach furthest. Where
/// regions are plain services, it is the first that is well.
#[derive(Debug, Clone)]
pub struct ProbeSource {
    regions: Vec<(RegionName, Arc<dyn RegionBackend>)>,
}

impl ProbeSource {
    /// A source that probes these regions, the preferred one first.
    pub fn new(regions: Vec<(RegionName, Arc<dyn RegionBackend>)>) -> Self {
        Self { regions }
    }
}

#[async_trait]
impl TopologySource for ProbeSource {
    async fn sight(&self) -> Result<Sighting> {
        let probes = self.regions.iter().map(|(region, backend)| async move {
            // One that hangs must not keep the answers of the others.
            let limit = std::time::Duration::from_millis(500);
            let seen = tokio::time::timeout(limit, backend.probe(limit)).await;
            (region, backend, seen.ok().and_then(Result::ok))
        });
        let seen = futures::future::join_all(probes).await;
        if seen.iter().all(|(_, _, seen)| seen.is_none()) {
            return Err(Error::new(ErrorKind::Unavailable, "observe", "no region answers"));
        }
        let mut primary = None;
        for (region, _, seen) in &seen {
            let Some(seen) = seen.as_ref().filter(|seen| seen.sick.is_none()) else { continue };
            let better = match (seen.role, &primary) {
                (Role::Standby, _) => false,
                (Role::Service, other) => other.is_none(),
                (Role::Primary, other) => {
                    other.as_ref().is_none_or(|(_, reach)| seen.reach > *reach)
                }
            };
            if better {
                primary = Some((region.as_str().to_owned(), seen.reach));
            }
        }
        let nodes = seen.iter().map(|(region, backend, _)| Node {
            name: region.as_str().to_owned(),
            url: backend.url(),
        });
        let nodes = nodes.collect();
        Ok(Sighting { primary: primary.map(|(name, _)| name), nodes, generation: None })
    }
}
