//! What is to be done, and why.

use std::fmt;

use serde::Serialize;

/// What a policy decided, with everything it was decided from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// How many replicas were asked for before.
    pub from: u32,
    /// How many to ask for now.
    pub to: u32,
    /// What the metrics alone ask for; `None` if they were not looked at or say nothing.
    pub recommended: Option<u32>,
    /// The same after the stabilisation windows.
    pub stabilized: Option<u32>,
    /// The same within rates and bounds, before what forbids it at all.
    pub limited: Option<u32>,
    /// The metric that decided.
    pub metric: Option<String>,
    /// The one reason that best explains `to`.
    pub reason: Reason,
    /// Every metric with its proposal.
    pub metrics: Vec<MetricState>,
    /// What can be said of the scaling as such.
    pub conditions: Vec<Condition>,
}

impl Decision {
    pub(crate) fn keep(current: u32, reason: Reason) -> Self {
        Self {
            from: current,
            to: current,
            recommended: None,
            stabilized: None,
            limited: None,
            metric: None,
            reason,
            metrics: Vec::new(),
            conditions: Vec::new(),
        }
    }

    /// Whether anything is to be done.
    pub fn changes(&self) -> bool {
        self.from != self.to
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        match self.to.cmp(&self.from) {
            std::cmp::Ordering::Greater => Direction::Up,
            std::cmp::Ordering::Less => Direction::Down,
            std::cmp::Ordering::Equal => Direction::None,
        }
    }

    /// The condition of this kind, if it was looked at.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Takes back what would take away.
    pub(crate) fn forbid_scale_in(&mut self) {
        if self.direction() == Direction::Down {
            self.to = self.from;
            self.reason = Reason::ScaleInForbidden;
            self.set(ConditionKind::ScalingLimited, true, Reason::ScaleInForbidden);
        }
    }

    pub(crate) fn set(&mut self, kind: ConditionKind, holds: bool, reason: Reason) {
        let condition = Condition { kind, holds, reason };
        match self.conditions.iter_mut().find(|known| known.kind == kind) {
            Some(known) => *known = condition,
            None => self.conditions.push(condition),
        }
    }
}

/// One line for a person: from what, to what, and why.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction() {
            Direction::None => write!(f, "keep {}", self.to)?,
            _ => write!(f, "{} to {}", self.from, self.to)?,
        }
        write!(f, ": {}", self.reason.text())?;
        if let Some(state) = self.metrics.iter().find(|it| Some(&it.name) == self.metric.as_ref()) {
            write!(f, "; {state}")?;
        }
        if let (Some(recommended), true) = (self.recommended, self.recommended != Some(self.to)) {
            write!(f, "; wanted {recommended}")?;
        }
        Ok(())
    }
}

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Fewer.
    Down,
    /// As many.
    None,
    /// More.
    Up,
}

impl Direction {
    /// The word used in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Down => "down",
            Direction::None => "none",
            Direction::Up => "up",
        }
    }
}

/// A metric as it was when a decision was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MetricState {
    /// Its name.
    pub name: String,
    /// `cpu`, `memory`, `pods`, `external` or `tracked`.
    pub kind: &'static str,
    /// What was measured, in the target's unit.
    pub value: Option<f64>,
    /// What it should be.
    pub target: f64,
    /// Value by target. `None` if there is none, or it is infinite.
    pub ratio: Option<f64>,
    /// How many replicas it proposes.
    pub proposal: Option<u32>,
    /// Why it proposes nothing.
    pub error: Option<String>,
}

impl fmt::Display for MetricState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, &self.error) {
            (_, Some(error)) => write!(f, "{}: {error}", self.name),
            (Some(value), None) => write!(f, "{} is {value} of {}", self.name, self.target),
            (None, None) => f.write_str(&self.name),
        }
    }
}

/// Something that can be said of the scaling, true or false, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What is said.
    pub kind: ConditionKind,
    /// Whether it is so.
    pub holds: bool,
    /// Why.
    pub reason: Reason,
}

/// What can be said of the scaling. The names are Kubernetes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ConditionKind {
    /// The target can be read and changed.
    AbleToScale,
    /// The metrics give a number.
    ScalingActive,
    /// What they ask for is more or less than is allowed.
    ScalingLimited,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal;)*) => {
        /// Why. The names are Kubernetes' where it has one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[non_exhaustive]
        pub enum Reason { $($(#[doc = $doc])* $name,)* }

        impl Reason {
            /// The same in a few words for a person.
            pub fn text(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// The word used in answers and labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    /// A failover ended so short a time ago that what was measured says nothing of the time after it.
    AfterFailover = "a failover ended a moment ago";
    /// Every metric is below its target.
    AllMetricsBelowTarget = "all metrics are below their targets";
    /// A cooldown runs.
    Cooldown = "a cooldown runs";
    /// What is asked for is within bounds and rates.
    DesiredWithinRange = "within the bounds";
    /// A metric could not be read, and without it nothing is taken away.
    FailedGetMetric = "a metric could not be read";
    /// The target could not be read.
    FailedGetScale = "the target could not be read";
    /// The target could not be changed.
    FailedUpdateScale = "the target could not be changed";
    /// A person holds the number for a time.
    HeldByPerson = "held by a person";
    /// A person asked for it.
    Manual = "asked for by a person";
    /// A metric is above its target.
    MetricAboveTarget = "a metric is above its target";
    /// More replicas than the most.
    AboveMaximum = "more than the maximum";
    /// Fewer replicas than the fewest.
    BelowMinimum = "fewer than the minimum";
    /// It is paused.
    Paused = "paused";
    /// As many as recommended.
    ReadyForNewScale = "as many as recommended";
    /// The rate down.
    ScaleDownLimit = "the rate of scaling down";
    /// The window down.
    ScaleDownStabilized = "the window of scaling down";
    /// A failover forbids taking away.
    ScaleInForbidden = "nothing is taken away during a failover";
    /// The rate up.
    ScaleUpLimit = "the rate of scaling up";
    /// The window up.
    ScaleUpStabilized = "the window of scaling up";
    /// Nothing runs, and the minimum is not nothing: it was switched off.
    ScalingDisabled = "switched off, as nothing runs";
    /// The target was read.
    SucceededGetScale = "the target was read";
    /// The target was changed.
    SucceededRescale = "the target was changed";
    /// Fewer than the minimum were wanted.
    TooFewReplicas = "fewer than the minimum were wanted";
    /// More than the maximum were wanted.
    TooManyReplicas = "more than the maximum were wanted";
    /// A metric gave a number.
    ValidMetricFound = "a metric gave a number";
    /// Near enough to the target.
    WithinTolerance = "near enough to the target";
}
