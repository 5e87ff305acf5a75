//! What the crates count and trace, seen from a service: names, docs, rules, dashboards, recorders, traces.

mod budget;
mod names;
mod promql;
mod recorders;
mod scene;
mod traces;

pub(crate) use self::names::{repository, rules};
pub(crate) use self::scene::Scene;
