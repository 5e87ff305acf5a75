//! Seeded random walks over the core, checked against a plain model after every step.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

impl Lot for () {
    fn open(_: usize, _: Option<Waker>) -> Self {}
}

type Seats = Rc<RefCell<Vec<Seat<()>>>>;

impl Guest<()> for Seats {
    fn seat(&self, seat: Seat<()>) {
        self.borrow_mut().push(seat);
    }
}

/// An item: its number, its key, its weight.
type Item = (u64, u8, u64);

fn request(item: Item) -> Request<u8, Item> {
    Request { key: item.1, item, weight: item.2, caller: None, waker: None }
}

struct Walk {
    core: Core<u8, Item, (), Seats>,
    limits: Limits,
    linger: Option<Duration>,
    now: Instant,
    next: u64,
    /// Items somebody still waits for, with their seats.
    seated: HashMap<u64, Seat<()>>,
    /// Items in line: ticket, seats it will get, items in order.
    in_line: Vec<(u64, Seats, VecDeque<u64>)>,
    running: Vec<(u8, Ticket)>,
    taken: HashSet<u64>,
    left: HashSet<u64>,
    last_of_key: HashMap<u8, u64>,
}

impl Walk {
    fn new(rng: &mut StdRng) -> Self {
        let in_flight = rng.random_range(1..4);
        let limits = Limits {
            items: rng.random_range(1..6),
            weight: [u64::MAX, rng.random_range(3..12)][rng.random_range(0..2)],
            queued: rng.random_range(6..20),
            in_flight,
            in_flight_per_key: rng.random_range(1..=in_flight),
        };
        let linger = [None, Some(Duration::from_millis(10))][rng.random_range(0..2)];
        Self {
            core: Core::new(limits, linger, None),
            limits,
            linger,
            now: Instant::now(),
            next: 0,
            seated: HashMap::new(),
            in_line: Vec::new(),
            running: Vec::new(),
            taken: HashSet::new(),
            left: HashSet::new(),
            last_of_key: HashMap::new(),
        }
    }

    fn item(&mut self, rng: &mut StdRng) -> Item {
        self.next += 1;
        (self.next, rng.random_range(0..3), rng.random_range(0..3))
    }

    fn step(&mut self, rng: &mut StdRng) {
        let now = self.now;
        match rng.random_range(0..12) {
            0..5 => self.submit(rng),
            5..7 => self.leave(rng),
            7..9 => self.take(),
            9 => {
                if !self.running.is_empty() {
                    let (_, ticket) =
                        self.running.swap_remove(rng.random_range(0..self.running.len()));
                    self.core.finish(ticket);
                }
            }
            10 => self.now += Duration::from_millis(rng.random_range(0..8)),
            _ => {
                self.core.flush(now);
            }
        }
        self.fetch_seats();
        self.check();
    }

    fn submit(&mut self, rng: &mut StdRng) {
        let now = self.now;
        let many = rng.random_range(1..5);
        let mut rest = VecDeque::new();
        for _ in 0..many {
            let item = self.item(rng);
            if rest.is_empty() {
                match self.core.offer(request(item), || now) {
                    Ok(seat) => drop(self.seated.insert(item.0, seat)),
                    Err(request) => rest.push_back(request),
                }
            } else {
                rest.push_back(request(item));
            }
        }
        if !rest.is_empty() {
            let (seats, numbers) =
                (Seats::default(), rest.iter().map(|request| request.item.0).collect());
            let ticket = self.core.wait(rest, seats.clone());
            self.in_line.push((ticket, seats, numbers));
        }
    }

    fn leave(&mut self, rng: &mut StdRng) {
        let now = self.now;
        if rng.random_range(0..4) == 0 && !self.in_line.is_empty() {
            let (ticket, _, numbers) = self.in_line.remove(rng.random_range(0..self.in_line.len()));
            let back: Vec<_> =
                self.core.unwait(ticket).iter().map(|request| request.item.0).collect();
            assert_eq!(back, Vec::from(numbers), "the line hands back what had not come in");
            self.left.extend(back);
            return;
        }
        let mut numbers: Vec<_> = self.seated.keys().copied().collect();
        numbers.sort_unstable();
        if numbers.is_empty() {
            return;
        }
        let number = numbers[rng.random_range(0..numbers.len())];
        if let Some(seat) = self.seated.remove(&number) {
            let mut removed = Vec::new();
            self.core.leave(&seat, &mut removed, || now);
            match removed[..] {
                [] => assert!(self.taken.contains(&number), "only a dispatched item stays"),
                [item] => assert!(item.0 == number && self.left.insert(number)),
                _ => panic!("one seat holds one item"),
            }
        }
    }

    fn take(&mut self) {
        let now = self.now;
        let Some(batch) = self.core.take(|| now) else {
            assert!(self.nothing_may_run(), "a batch that may run was not given");
            return;
        };
        assert!(!batch.items.is_empty() && batch.items.len() <= self.limits.items);
        assert!(batch.items.iter().map(|item| item.2).sum::<u64>() <= self.limits.weight);
        for &(number, key, _) in &batch.items {
            assert_eq!(key, batch.key, "a batch mixes keys");
            assert!(!self.left.contains(&number), "an item was processed that had left");
            assert!(self.taken.insert(number), "an item was given twice");
            let last = self.last_of_key.insert(key, number).unwrap_or_default();
            assert!(last < number, "the order within a key was lost");
        }
        self.running.push((batch.key, batch.ticket));
        assert!(self.running.len() <= self.limits.in_flight);
        let same_key = self.running.iter().filter(|(key, _)| *key == batch.key).count();
        assert!(same_key <= self.limits.in_flight_per_key);
    }

    /// Whether really no batch may run, by looking at every queue.
    fn nothing_may_run(&self) -> bool {
        self.running.len() >= self.limits.in_flight
            || self.core.keys.active().into_iter().all(|slot| {
                let queue = self.core.keys.get(slot).unwrap();
                let epoch = self.core.epochs.current();
                let may_run = |batch: &Batch<Item, ()>| {
                    self.linger.is_none_or(|linger| batch.opened + linger <= self.now)
                        || batch.len() == self.limits.items
                        || batch.epoch < epoch
                };
                queue.running >= self.limits.in_flight_per_key
                    || !queue.batches.front().is_some_and(may_run)
            })
    }

    fn fetch_seats(&mut self) {
        for (_, seats, numbers) in &mut self.in_line {
            for seat in seats.borrow_mut().drain(..) {
                self.seated.insert(numbers.pop_front().unwrap(), seat);
            }
        }
        let first_waiting = self.in_line.iter().position(|(_, _, numbers)| !numbers.is_empty());
        let waiting = self.in_line.iter().filter(|(_, _, numbers)| !numbers.is_empty()).count();
        let behind = first_waiting.map_or(0, |first| self.in_line.len() - first);
        assert_eq!(waiting, behind, "somebody overtook the line");
        self.in_line.retain(|(_, _, numbers)| !numbers.is_empty());
    }

    fn check(&self) {
        let Level { queued, waiting, running, .. } = self.core.level();
        let slots = self.core.keys.active();
        let queues = || slots.iter().map(|&slot| self.core.keys.get(slot).unwrap());
        assert_eq!(
            queued,
            queues().flat_map(|queue| &queue.batches).map(|batch| batch.live).sum::<usize>()
        );
        assert!(queued <= self.limits.queued);
        assert!(waiting == 0 || queued == self.limits.queued, "there is room, and somebody waits");
        assert_eq!(waiting, self.in_line.len());
        assert_eq!(running, self.running.len());
        assert!(queues().flat_map(|queue| &queue.batches).all(|batch| batch.live > 0));
    }

    /// Lets everything run out and looks at what is left.
    fn end(mut self) {
        let now = self.now;
        for (guest, requests) in self.core.close(now) {
            assert!(guest.borrow().is_empty());
            self.left.extend(requests.iter().map(|request| request.item.0));
        }
        self.in_line.clear();
        loop {
            self.take();
            match self.running.pop() {
                Some((_, ticket)) => self.core.finish(ticket),
                None => break,
            }
        }
        assert!(self.core.is_empty());
        assert_eq!(self.core.level().keys, 0, "idle keys are freed");
        assert_eq!(self.taken.len() + self.left.len(), usize::try_from(self.next).unwrap());
    }
}

/// Walks for as many seeds as `RESONANT_SEEDS` says.
fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("RESONANT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3000)
}

#[test]
fn random_walks_keep_every_promise() {
    for seed in seeds() {
        let guard = Seed(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut walk = Walk::new(&mut rng);
        for _ in 0..rng.random_range(1..120) {
            walk.step(&mut rng);
        }
        walk.end();
        std::mem::forget(guard);
    }
}

/// Names the seed when a walk fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        eprintln!("the walk of seed {} failed", self.0);
    }
}

fn fixed(limits: Limits) -> Core<u8, Item, (), Seats> {
    Core::new(limits, Some(Duration::from_millis(100)), None)
}

const LIMITS: Limits =
    Limits { items: 10, weight: u64::MAX, queued: 100, in_flight: 4, in_flight_per_key: 4 };

#[test]
fn no_batch_waits_longer_than_its_time_whatever_arrives() {
    for seed in seeds() {
        let _seed = Seed(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut core = fixed(LIMITS);
        let start = Instant::now();
        let mut now = start;
        for number in 0..40 {
            // The shell sleeps until the next batch is due or something arrives, whichever is first.
            let arrival = now + Duration::from_millis(rng.random_range(0..60));
            while let Some(due) = core.next_due().filter(|due| *due <= arrival) {
                now = due;
                while let Some(batch) = core.take(|| now) {
                    assert!(now - batch.opened <= Duration::from_millis(100));
                    core.finish(batch.ticket);
                }
            }
            now = arrival;
            let seat = core.offer(request((number, rng.random_range(0..3), 0)), || now);
            if rng.random_range(0..4) == 0 {
                core.leave(&seat.unwrap(), &mut Vec::new(), || now);
            }
        }
        std::mem::forget(_seed);
    }
}

#[test]
fn a_batch_is_due_once_its_first_item_has_waited() {
    let t0 = Instant::now();
    let mut core = fixed(LIMITS);
    let ms = Duration::from_millis;
    core.offer(request((1, 0, 0)), || t0).unwrap();
    core.offer(request((2, 0, 0)), || t0 + ms(99)).unwrap();
    assert_eq!(core.next_due(), Some(t0 + ms(100)));
    assert!(core.take(|| t0 + ms(99)).is_none());
    let batch = core.take(|| t0 + ms(100)).unwrap();
    assert_eq!((batch.items.len(), batch.trigger), (2, Trigger::Linger));
}

#[test]
fn an_idle_core_gives_a_lone_item_at_once_and_arms_no_timer() {
    let t0 = Instant::now();
    let mut core: Core<u8, Item, (), Seats> = Core::new(LIMITS, None, None);
    core.offer(request((1, 0, 0)), || t0).unwrap();
    assert_eq!(core.next_due(), None);
    assert_eq!(core.take(|| t0).unwrap().trigger, Trigger::Idle);
}

#[test]
fn coming_and_going_leaves_nothing_behind() {
    let t0 = Instant::now();
    let mut core = fixed(Limits { in_flight: 1, ..LIMITS });
    // One item keeps the batch of key 0 alive.
    core.offer(request((0, 0, 0)), || t0).unwrap();
    for number in 1..100_000 {
        let seat = core.offer(request((number, (number % 200) as u8, 0)), || t0).unwrap();
        core.leave(&seat, &mut Vec::new(), || t0);
    }
    assert_eq!((core.level().queued, core.level().keys), (1, 1));
    assert!(core.keys.active().len() <= 2);
    assert_eq!(core.keys.get(core.keys.active()[0]).unwrap().batches.len().max(1), 1);
}

#[test]
fn keys_take_turns() {
    let t0 = Instant::now();
    let mut core: Core<u8, Item, (), Seats> =
        Core::new(Limits { items: 2, in_flight: 1, ..LIMITS }, None, None);
    for number in 0..10 {
        core.offer(request((number, 0, 0)), || t0).unwrap();
    }
    core.offer(request((10, 1, 0)), || t0).unwrap();
    let mut keys = Vec::new();
    while let Some(batch) = core.take(|| t0) {
        keys.push(batch.key);
        core.finish(batch.ticket);
    }
    assert_eq!(keys, [0, 1, 0, 0, 0, 0], "the key with one item does not wait behind the hot one");
}

#[test]
fn memory_does_not_grow_with_keys_that_were() {
    let t0 = Instant::now();
    let mut core: Core<u64, u64, (), Seats> = Core::new(LIMITS, None, None);
    for key in 0..200_000 {
        core.offer(Request { key, item: key, weight: 0, caller: None, waker: None }, || t0)
            .unwrap();
        let ticket = core.take(|| t0).unwrap().ticket;
        core.finish(ticket);
    }
    assert_eq!(core.level().keys, 0);
    assert!(core.keys.slots() <= 2, "{} slots", core.keys.slots());
}
