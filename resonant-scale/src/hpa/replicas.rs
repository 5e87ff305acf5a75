//! From one metric to a number of replicas.
//!
//! Integers where Kubernetes has integers and `f64` where it has those, in the same order, so that the same inputs give the
//! same numbers to the last unit.

use std::collections::HashMap;

use tokio::time::Instant;

use super::config::{HpaConfig, MOST, MetricKind, MetricSpec, Target, milli};
use super::groups::Groups;
use super::observed::{Instance, Observed, Phase, Reading, Sample};

/// What a metric proposes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Proposal {
    pub(crate) replicas: u32,
    /// What was measured, in the unit of the target.
    pub(crate) value: f64,
    /// Value by target, of which the decision was made.
    pub(crate) ratio: f64,
}

/// What `metric` proposes, or why it proposes nothing.
pub(crate) fn propose(
    config: &HpaConfig,
    metric: &MetricSpec,
    observed: &Observed,
    now: Instant,
) -> Result<Proposal, String> {
    let reading = observed.readings.get(&metric.name).ok_or("nothing was measured")?;
    let calculator = Calculator { config, observed, now };
    match (reading, metric.kind, metric.target) {
        (Reading::Failed(why), ..) => Err(why.clone()),
        (Reading::Total(total), MetricKind::External, Target::Value(target)) => {
            calculator.of_value(number(*total)?, milli(target))
        }
        (Reading::Total(total), MetricKind::External, Target::AverageValue(target)) => {
            Ok(calculator.of_average(number(*total)?, milli(target)))
        }
        (Reading::PerInstance(samples), kind, Target::Utilization(percent)) => {
            calculator.of_utilization(samples, kind, percent)
        }
        (Reading::PerInstance(samples), kind, Target::AverageValue(target))
            if kind != MetricKind::External =>
        {
            calculator.of_plain(samples, kind, milli(target))
        }
        (Reading::Total(_), ..) => {
            Err("one value was measured, but one per instance is needed".into())
        }
        (Reading::PerInstance(_), ..) => {
            Err("values per instance were measured, but one for all is needed".into())
        }
    }
}

fn number(value: f64) -> Result<i64, String> {
    if value.is_finite() {
        Ok(milli(value))
    } else {
        Err(format!("{value} is no number to scale by"))
    }
}

/// The next whole number of replicas, saturating.
pub(crate) fn ceil(replicas: f64) -> u32 {
    (replicas.ceil() as u32).min(MOST)
}

struct Calculator<'a> {
    config: &'a HpaConfig,
    observed: &'a Observed,
    now: Instant,
}

impl Calculator<'_> {
    fn within(&self, ratio: f64) -> bool {
        1.0 - self.config.tolerance <= ratio && ratio <= 1.0 + self.config.tolerance
    }

    fn current(&self) -> u32 {
        self.observed.scale.wanted
    }

    fn of_utilization(
        &self,
        samples: &HashMap<String, Sample>,
        kind: MetricKind,
        percent: u32,
    ) -> Result<Proposal, String> {
        let requests = self.requests(kind);
        let mut counted = self.counted(samples, kind)?;
        // Kubernetes refuses the whole metric for one instance without a request.
        let requests = requests?;
        let (utilization, _) = utilization(&counted.values, &requests)?;
        let ratio = utilization as f64 / f64::from(percent);
        let proposal = |replicas| Proposal { replicas, value: utilization as f64, ratio };
        let unready_matter = !counted.groups.unready.is_empty() && ratio > 1.0;
        if !unready_matter && counted.groups.missing.is_empty() {
            let direct = ceil(ratio * counted.groups.ready as f64);
            return Ok(proposal(if self.within(ratio) { self.current() } else { direct }));
        }
        if ratio < 1.0 {
            let fallback = i64::from(percent.max(100));
            for name in &counted.groups.missing {
                let request = requests.get(name).copied().unwrap_or_default();
                counted.values.insert(name, request.saturating_mul(fallback) / 100);
            }
        } else if ratio > 1.0 {
            counted.values.extend(counted.groups.missing.iter().map(|name| (*name, 0)));
        }
        if unready_matter {
            counted.values.extend(counted.groups.unready.iter().map(|name| (*name, 0)));
        }
        let (filled, _) = self::utilization(&counted.values, &requests)?;
        let filled = filled as f64 / f64::from(percent);
        Ok(proposal(self.after_filling(ratio, filled, counted.values.len())))
    }

    fn of_plain(
        &self,
        samples: &HashMap<String, Sample>,
        kind: MetricKind,
        target: i64,
    ) -> Result<Proposal, String> {
        let mut counted = self.counted(samples, kind)?;
        let average = average(&counted.values);
        let ratio = average as f64 / target as f64;
        let proposal = |replicas| Proposal { replicas, value: average as f64 / 1000.0, ratio };
        let unready_matter = !counted.groups.unready.is_empty() && ratio > 1.0;
        if !unready_matter && counted.groups.missing.is_empty() {
            let direct = ceil(ratio * counted.groups.ready as f64);
            return Ok(proposal(if self.within(ratio) { self.current() } else { direct }));
        }
        // Not the same as for utilisation where the ratio is 1 exactly: so it is upstream.
        let fill = if ratio < 1.0 { target } else { 0 };
        counted.values.extend(counted.groups.missing.iter().map(|name| (*name, fill)));
        if unready_matter {
            counted.values.extend(counted.groups.unready.iter().map(|name| (*name, 0)));
        }
        let filled = self::average(&counted.values) as f64 / target as f64;
        Ok(proposal(self.after_filling(ratio, filled, counted.values.len())))
    }

    /// The number after unknown instances were counted with careful values: never the other way than before.
    fn after_filling(&self, ratio: f64, filled: f64, counted: usize) -> u32 {
        let flips = (ratio < 1.0 && filled > 1.0) || (ratio > 1.0 && filled < 1.0);
        if self.within(filled) || flips {
            return self.current();
        }
        let replicas = ceil(filled * counted as f64);
        let against = (filled < 1.0 && replicas > self.current())
            || (filled > 1.0 && replicas < self.current());
        if against { self.current() } else { replicas }
    }

    fn of_value(&self, total: i64, target: i64) -> Result<Proposal, String> {
        let ratio = total as f64 / target as f64;
        let replicas = if self.current() == 0 {
            ceil(ratio)
        } else if self.within(ratio) {
            self.current()
        } else {
            ceil(ratio * f64::from(self.ready()?))
        };
        Ok(Proposal { replicas, value: total as f64 / 1000.0, ratio })
    }

    fn of_average(&self, total: i64, target: i64) -> Proposal {
        let existing = self.observed.scale.existing;
        // Without any this is infinite or no number, both of which are outside the tolerance.
        let ratio = total as f64 / (target as f64 * f64::from(existing));
        let replicas =
            if self.within(ratio) { existing } else { ceil(total as f64 / target as f64) };
        let value = (total as f64 / f64::from(existing.max(1))).ceil() / 1000.0;
        Proposal { replicas, value, ratio: if ratio.is_nan() { 0.0 } else { ratio } }
    }

    fn ready(&self) -> Result<u32, String> {
        if let Some(ready) = self.observed.scale.ready {
            return Ok(ready);
        }
        if self.observed.instances.is_empty() {
            return Err("no instances are known".into());
        }
        let ready =
            |it: &&Instance| it.phase == Phase::Running && it.ready.is_some_and(|(ready, _)| ready);
        Ok(u32::try_from(self.observed.instances.iter().filter(ready).count()).unwrap_or(MOST))
    }

    fn requests(&self, kind: MetricKind) -> Result<HashMap<&str, i64>, String> {
        let request = |it: &Instance| match kind {
            MetricKind::Cpu => it.cpu_request,
            _ => it.memory_request,
        };
        let mut requests = HashMap::new();
        for instance in &self.observed.instances {
            let request = request(instance).ok_or_else(|| {
                let kind = kind.as_str();
                format!("{} requests no {kind} of which to take percents", instance.name)
            })?;
            requests.insert(instance.name.as_str(), milli(request));
        }
        Ok(requests)
    }

    /// The samples that count, in thousandths.
    fn counted<'a>(
        &'a self,
        samples: &'a HashMap<String, Sample>,
        kind: MetricKind,
    ) -> Result<Counted<'a>, String> {
        if samples.is_empty() {
            return Err("nothing was measured".into());
        }
        if self.observed.instances.is_empty() {
            return Err("no instances are known".into());
        }
        let groups = Groups::of(&self.observed.instances, samples, kind, self.config, self.now);
        let aside = |name: &str| groups.unready.contains(name) || groups.ignored.contains(name);
        let mut values = HashMap::new();
        for (name, sample) in samples.iter().filter(|(name, _)| !aside(name)) {
            values.insert(name.as_str(), number(sample.value)?);
        }
        if values.is_empty() {
            return Err("no instance that counts was measured; they may not be ready".into());
        }
        Ok(Counted { groups, values })
    }
}

struct Counted<'a> {
    groups: Groups<'a>,
    values: HashMap<&'a str, i64>,
}

/// Percent of the requests that is used, cut to a whole number, and the average use.
fn utilization(
    values: &HashMap<&str, i64>,
    requests: &HashMap<&str, i64>,
) -> Result<(i64, i64), String> {
    let (mut used, mut requested, mut entries) = (0_i64, 0_i64, 0_i64);
    for (name, value) in values {
        if let Some(request) = requests.get(name) {
            used = used.saturating_add(*value);
            requested = requested.saturating_add(*request);
            entries += 1;
        }
    }
    if entries == 0 {
        return Err("what was measured belongs to no known instance".into());
    }
    if requested <= 0 {
        return Err("the instances request nothing of which to take percents".into());
    }
    Ok((used.saturating_mul(100) / requested, used / entries.max(1)))
}

fn average(values: &HashMap<&str, i64>) -> i64 {
    let total = values.values().fold(0_i64, |total, value| total.saturating_add(*value));
    total / i64::try_from(values.len()).unwrap_or(i64::MAX).max(1)
}
