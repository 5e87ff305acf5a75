//! The metrics of a manager, from the family's table.

use std::collections::BTreeMap;

use resonant_common::telemetry::names::{
    HA_DETECTION, HA_EPOCH, HA_EVENTS, HA_LEASE_REMAINING, HA_PRIMARIES, HA_PROMOTION, HA_REFUSALS,
    HA_REGION_UP, HA_STATE,
};
use resonant_common::telemetry::{Counter, Gauge, Histogram};

use super::status::{self, State};
use crate::core::{Core, Event, EventKind, Now};
use crate::region::RegionName;

#[derive(Debug)]
pub(crate) struct Meter {
    cluster: String,
    states: [Gauge; 5],
    epoch: Gauge,
    lease: Gauge,
    primaries: Gauge,
    detection: Histogram,
    regions: BTreeMap<RegionName, Gauge>,
}

impl Meter {
    pub(super) fn new(cluster: &str, regions: &[RegionName]) -> Self {
        let label = [("cluster", cluster)];
        Self {
            states: State::ALL.map(|state| {
                Gauge::new(&HA_STATE, &[("cluster", cluster), ("state", state.as_str())])
            }),
            epoch: Gauge::new(&HA_EPOCH, &label),
            lease: Gauge::new(&HA_LEASE_REMAINING, &label),
            primaries: Gauge::new(&HA_PRIMARIES, &label),
            detection: Histogram::new(&HA_DETECTION, &label),
            regions: regions
                .iter()
                .map(|region| {
                    let labels = [("cluster", cluster), ("region", region.as_str())];
                    (region.clone(), Gauge::new(&HA_REGION_UP, &labels))
                })
                .collect(),
            cluster: cluster.to_owned(),
        }
    }

    pub(super) fn show(&self, core: &Core, now: Now) {
        let state = status::state(core, now);
        for (gauge, known) in self.states.iter().zip(State::ALL) {
            gauge.set(f64::from(u8::from(known == state)));
        }
        self.epoch.set(core.record().map_or(0, |record| record.published) as f64);
        self.lease.set(core.lease_remaining(now).as_secs_f64());
        self.primaries.set(core.writable() as f64);
        for (region, gauge) in &self.regions {
            let well = core.views().get(region).is_some_and(crate::core::View::is_well);
            gauge.set(f64::from(u8::from(well)));
        }
    }

    pub(crate) fn count(&self, event: &Event) {
        self.counter(false, event.kind.as_str()).increment(1);
        match &event.kind {
            EventKind::Refused { reason, .. } => self.counter(true, reason.as_str()).increment(1),
            EventKind::Intent { detection: Some(took), .. } => {
                self.detection.record_duration(*took)
            }
            EventKind::Published { kind, took: Some(took), .. } => {
                let labels = [("cluster", self.cluster.as_str()), ("kind", kind.as_str())];
                Histogram::new(&HA_PROMOTION, &labels).record_duration(*took);
            }
            _ => {}
        }
    }

    fn counter(&self, refusal: bool, code: &'static str) -> Counter {
        let (metric, label) =
            if refusal { (&HA_REFUSALS, "reason") } else { (&HA_EVENTS, "event") };
        let labels = [("cluster", self.cluster.as_str()), (label, code)];
        Counter::new(metric, &labels)
    }
}
