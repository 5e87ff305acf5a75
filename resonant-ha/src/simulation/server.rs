//! A region's database as the protocol sees it: a log that others pull, acknowledgements that wait for standbys, a pledge.

use std::collections::BTreeMap;

use crate::core::flaw::{Flaw, Flaws};
use crate::region::{CommitsWaitFor, Frozen, Observation, Pledge, Reach, Role, Unsettled};

/// What an entry of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Write(u64),
    Row(u64),
}

/// An entry of the log, chained, so that two logs with equal links are equal up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) item: Item,
    timeline: u32,
    lineage: u64,
    link: u64,
}

/// Somebody waits until enough standbys have an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Client { id: u64 },
    Confirm { manager: usize, incarnation: u64, id: u64 },
}

/// A primary that ends its writes until the heir has everything.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    pub(super) heir: usize,
    pub(super) manager: usize,
    pub(super) incarnation: u64,
    pub(super) id: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) up: bool,
    /// Stopped by power over its host; only a rejoin starts it again.
    pub(super) stopped: bool,
    pub(super) sick: bool,
    pub(super) primary: bool,
    pub(super) read_only: bool,
    pub(super) pledge: Pledge,
    pub(super) upstream: Option<usize>,
    pub(super) heard_at: Option<u64>,
    pub(super) log: Vec<Entry>,
    /// How much of the log has been replayed; of a primary all.
    applied: usize,
    /// Whether replay waits, for readers or because somebody paused it.
    pub(super) held: bool,
    /// Whether commits may be answered for by somebody who is no region.
    pub(super) stranger: bool,
    timeline: u32,
    /// How much each standby said it has, since this server became the primary or started.
    acks: BTreeMap<usize, usize>,
    pub(super) waiting: Vec<(usize, Waiter)>,
    pub(super) leaving: Option<Leaving>,
    pub(super) up_since: u64,
    waits: u32,
    flaws: Flaws,
}

impl Server {
    pub(super) fn new(primary: bool, waits: u32, stranger: bool, flaws: Flaws) -> Self {
        Self {
            up: true,
            stopped: false,
            sick: false,
            primary,
            read_only: false,
            pledge: Pledge::default(),
            upstream: (!primary).then_some(0),
            heard_at: None,
            log: Vec::new(),
            applied: 0,
            held: false,
            stranger,
            timeline: 1,
            acks: BTreeMap::new(),
            waiting: Vec::new(),
            leaving: None,
            up_since: 0,
            waits,
            flaws,
        }
    }

    pub(super) fn works(&self) -> bool {
        self.up && !self.stopped
    }

    pub(super) fn takes_writes(&self) -> bool {
        self.works() && self.primary && !self.read_only && !self.sick
    }

    pub(super) fn lineage(&self) -> u64 {
        self.log.last().map_or(0, |entry| entry.lineage)
    }

    /// What it has. Branches cannot be told apart by it but by their epoch rows, as with a server that says only how far.
    pub(super) fn reach(&self) -> Reach {
        Reach { lineage: self.lineage(), timeline: 0, offset: self.log.len() as u64 }
    }

    /// What can be read of it.
    fn readable(&self) -> Reach {
        let lineage = match self.applied {
            0 => 0,
            applied => self.log.get(applied - 1).map_or(0, |entry| entry.lineage),
        };
        Reach { lineage, timeline: 0, offset: self.applied as u64 }
    }

    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
        if !held {
            self.applied = self.log.len();
        }
    }

    fn link_at(&self, length: usize) -> Option<u64> {
        match length {
            0 => Some(0),
            _ => self.log.get(length - 1).map(|entry| entry.link),
        }
    }

    pub(super) fn tail(&self) -> (usize, u64) {
        (self.log.len(), self.log.last().map_or(0, |entry| entry.link))
    }

    pub(super) fn observe(&self, now: u64, recent: u64) -> Observation {
        let hears = self.heard_at.is_some_and(|at| now.saturating_sub(at) <= recent);
        Observation {
            role: if self.primary { Role::Primary } else { Role::Standby },
            sick: self.sick.then(|| "the disk is full".to_owned()),
            read_only: self.read_only,
            system: 7,
            // Received, but told apart by rows that are read.
            reach: Reach { offset: self.log.len() as u64, ..self.readable() },
            pledge: self.pledge.clone(),
            started: self.up_since,
            hears_primary: !self.primary && self.upstream.is_some() && hears,
            commits: self.commits(),
        }
    }

    fn commits(&self) -> CommitsWaitFor {
        let names = if self.stranger { &["*"][..] } else { &["east", "west", "north"] };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        CommitsWaitFor { count: self.waits, names }
    }

    /// Looks at the pledge; everything that obeys an order comes by here.
    pub(super) fn admit(&mut self, order: &Pledge) -> Result<(), Pledge> {
        if !self.pledge.admits(order) && !self.flaws.has(Flaw::IgnorePledge) {
            return Err(self.pledge.clone());
        }
        self.pledge = order.clone();
        Ok(())
    }

    pub(super) fn freeze(&mut self) -> Result<Frozen, Unsettled> {
        let replayed = self.flaws.has(Flaw::WeighReplayed);
        if !self.primary {
            // The process that would end the receiver is the one that waits.
            if self.held && !replayed {
                return Err(Unsettled::ReplayWaits("a reader".to_owned()));
            }
            if !self.flaws.has(Flaw::KeepReceiving) {
                self.upstream = None;
                self.heard_at = None;
            }
        }
        let seen = self.observe(0, 0);
        let reach = if replayed && !self.primary { self.readable() } else { self.reach() };
        Ok(Frozen { role: seen.role, sick: seen.sick, system: seen.system, reach })
    }

    /// Whether it was a standby until now.
    pub(super) fn promote(&mut self, epoch: u64) -> bool {
        let was_standby = !self.primary;
        if was_standby {
            self.primary = true;
            self.timeline = self.log.last().map_or(1, |entry| entry.timeline) + 1;
            self.upstream = None;
            self.acks.clear();
            self.waiting.clear();
            self.hold(false);
        }
        if self.lineage() < epoch && !self.flaws.has(Flaw::OpenBeforeRow) {
            self.push(Item::Row(epoch));
        }
        (self.read_only, self.leaving) = (false, None);
        was_standby
    }

    pub(super) fn follow(&mut self, upstream: usize) {
        self.primary = false;
        self.read_only = false;
        self.leaving = None;
        self.heard_at = None;
        self.upstream = Some(upstream);
    }

    pub(super) fn restart(&mut self, now: u64) {
        self.up = true;
        self.up_since = now;
        self.acks.clear();
        self.waiting.clear();
        self.leaving = None;
        self.heard_at = None;
    }

    /// Gives up what `other` has not, and says how much that was.
    pub(super) fn rewind_to(&mut self, other: &Server) -> u64 {
        let common = self.log.iter().zip(&other.log).take_while(|(mine, its)| mine == its).count();
        let lost = self.log.len() - common;
        self.log.truncate(common);
        self.applied = self.applied.min(common);
        lost as u64
    }

    /// Whether everything it has is the beginning of what `other` has.
    pub(super) fn is_behind(&self, other: &Server) -> bool {
        let (length, link) = self.tail();
        other.link_at(length) == Some(link)
    }

    pub(super) fn append(&mut self, item: Item, waiter: Waiter) {
        self.push(item);
        self.waiting.push((self.log.len(), waiter));
    }

    fn push(&mut self, item: Item) {
        let link = self.tail().1;
        let (lineage, value) = match item {
            Item::Write(id) => (self.lineage(), id << 1),
            Item::Row(epoch) => (epoch, (epoch << 1) | 1),
        };
        let mixed =
            link ^ value.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(self.timeline) << 48);
        let link = mixed.rotate_left(23).wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1;
        self.log.push(Entry { item, timeline: self.timeline, lineage, link });
        self.applied = self.log.len();
    }

    pub(super) fn wait_for_last(&mut self, waiter: Waiter) {
        self.waiting.push((self.log.len(), waiter));
    }

    /// What a standby that is so far gets; `None` when the two have parted.
    pub(super) fn pulled(&mut self, standby: usize, have: usize, link: u64) -> Option<Vec<Entry>> {
        if self.link_at(have) != Some(link) {
            return None;
        }
        let known = self.acks.entry(standby).or_insert(0);
        *known = (*known).max(have);
        Some(self.log[have..].to_vec())
    }

    pub(super) fn receive(&mut self, entries: Vec<Entry>) -> bool {
        let grew = !entries.is_empty();
        self.log.extend(entries);
        self.hold(self.held);
        grew
    }

    pub(super) fn has_row(&self, epoch: u64) -> bool {
        self.log.iter().any(|entry| entry.item == Item::Row(epoch))
    }

    pub(super) fn holds(&self, id: u64) -> bool {
        self.log.iter().any(|entry| entry.item == Item::Write(id))
    }

    pub(super) fn has(&self, standby: usize) -> usize {
        self.acks.get(&standby).copied().unwrap_or(0)
    }

    /// Those whose entry enough standbys have now.
    pub(super) fn acknowledged(&mut self) -> Vec<Waiter> {
        let mut acks: Vec<usize> = self.acks.values().copied().collect();
        if self.stranger {
            acks.push(self.log.len());
        }
        acks.sort_unstable_by(|a, b| b.cmp(a));
        let safe = match self.waits {
            0 => usize::MAX,
            waits => acks.get(waits as usize - 1).copied().unwrap_or(0),
        };
        let (done, rest) = self.waiting.iter().partition(|(length, _)| *length <= safe);
        self.waiting = rest;
        let done: Vec<(usize, Waiter)> = done;
        done.into_iter().map(|(_, waiter)| waiter).collect()
    }
}
