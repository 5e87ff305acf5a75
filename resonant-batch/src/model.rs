//! A model check: every order in which submitters, workers and leavers can take the locks, tried with loom.
//!
//! `RUSTFLAGS="--cfg resonant_model" cargo test -p resonant-batch --lib --release model`
//!
//! The parts under test are the real ones: state (core and crew), tray and door. Only the shell around them is replaced,
//! which frees the lock and then wakes or hires.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::core::{Core, Limits, Request, Seat};
use crate::crew::{Call, WorkerId};
use crate::door::{Door, Place};
use crate::output::Outcomes;
use crate::state::{Pause, State, Step};
use crate::sync::Mutex;
use crate::tray::Tray;

type Lots = Arc<Tray<u64>>;

#[derive(Clone)]
struct Shell(Arc<Mutex<State<(), u64, Lots, Arc<Door<u64>>>>>);

impl Shell {
    fn new(items: usize, queued: usize, in_flight: usize) -> Self {
        let limits =
            Limits { items, weight: u64::MAX, queued, in_flight, in_flight_per_key: in_flight };
        let core = Core::new(limits, None, None);
        Self(Arc::new(Mutex::new(State::new(core, in_flight))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State<(), u64, Lots, Arc<Door<u64>>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Wake(waker) => waker.wake(),
            Call::Hire(id) => {
                let shell = self.clone();
                thread::spawn(move || block_on(shell.work(id)));
            }
        }
    }

    async fn work(self, id: WorkerId) {
        let mut finished = None;
        loop {
            let mut pause = Pause::Busy;
            let step = poll_fn(|cx| {
                let step = self.with(|state| state.step(id, pause, finished.take(), cx));
                match step {
                    Step::Yield => {
                        pause = Pause::Yielded;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Step::Rest(_) => {
                        pause = Pause::Rested;
                        Poll::Pending
                    }
                    step => Poll::Ready(step),
                }
            });
            let Step::Run(batch, call) = step.await else { break };
            self.answer(call);
            let outcomes = batch.items.into_iter().map(|item| Some(Ok(item + 1000))).collect();
            batch.lot.deliver(Ok(batch.places.spread(Outcomes::Many(outcomes))));
            finished = Some(batch.ticket);
        }
        let idle = self.with(|state| state.gone(id, true));
        idle.into_iter().for_each(Waker::wake);
    }

    /// Accepts an item, or puts it in line. A lot that is opened for it takes the waker along.
    fn enter(&self, item: u64, waker: Option<Waker>) -> Result<Place<u64>, Arc<Door<u64>>> {
        let (place, call) = self.with(|state| {
            let request = Request { key: (), item, weight: 0, caller: None, waker };
            let place = match state.core.offer(request, tokio::time::Instant::now) {
                Ok(seat) => Ok(Place::new(seat)),
                Err(mut request) => {
                    request.waker = None;
                    let door = Door::new();
                    state.core.wait(VecDeque::from([request]), door.clone());
                    Err(door)
                }
            };
            (place, state.call())
        });
        self.answer(call);
        place
    }

    fn submit(&self, item: u64) -> u64 {
        block_on(async {
            let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
            let place = match self.enter(item, Some(waker)) {
                Ok(place) => place,
                Err(door) => poll_fn(|cx| door.poll_place(cx)).await.unwrap(),
            };
            outcome(place).await
        })
    }

    /// Takes an item back. Whether it was still queued.
    fn leave(&self, seat: &Seat<Lots>) -> bool {
        let mut removed = Vec::new();
        let call = self.with(|state| {
            state.core.leave(seat, &mut removed, tokio::time::Instant::now);
            state.call()
        });
        self.answer(call);
        !removed.is_empty()
    }

    fn close(&self) {
        let (call, idle) = self.with(|state| {
            assert!(state.core.close(tokio::time::Instant::now()).is_empty());
            (state.call(), state.crew.everybody_idle())
        });
        self.answer(call);
        idle.into_iter().for_each(Waker::wake);
    }
}

async fn outcome(place: Place<u64>) -> u64 {
    let Place { seat, mut token } = place;
    let (mut given, mut told) = (None, seat.told);
    poll_fn(|cx| {
        // As `Submitted` does: whoever is told already does not ask in the same poll.
        if std::mem::take(&mut told) {
            return Poll::Pending;
        }
        seat.lot.poll(seat.start, 1, &mut token, None, cx, |outcome| given = Some(outcome))
    })
    .await;
    given.unwrap().unwrap()
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Whoever submits is served, and every worker ends after the close; loom reports anybody left waiting as a deadlock.
fn submit_from_two(preemptions: usize, items: usize, queued: usize, in_flight: usize) {
    check(preemptions, move || {
        let shell = Shell::new(items, queued, in_flight);
        let other = {
            let shell = shell.clone();
            thread::spawn(move || assert_eq!(shell.submit(1), 1001))
        };
        assert_eq!(shell.submit(2), 1002);
        other.join().unwrap();
        shell.close();
    });
}

#[test]
fn model_one_worker_serves_two() {
    submit_from_two(3, 10, 10, 1);
}

#[test]
fn model_two_workers_serve_two() {
    submit_from_two(1, 1, 10, 2);
}

#[test]
fn model_those_in_line_come_in() {
    submit_from_two(3, 1, 1, 1);
}

#[test]
fn model_a_leaver_is_removed_or_processed_and_never_stops_the_other() {
    check(3, || {
        let shell = Shell::new(10, 10, 1);
        let leaver = {
            let shell = shell.clone();
            thread::spawn(move || {
                let Ok(Place { seat, .. }) = shell.enter(1, None) else { panic!("there is room") };
                if !shell.leave(&seat) {
                    // It was dispatched: its outcome comes.
                    assert_eq!(block_on(outcome(Place::new(seat))), 1001);
                }
            })
        };
        assert_eq!(shell.submit(2), 1002);
        leaver.join().unwrap();
        shell.close();
    });
}

#[test]
fn model_a_close_forgets_nobody() {
    check(3, || {
        let shell = Shell::new(10, 10, 1);
        let place = shell.enter(1, None).unwrap_or_else(|_| panic!("there is room"));
        let other = {
            let shell = shell.clone();
            thread::spawn(move || shell.close())
        };
        assert_eq!(block_on(outcome(place)), 1001);
        other.join().unwrap();
    });
}
