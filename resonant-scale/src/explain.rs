//! How a decision came about, step by step.

use serde::Serialize;

use crate::decision::{Condition, ConditionKind, Decision, MetricState, Reason};

/// How a decision came about: from what there was, over what each metric wanted and what windows and limits left of it, to what
/// was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// When it was decided, RFC 3339.
    pub at: String,
    /// How many were asked for before.
    pub from: u32,
    /// How many were asked for then.
    pub to: u32,
    /// The one reason that best explains it.
    pub reason: Reason,
    /// The same in a line for a person.
    pub text: String,
    /// The way from the one number to the other.
    pub steps: Vec<Step>,
    /// Every metric with its proposal.
    pub metrics: Vec<MetricState>,
    /// What can be said of the scaling as such.
    pub conditions: Vec<Condition>,
    /// What the bounds and rates would let a person ask for now.
    pub allowed: Allowance,
}

/// A step on the way to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// `current`, `metric`, `metrics`, `windows`, `limits` or `decision`.
    pub name: &'static str,
    /// How many replicas it comes to. `None` if it says nothing.
    pub replicas: Option<u32>,
    /// Why, for a person.
    pub text: String,
}

/// The fewest and the most replicas that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Allowance {
    /// The fewest.
    pub fewest: u32,
    /// The most.
    pub most: u32,
}

impl Allowance {
    pub(crate) fn new(fewest: u32, most: u32) -> Self {
        Self { fewest, most }
    }
}

impl Decision {
    /// How it came about, in the order in which it did.
    ///
    /// ```
    /// # use resonant_scale::{Hpa, HpaConfig, MetricSpec, Observed, Reading, Scale};
    /// # let config = HpaConfig::new(2, 50).metric(MetricSpec::external_average("queue_depth", 10.0));
    /// # let mut hpa = Hpa::new(config)?;
    /// let observed = Observed {
    ///     scale: Scale::steady(3),
    ///     readings: [("queue_depth".into(), Reading::Total(580.0))].into(),
    ///     ..Observed::default()
    /// };
    /// let decision = hpa.decide(&observed, tokio::time::Instant::now());
    /// let steps = decision.steps();
    /// let told: Vec<_> = steps.iter().map(|step| (step.name, step.replicas)).collect();
    /// assert_eq!(told, [
    ///     ("current", Some(3)),
    ///     ("metric", Some(58)),
    ///     ("metrics", Some(58)),
    ///     ("windows", Some(58)),
    ///     ("limits", Some(6)),
    ///     ("decision", Some(6)),
    /// ]);
    /// assert_eq!(steps[4].text, "the rate of scaling up");
    /// # Ok::<(), resonant_scale::Error>(())
    /// ```
    pub fn steps(&self) -> Vec<Step> {
        let step = |name, replicas, text: String| Step { name, replicas, text };
        let mut steps = vec![step("current", Some(self.from), "asked for now".into())];
        steps.extend(self.metrics.iter().map(|it| step("metric", it.proposal, it.to_string())));
        if !self.metrics.is_empty() {
            let text = match (&self.metric, self.metrics.len()) {
                (None, _) => "they do not say how many; nothing is taken away".into(),
                (Some(name), 1) => format!("{name} decides"),
                (Some(name), _) => format!("{name} decides: it asks for the most"),
            };
            steps.push(step("metrics", self.recommended, text));
        }
        if let Some(stabilized) = self.stabilized {
            let able = self.condition(ConditionKind::AbleToScale).map(|it| it.reason);
            let text = match able {
                Some(Reason::ScaleUpStabilized | Reason::ScaleDownStabilized)
                    if self.recommended != Some(stabilized) =>
                {
                    able.map_or("", Reason::text)
                }
                _ if self.recommended == Some(stabilized) => "no window holds it back",
                _ => "the windows hold it back",
            };
            steps.push(step("windows", Some(stabilized), text.into()));
        }
        if let Some(limited) = self.limited {
            let condition = self.condition(ConditionKind::ScalingLimited);
            let text = match condition {
                Some(condition) if self.stabilized.or(self.recommended) != Some(limited) => {
                    condition.reason.text()
                }
                _ => "within bounds and rates",
            };
            steps.push(step("limits", Some(limited), text.into()));
        }
        steps.push(step("decision", Some(self.to), self.reason.text().into()));
        steps
    }
}
