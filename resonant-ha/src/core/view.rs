//! What this manager has seen of a region itself.

use std::time::Duration;

use crate::region::Observation;

/// What this manager has seen of a region.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The last answer, if the last probe had one.
    pub(crate) last: Option<Observation>,
    /// The last answer of all as a writable primary: how far it had got.
    pub(crate) written: Option<crate::region::Reach>,
    /// Probes in a row without an answer or with a sick one.
    pub(crate) failures: u32,
    /// When the first of them failed.
    pub(crate) failing_since: Option<Duration>,
    /// What it last died of.
    pub(crate) why: Option<String>,
    /// Sightings in a row that call for a rejoin.
    pub(crate) astray: u32,
    /// Whether the last sighting was the first of a new start.
    pub(crate) restarted: bool,
    /// When the next probe is due.
    pub(crate) probe_at: Duration,
    /// Whether one is out.
    pub(crate) probing: bool,
    /// When the last one was sent.
    pub(crate) sent: Duration,
    /// Between which two moments it took writes without a break for certain: from the first answer that said so to the
    /// last question that was answered so. Before a second one the end lies before the beginning.
    pub(crate) open: Option<(Duration, Duration)>,
    /// Whether it has been asked and has answered or failed since this manager began or woke.
    pub(crate) asked: bool,
}

impl View {
    /// Forgets everything that has an age.
    pub(crate) fn forget(&mut self) {
        *self = Self { written: self.written, ..Self::default() };
    }

    /// Answers, and not sick.
    pub(crate) fn is_well(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.sick.is_none())
    }

    /// Answered the last probe, however sick.
    pub(crate) fn is_up(&self) -> bool {
        self.last.is_some()
    }

    /// Whether it is certain that it took writes at a moment at which `other` did, too.
    pub(crate) fn is_open_beside(&self, other: &View) -> bool {
        self.open
            .zip(other.open)
            .is_some_and(|((one, until), (another, end))| one.max(another) <= until.min(end))
    }

    /// For how long it has taken writes, now that this was seen.
    fn opened(&self, now: Duration, seen: Option<&Observation>) -> Option<(Duration, Duration)> {
        let seen = seen.filter(|seen| seen.is_writable())?;
        if !self.asked {
            // What was sent before everything was forgotten may answer first.
            return None;
        }
        // One that was demoted and promoted again has another epoch row.
        let term = |seen: &Observation| (seen.started, seen.reach.lineage);
        let unbroken = self.last.as_ref().is_some_and(|last| term(last) == term(seen));
        let from = self.open.filter(|_| unbroken).map_or(now, |(from, _)| from);
        Some((from, self.sent))
    }

    /// Takes a sighting; says whether it turned well (`true`) or bad (`false`).
    pub(crate) fn see(&mut self, now: Duration, seen: Result<Observation, String>) -> Option<bool> {
        let was_bad = self.failures > 0;
        let first = !self.asked;
        self.open = self.opened(now, seen.as_ref().ok());
        self.probing = false;
        self.asked = true;
        let why = match &seen {
            Ok(observation) => observation.sick.clone(),
            Err(why) => Some(why.clone()),
        };
        if let Ok(observation) = &seen
            && observation.is_writable()
        {
            self.written = Some(observation.reach);
        }
        let started = |last: &Option<Observation>| last.as_ref().map(|last| last.started);
        let before = started(&self.last);
        self.last = seen.ok();
        self.restarted = before.is_some() && before != started(&self.last);
        match why {
            Some(why) => {
                self.failures = self.failures.saturating_add(1);
                self.failing_since.get_or_insert(now);
                self.why = Some(why);
                (!was_bad).then_some(false)
            }
            None => {
                self.failures = 0;
                self.failing_since = None;
                (was_bad || first).then_some(true)
            }
        }
    }
}
