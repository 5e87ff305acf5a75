//! What was recommended and what was done, as far back as it still matters.

use std::time::Duration;

use resonant_common::duration::after;
use tokio::time::Instant;

use super::config::{MOST, PolicyUnit, ScalingRules, Select};

/// Numbers with their instants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Vec<(Instant, u32)>);

impl Log {
    pub(crate) fn push(&mut self, now: Instant, number: u32) {
        self.0.push((now, number));
    }

    /// The same where only the least and the most matter: a number that stays is remembered once, as of its last time.
    pub(crate) fn note(&mut self, now: Instant, number: u32) {
        match self.0.last_mut() {
            Some((at, last)) if *last == number && *at <= now => *at = now,
            _ => self.push(now, number),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those strictly newer than `window`.
    pub(crate) fn within(&self, now: Instant, window: Duration) -> impl Iterator<Item = u32> {
        self.0.iter().filter(move |(at, _)| after(*at, window) > now).map(|(_, number)| *number)
    }

    /// Forgets what is older than `window`.
    pub(crate) fn forget(&mut self, now: Instant, window: Duration) {
        self.0.retain(|(at, _)| after(*at, window) >= now);
    }

    /// When the oldest that still counts in `window` stops doing so.
    pub(crate) fn frees_at(&self, now: Instant, window: Duration) -> Option<Instant> {
        self.0.iter().map(|(at, _)| after(*at, window)).filter(|end| *end > now).min()
    }

    /// All that are not forgotten.
    pub(crate) fn numbers(&self) -> impl ExactSizeIterator<Item = u32> {
        self.0.iter().map(|(_, number)| *number)
    }
}

/// Replicas added and taken away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    pub(crate) added: Log,
    pub(crate) removed: Log,
}

impl Events {
    pub(crate) fn record(&mut self, now: Instant, from: u32, to: u32, keep: (Duration, Duration)) {
        self.added.forget(now, keep.0);
        self.removed.forget(now, keep.1);
        if to > from {
            self.added.push(now, to - from);
        } else if to < from {
            self.removed.push(now, from - to);
        }
    }

    /// How many replicas there were when the period began.
    fn at_start(&self, now: Instant, current: u32, period: Duration) -> i64 {
        let sum = |log: &Log| log.within(now, period).map(i64::from).sum::<i64>();
        i64::from(current) - sum(&self.added) + sum(&self.removed)
    }

    /// The most replicas the rules allow now. May be below `current`.
    pub(crate) fn upper(&self, now: Instant, current: u32, rules: &ScalingRules) -> i64 {
        let allowed = rules.policies.iter().map(|policy| {
            let start = self.at_start(now, current, policy.period);
            match policy.unit {
                PolicyUnit::Pods => start + i64::from(policy.value),
                PolicyUnit::Percent => {
                    (start as f64 * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i64
                }
            }
        });
        let allowed = match rules.select {
            Select::Disabled => None,
            Select::Max => allowed.max(),
            Select::Min => allowed.min(),
        };
        allowed.unwrap_or(i64::from(current)).min(i64::from(MOST))
    }

    /// The fewest replicas the rules allow now. May be above `current`, or below nothing.
    pub(crate) fn lower(&self, now: Instant, current: u32, rules: &ScalingRules) -> i64 {
        let allowed = rules.policies.iter().map(|policy| {
            let start = self.at_start(now, current, policy.period);
            match policy.unit {
                PolicyUnit::Pods => start - i64::from(policy.value),
                // Cut, not rounded: 90 less 30 % is 62, for 0.7 is a little less than seven tenths.
                PolicyUnit::Percent => {
                    (start as f64 * (1.0 - f64::from(policy.value) / 100.0)) as i64
                }
            }
        });
        let allowed = match rules.select {
            Select::Disabled => None,
            Select::Max => allowed.min(),
            Select::Min => allowed.max(),
        };
        allowed.unwrap_or(i64::from(current))
    }
}
