//! What a manager knows and believes, for whoever shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Core, Now, Record, View};
use crate::region::RegionName;

impl Core {
    pub(crate) fn regions(&self) -> &[RegionName] {
        &self.setup.regions
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    pub(crate) fn views(&self) -> &BTreeMap<RegionName, View> {
        &self.views
    }

    /// How many regions take writes; several only where they are known to do it at the same time.
    pub(crate) fn writable(&self) -> usize {
        let lasts = self.views.values().filter_map(|view| view.last.as_ref());
        let count = lasts.filter(|last| last.is_writable()).count();
        if self.several { count } else { count.min(1) }
    }

    /// Whether the record at the voters belongs to managers of other regions.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    pub(crate) fn lease_remaining(&self, now: Now) -> Duration {
        if self.leads(now) { self.election.remaining(now.mono) } else { Duration::ZERO }
    }

    pub(crate) fn well_for(&self, now: Now) -> Option<Duration> {
        self.well_since.map(|since| now.mono.saturating_sub(since))
    }

    /// The term under which this manager may act now.
    #[cfg(feature = "simulation")]
    pub(crate) fn leading_term(&self, now: Now) -> Option<u64> {
        self.adopted.filter(|_| self.leads(now))
    }

    /// Whether this manager believes that it holds the lease.
    #[cfg(feature = "simulation")]
    pub(crate) fn holds(&self, now: Now) -> bool {
        self.election.term(now.mono).is_some()
    }

    /// The epoch of the record that is being written.
    #[cfg(feature = "simulation")]
    pub(crate) fn writing_epoch(&self) -> Option<u64> {
        self.writing
            .as_ref()
            .map(|writing| writing.record.epoch)
            .or_else(|| Some(self.record.as_ref()?.epoch))
    }
}
