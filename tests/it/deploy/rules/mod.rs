//! What must hold between the files.

mod sizes;
mod times;
mod wiring;

use serde_json::Value;

use super::Files;
use super::files::list;
use super::model::Model;

/// Its name, and what is wrong by it: nothing, if all is well.
type Rule = (&'static str, fn(&Model) -> Vec<String>);

pub(super) const RULES: [Rule; 18] = [
    ("one port", wiring::one_port),
    ("names lead somewhere", wiring::names),
    ("pools fit PgBouncer", sizes::pools_fit_pgbouncer),
    ("PgBouncer fits the servers", sizes::pgbouncer_fits_the_servers),
    ("the grace period covers the end", times::grace),
    ("readiness is noticed while draining", times::drain),
    ("requests under way may finish", times::requests_finish),
    ("limits of time are nested", times::nested),
    ("probes and start-up", times::probes),
    ("bounds are the guide's", sizes::bounds),
    ("partitions for all workers", sizes::partitions),
    ("requests below limits", sizes::resources),
    ("disruption budgets", sizes::budgets),
    ("hardened pods", sizes::hardened),
    ("hosts are the same everywhere", wiring::hosts),
    ("one image in three roles", wiring::image),
    ("the metric of the queue", wiring::metric),
    ("what was not run says so", wiring::not_run),
];

/// What is wrong by one rule.
pub(super) fn broken(rule: &str, model: &Model) -> Vec<String> {
    let known = RULES.iter().find(|it| it.0 == rule);
    known.unwrap_or_else(|| panic!("there is no rule {rule}")).1(model)
}

#[test]
fn the_files_agree_with_each_other() {
    let model = Model::new(&Files::load());
    for (rule, _) in RULES {
        assert_eq!(broken(rule, &model), Vec::<String>::new(), "{rule}");
    }
}

/// Collects what does not hold.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.0.push(what.into());
        }
    }

    /// `below` is less than `above`; not a number is not.
    fn below(&mut self, below: (&str, f64), above: (&str, f64)) {
        self.unless(
            below.1 < above.1,
            format!("{} ({}) is not below {} ({})", below.0, below.1, above.0, above.1),
        );
    }

    fn at_most(&mut self, low: (&str, f64), high: (&str, f64)) {
        self.unless(
            low.1 <= high.1,
            format!("{} ({}) is above {} ({})", low.0, low.1, high.0, high.1),
        );
    }

    fn same(&mut self, what: &str, left: f64, right: f64) {
        self.unless(left == right, format!("{what}: {left} is not {right}"));
    }
}

fn compose_words(model: &Model, service: &str) -> Vec<String> {
    let service = &model.compose["services"][service];
    let texts = list(service, "command").iter().filter_map(Value::as_str);
    texts.map(ToOwned::to_owned).collect()
}
