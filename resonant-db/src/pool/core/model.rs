//! The core against a model of what users were promised, over seeded random interleavings.

use std::collections::VecDeque;
use std::panic::Location;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::{Chore, Core, Enqueued, Grant, Put, Refusal};
use crate::pool::PoolConfig;
use crate::{Error, ErrorKind};

type Model = Core<u64, u32>;

/// Everything outside of the core, as a test sees it.
struct World {
    core: Model,
    chance: StdRng,
    now: Instant,
    /// The most that may exist: lowering `max_size` closes nothing that is out.
    ceiling: u32,
    connecting: Vec<u32>,
    busy: Vec<Grant<u64>>,
    /// Waiters in the order they came, by label, with the core's key.
    waiting: VecDeque<(u32, u32)>,
    /// Waiters with an outcome they have not picked up.
    told: Vec<(u32, u32)>,
    cleaning: Vec<Grant<u64>>,
    probing: Vec<Grant<u64>>,
    aside: Vec<Grant<u64>>,
    closing: Vec<u32>,
    next: u64,
    label: u32,
    served: u64,
    refused: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let config = PoolConfig::default()
            .min_size(2)
            .max_size(6)
            .max_waiting(24)
            .max_idle_time(Duration::from_millis(40))
            .max_lifetime(Duration::from_millis(200))
            .health_check_interval(Duration::from_millis(25))
            .leak_warning_after(Duration::from_millis(60));
        Self {
            core: Core::new(config, now, seed),
            chance: StdRng::seed_from_u64(seed),
            now,
            ceiling: 6,
            connecting: Vec::new(),
            busy: Vec::new(),
            waiting: VecDeque::new(),
            told: Vec::new(),
            cleaning: Vec::new(),
            probing: Vec::new(),
            aside: Vec::new(),
            closing: Vec::new(),
            next: 0,
            label: 0,
            served: 0,
            refused: 0,
        }
    }

    fn pick<T>(&mut self, from: fn(&mut Self) -> &mut Vec<T>) -> Option<T> {
        let len = from(self).len();
        if len == 0 {
            return None;
        }
        let place = self.chance.random_range(0..len);
        Some(from(self).swap_remove(place))
    }

    fn step(&mut self) {
        match self.chance.random_range(0..100) {
            0..25 => self.get(),
            25..45 => {
                if let Some(grant) = self.pick(|world| &mut world.busy) {
                    self.put(grant, Model::put);
                }
            }
            45..55 => self.pick_up(),
            55..60 => self.cancel(),
            60..70 => {
                if let Some(slot) = self.pick(|world| &mut world.connecting) {
                    self.connected(slot);
                }
            }
            70..74 => {
                if let Some(slot) = self.pick(|world| &mut world.connecting) {
                    self.connect_fails(slot);
                }
            }
            74..80 => {
                if let Some(slot) = self.pick(|world| &mut world.closing) {
                    self.core.forget(slot);
                }
            }
            80..82 => {
                if let Some(grant) = self.pick(|world| &mut world.busy) {
                    self.core.forget(grant.slot); // detached
                }
            }
            82..85 => {
                if let Some(grant) = self.pick(|world| &mut world.busy) {
                    self.core.begin_cleaning(grant.slot, self.now);
                    self.cleaning.push(grant);
                }
            }
            85..89 => {
                if let Some(grant) = self.pick(|world| &mut world.cleaning) {
                    if self.chance.random_bool(0.7) {
                        self.put(grant, Model::put);
                    } else {
                        self.core.forget(grant.slot);
                    }
                }
            }
            89..92 => {
                if let Some(grant) = self.pick(|world| &mut world.probing) {
                    if self.chance.random_bool(0.7) {
                        self.put(grant, Model::probed);
                    } else {
                        let slot = self.core.probe_failed(grant, self.now).slot;
                        self.closing.push(slot);
                    }
                }
            }
            92..93 => self.aside.append(&mut self.core.set_aside()),
            93..94 => {
                let (min, max) = (self.chance.random_range(0..4), self.chance.random_range(4..9));
                let config = self.core.config().clone().min_size(min).max_size(max);
                self.core.reconfigure(config);
            }
            _ => self.upkeep(),
        }
        while let Some(grant) = self.aside.pop() {
            if self.chance.random_bool(0.5) {
                self.put(grant, Model::put_back);
            } else {
                let slot = self.core.begin_closing(grant).slot;
                self.closing.push(slot);
            }
        }
        self.now += Duration::from_micros(self.chance.random_range(0..2000));
        while let Some(slot) = self.core.reserve(self.now) {
            self.connecting.push(slot);
        }
        self.check();
    }

    fn get(&mut self) {
        self.label += 1;
        let label = self.label;
        match self.core.enqueue(self.now, Location::caller(), || label) {
            Enqueued::Taken(grant) => {
                assert!(self.waiting.is_empty(), "{label} overtook {:?}", self.waiting);
                self.served += 1;
                self.busy.push(grant);
            }
            Enqueued::Queued(key) => self.waiting.push_back((label, key)),
            Enqueued::Refused(Refusal::Full) => assert_eq!(self.waiting.len(), 24),
            Enqueued::Refused(_) => self.refused += 1,
        }
    }

    fn put(
        &mut self,
        grant: Grant<u64>,
        put: fn(&mut Model, Grant<u64>, Instant) -> Put<u64, u32>,
    ) {
        match put(&mut self.core, grant, self.now) {
            Put::Parked => {}
            Put::Handed(label) => {
                let oldest = self.waiting.pop_front().expect("somebody waits");
                assert_eq!(oldest.0, label, "not the oldest one was served");
                self.told.push(oldest);
            }
            Put::Close(grant) => self.closing.push(grant.slot),
            Put::Look { grant, after, to } => {
                assert!(after < to);
                self.core.passed(grant.slot, to);
                self.put(grant, put);
            }
        }
    }

    fn pick_up(&mut self) {
        let Some((_, key)) = self.pick(|world| &mut world.told) else { return };
        match self.core.poll(key, |_| ()) {
            Some(Ok((grant, _))) => {
                self.served += 1;
                self.busy.push(grant);
            }
            Some(Err(_)) => self.refused += 1,
            None => panic!("woken for nothing"),
        }
    }

    fn cancel(&mut self) {
        let candidates = self.waiting.len() + self.told.len();
        if candidates == 0 {
            return;
        }
        let place = self.chance.random_range(0..candidates);
        if place < self.waiting.len() {
            let (_, key) = self.waiting.remove(place).expect("in range");
            assert!(self.core.leave(key).is_none());
        } else {
            let (_, key) = self.told.swap_remove(place - self.waiting.len());
            if let Some(grant) = self.core.leave(key) {
                self.put(grant, Model::put);
            }
        }
    }

    fn connected(&mut self, slot: u32) {
        self.next += 1;
        let connected = self.core.connected(slot, self.now);
        self.put(Grant { slot, connection: self.next }, Model::put);
        self.closing.extend(connected.replaced.map(|grant| grant.slot));
    }

    fn connect_fails(&mut self, slot: u32) {
        let kind = match self.chance.random_bool(0.5) {
            true => ErrorKind::Unavailable,
            false => ErrorKind::Rejected,
        };
        let failed = self.core.connect_failed(slot, Error::new(kind, "connect", "no"), self.now);
        for label in failed.wakers {
            let place = self.waiting.iter().position(|(waiting, _)| *waiting == label);
            self.told.push(self.waiting.remove(place.expect("waits")).expect("in range"));
        }
    }

    fn upkeep(&mut self) {
        while let Some(chore) = self.core.chore(self.now) {
            match chore {
                Chore::Close(grant) => self.closing.push(grant.slot),
                Chore::Probe(grant) => self.probing.push(grant),
                Chore::Leak(_) => {}
            }
        }
        assert!(self.core.next_due(self.now, Duration::from_secs(1)) > self.now);
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let status = self.core.status(self.now);
        let handed = status.busy as usize - self.busy.len();
        assert!(handed <= self.told.len(), "{status:?}: busy with nobody");
        assert_eq!(status.connecting as usize, self.connecting.len(), "{status:?}");
        assert_eq!(status.checking as usize, self.probing.len(), "{status:?}");
        assert_eq!(status.cleaning as usize, self.cleaning.len(), "{status:?}");
        assert_eq!(status.closing as usize, self.closing.len(), "{status:?}");
        assert_eq!(status.waiting as usize, self.waiting.len(), "{status:?}");
        assert_eq!(status.idle as usize, self.core.idle.len(), "{status:?}");
        self.ceiling = status.max_size.max(self.ceiling.min(status.total()));
        assert!(status.total() <= self.ceiling, "{status:?}: over {}", self.ceiling);
        assert!(status.connecting <= self.core.config().max_parallel_connects + 2);
        assert!(status.waiting == 0 || status.idle == 0, "{status:?}: asleep beside an idle one");
        let room = status.total() < status.max_size && !status.is_closed;
        let stuck = status.waiting > 0 && room && status.connecting == 0 && status.outage.is_none();
        assert!(!stuck, "{status:?}: nothing is opened for those who wait");
    }

    /// Everything ends; nothing may be left over.
    fn finish(mut self) -> (u64, u64) {
        let (wakers, idle) = self.core.close();
        assert_eq!(wakers.len(), self.waiting.len());
        self.told.extend(self.waiting.drain(..));
        self.closing.extend(idle.into_iter().map(|grant| grant.slot));
        while !self.told.is_empty() {
            self.pick_up();
        }
        for grants in [
            std::mem::take(&mut self.busy),
            std::mem::take(&mut self.cleaning),
            std::mem::take(&mut self.probing),
        ] {
            for grant in grants {
                self.put(grant, Model::put);
            }
        }
        for slot in std::mem::take(&mut self.connecting) {
            self.core.forget(slot);
        }
        for slot in std::mem::take(&mut self.closing) {
            self.core.forget(slot);
        }
        assert_eq!(self.core.status(self.now).total(), 0);
        (self.served, self.refused)
    }
}

#[tokio::test]
async fn accounting_order_and_liveness_hold_over_random_interleavings() {
    let (mut served, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..4000 {
            world.step();
        }
        let (ok, err) = world.finish();
        served += ok;
        refused += err;
    }
    assert!(served > 10_000 && refused > 500, "{served} served, {refused} refused");
}
