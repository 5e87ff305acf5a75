//! The trait of a region.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::{Frozen, Observation, Pledge, Proof, Reach, RegionName};
use crate::error::{Error, ErrorKind, Result};

/// Where a region's data are reached. URLs hold passwords: its `Debug` shows the region alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegionTarget {
    /// The region.
    pub region: RegionName,
    /// The URL clients use.
    pub url: String,
    /// The URL standbys use.
    pub replication_url: String,
}

impl fmt::Debug for RegionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionTarget").field("region", &self.region).finish_non_exhaustive()
    }
}

/// One region, as the manager sees and moves it.
///
/// # Contract
///
/// - Every order names an epoch and an operation. The region remembers the highest it has obeyed, durably, and refuses
///   with [`ErrorKind::Fenced`] what [`Pledge::admits`] does not. Looking at the pledge and obeying are one critical
///   section on the region itself: of two managers, the older one's order never takes effect after the newer one's.
/// - Every order can be given again: what is done already is done.
/// - [`freeze`](RegionBackend::freeze) on a standby returns only when it receives nothing more, and everything it has
///   received can be read; until then it fails with [`ErrorKind::Unsettled`], however far the standby says it is. On a
///   primary it only pledges and looks.
/// - [`fence`](RegionBackend::fence) returns a proof only when the server is known to be unable to acknowledge a write.
///   "It does not answer" is no proof. The manager puts the region's name into it.
/// - [`promote`](RegionBackend::promote) writes the epoch row before anybody else can write.
/// - [`confirm`](RegionBackend::confirm) returns only when as many standbys as commits wait for have the epoch row.
/// - A dropped future leaves the order obeyed or not, never half obeyed; it is given again.
/// - The manager bounds each call in time; a backend need not.
///
/// A backend without data (a plain service) leaves everything but `probe` to the defaults of
/// [`ServiceRegion`](crate::backend::ServiceRegion).
#[async_trait]
pub trait RegionBackend: fmt::Debug + Send + Sync + 'static {
    /// Where clients reach the region's data.
    fn url(&self) -> String;

    /// Where its standbys reach it. The same, unless they log in as somebody else.
    fn replication_url(&self) -> String {
        self.url()
    }

    /// The name by which other regions' [`commits`](Observation::commits) wait for this one. The region's own name, if none.
    fn standby_name(&self) -> Option<&str> {
        None
    }

    /// Whether [`fence`](RegionBackend::fence) can work while the region itself cannot be reached.
    fn can_fence(&self) -> bool {
        false
    }

    /// Looks at the region; a primary proves that it can write. A standby hears the primary if it has heard from it within
    /// `recent`, which is one probe interval.
    async fn probe(&self, recent: Duration) -> Result<Observation>;

    /// Makes the server unable to acknowledge writes.
    async fn fence(&self, order: &Pledge) -> Result<Proof> {
        let _ = order;
        Err(unsupported("fence"))
    }

    /// Pledges the region and stops what it receives.
    async fn freeze(&self, order: &Pledge) -> Result<Frozen>;

    /// Ends the primary's writes in order and waits until `heir` has all of them.
    async fn demote(
        &self,
        order: &Pledge,
        heir: &dyn RegionBackend,
    ) -> Result<(Reach, Option<Proof>)> {
        let _ = (order, heir);
        Err(unsupported("demote"))
    }

    /// Makes the region take writes, its epoch row first; one that is the primary already takes them again. Returns the
    /// timeline.
    async fn promote(&self, order: &Pledge) -> Result<u32>;

    /// Makes a frozen standby receive from `primary`.
    async fn repoint(&self, order: &Pledge, primary: &RegionTarget) -> Result<()>;

    /// Commits the epoch row.
    async fn confirm(&self, order: &Pledge) -> Result<()>;

    /// Brings the region back as a standby of `primary`; what only it had is given up. Returns how much that was.
    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<Option<u64>> {
        let _ = (order, primary);
        Err(unsupported("rejoin"))
    }
}

fn unsupported(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, operation, "this backend cannot do that by itself")
}
