//! What can be measured, one file an area.

mod batch;
mod cache;
mod db;
mod hash;
mod pool;
mod queue;
mod rabbitmq;
mod scale;
mod sharding;
mod telemetry;

use crate::Outcome;
use crate::report::Report;

/// An area: its name on the command line and in the document, what it is about, the crates it compares with.
pub(crate) struct Area {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) peers: &'static [&'static str],
    pub(crate) run: fn(&mut Report) -> Outcome,
}

/// All areas, in the order of the document.
pub(crate) const ALL: [Area; 9] = [
    pool::AREA,
    db::AREA,
    sharding::AREA,
    batch::AREA,
    cache::AREA,
    queue::AREA,
    hash::AREA,
    scale::AREA,
    telemetry::AREA,
];

/// The area of that name.
pub(crate) fn find(name: &str) -> Outcome<&'static Area> {
    let names: Vec<_> = ALL.iter().map(|area| area.name).collect();
    let unknown = || format!("there is no area {name}; there are {}", names.join(", "));
    const AREAS: &[Area] = &ALL;
    Ok(AREAS.iter().find(|area| area.name == name).ok_or_else(unknown)?)
}
