//! The thin shell around the core: one lock, and what has to happen once it is free.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Waker};

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::config::BatchConfig;
use crate::core::{Core, Level, Request, Taken, Ticket};

use crate::crew::{Call, WorkerId};
use crate::door::{Door, Place};
use crate::drain::Ended;
use crate::error::{Result, closed, not_run, overloaded, too_heavy};
use crate::isolate::Isolate;
use crate::key::Key;
use crate::metrics::{Metrics, Reject};
use crate::process::Hire;
use crate::state::{Pause, State, Step};
use crate::sync::{Mutex, MutexGuard};
use crate::trace;
use crate::tray::{Copy, Tray};

pub(crate) type Lots<O> = Arc<Tray<O>>;
/// An item's way in while the queue is full: its ticket and the door it waits at.
pub(crate) type Line<O> = (u64, Arc<Door<O>>);
type Shared<K, I, O> = State<K, I, Lots<O>, Arc<Door<O>>>;
pub(crate) type TakenBatch<K, I, O> = Taken<K, I, Lots<O>>;
pub(crate) type By<I, T> = Box<dyn Fn(&I) -> T + Send + Sync>;

/// Everything the handles and the workers of one processor share.
pub(crate) struct Desk<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    state: Mutex<Shared<K, I, O>>,
    pub(crate) ended: Ended,
    pub(crate) settings: Settings<K, I, O>,
    itself: Weak<Self>,
}

/// What a builder has gathered.
pub(crate) struct Settings<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(crate) config: BatchConfig,
    pub(crate) key_of: Option<By<I, K>>,
    pub(crate) weigh: Option<By<I, u64>>,
    /// Set where equal items share a flight.
    pub(crate) copy: Option<Copy<O>>,
    pub(crate) process: Arc<dyn Hire<K, I, O>>,
    pub(crate) isolate: Option<Isolate<I>>,
    pub(crate) metrics: Metrics,
    pub(crate) runtime: Handle,
}

/// Where many items ended up: those accepted, and the line of the rest.
pub(crate) type EnteredMany<O> = (VecDeque<Place<O>>, Option<Line<O>>);

/// Where a submission ended up.
pub(crate) enum Entered<O> {
    Seated(Place<O>),
    InLine(u64, Arc<Door<O>>),
}

impl<K, I, O> Desk<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(crate) fn new(
        core: Core<K, I, Lots<O>, Arc<Door<O>>>,
        settings: Settings<K, I, O>,
    ) -> Arc<Self> {
        let state = Mutex::new(State::new(core, settings.config.max_in_flight));
        Arc::new_cyclic(|itself| Self {
            state,
            ended: Ended::new(),
            settings,
            itself: itself.clone(),
        })
    }

    /// Weighs an item and refuses it if no batch could hold it.
    #[inline]
    pub(crate) fn request(
        &self,
        operation: &'static str,
        key: K,
        item: I,
    ) -> Result<Request<K, I>, (I, crate::Error)> {
        let (caller, waker) = (trace::caller(), None);
        let Some(weigh) = &self.settings.weigh else {
            return Ok(Request { key, item, weight: 0, caller, waker });
        };
        let (weight, limit) =
            (weigh(&item), self.settings.config.max_batch_weight.unwrap_or(u64::MAX));
        if weight > limit {
            self.settings.metrics.rejected(Reject::TooHeavy, 1);
            return Err((item, too_heavy(operation, weight, limit)));
        }
        Ok(Request { key, item, weight, caller, waker })
    }

    /// Accepts an item or puts it in line.
    #[inline]
    pub(crate) fn enter(&self, request: Request<K, I>) -> Result<Entered<O>> {
        let mut state = self.lock();
        if state.core.is_closed() {
            drop(state);
            return Err(self.refuse_closed("submit", 1));
        }
        match state.core.offer(request, Instant::now) {
            Ok(seat) => {
                self.release(state);
                Ok(Entered::Seated(Place::new(seat)))
            }
            Err(mut request) => {
                let door = Door::new();
                // The door knows better whom to wake by the time the item comes in.
                request.waker = None;
                let ticket = state.core.wait(VecDeque::from([request]), door.clone());
                Ok(Entered::InLine(ticket, door))
            }
        }
    }

    /// Accepts an item or hands it back.
    pub(crate) fn try_enter(&self, request: Request<K, I>) -> Result<Place<O>, (I, crate::Error)> {
        let mut state = self.lock();
        if state.core.is_closed() {
            drop(state);
            return Err((request.item, self.refuse_closed("try_submit", 1)));
        }
        match state.core.offer(request, Instant::now) {
            Ok(seat) => {
                self.release(state);
                Ok(Place::new(seat))
            }
            Err(request) => {
                drop(state);
                self.settings.metrics.rejected(Reject::Full, 1);
                Err((request.item, overloaded(self.settings.config.max_queued)))
            }
        }
    }

    /// Accepts as many items as there is room for, in order, and puts the rest in line. One lock, one call.
    pub(crate) fn enter_many(
        &self,
        requests: impl Iterator<Item = Request<K, I>>,
    ) -> Result<EnteredMany<O>> {
        let mut places: VecDeque<Place<O>> = VecDeque::new();
        let mut in_line = VecDeque::new();
        let mut state = self.lock();
        if state.core.is_closed() {
            drop(state);
            return Err(self.refuse_closed("submit_many", requests.count()));
        }
        for request in requests {
            if !in_line.is_empty() {
                in_line.push_back(request);
                continue;
            }
            match state.core.offer(request, Instant::now) {
                Err(request) => in_line.push_back(request),
                Ok(seat) => {
                    let seat = match places.back_mut() {
                        Some(last) => last.seat.extend(seat),
                        None => Some(seat),
                    };
                    places.extend(seat.map(Place::new));
                }
            }
        }
        let line = (!in_line.is_empty()).then(|| {
            let door = Door::new();
            (state.core.wait(in_line, door.clone()), door)
        });
        self.release(state);
        Ok((places, line))
    }

    /// The submitter of these places and of this line is gone. Returns how many items had not been dispatched.
    pub(crate) fn leave(
        &self,
        line: Option<(u64, &Door<O>)>,
        places: impl IntoIterator<Item = Place<O>>,
    ) -> usize {
        let mut removed = Vec::new();
        let mut gone: Vec<_> = places.into_iter().collect();
        let mut state = self.lock();
        if let Some((ticket, door)) = line {
            removed.extend(state.core.unwait(ticket).into_iter().map(|request| request.item));
            gone.extend(door.leave());
        }
        for Place { seat, .. } in &gone {
            state.core.leave(seat, &mut removed, Instant::now);
        }
        let call = state.call();
        drop(state);
        self.answer(call);
        for Place { seat, token } in gone {
            seat.lot.unregister(token);
        }
        if !removed.is_empty() {
            self.settings.metrics.cancelled(removed.len());
            self.ended.tell();
        }
        removed.len()
    }

    /// What the worker `id` has to do next. It has `finished` a batch whose outcomes are delivered.
    #[inline]
    pub(crate) fn step(
        &self,
        id: WorkerId,
        pause: Pause,
        finished: Option<Ticket>,
        cx: &Context<'_>,
    ) -> Step<K, I, Lots<O>> {
        let has_ended = finished.is_some();
        let mut state = self.lock();
        let mut step = state.step(id, pause, finished, cx);
        if has_ended || matches!(step, Step::Run(..)) {
            self.settings.metrics.in_flight(state.core.running());
        }
        drop(state);
        if has_ended {
            self.ended.tell();
        }
        if let Step::Run(_, call) = &mut step {
            self.answer(std::mem::replace(call, Call::Nobody));
        }
        step
    }

    /// A batch has ended and no worker is left to say so with its next step.
    pub(crate) fn finish(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.core.finish(ticket);
        self.settings.metrics.in_flight(state.core.running());
        let call = state.call();
        drop(state);
        self.answer(call);
        self.ended.tell();
    }

    /// Makes everything accepted due; the epoch to wait for.
    pub(crate) fn flush(&self) -> Option<u64> {
        let mut state = self.lock();
        let epoch = state.core.flush(Instant::now());
        let call = state.call();
        drop(state);
        self.answer(call);
        epoch
    }

    pub(crate) fn settled(&self, epoch: u64) -> bool {
        self.lock().core.settled(epoch)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().core.is_empty()
    }

    pub(crate) fn level(&self) -> Level {
        self.lock().core.level()
    }

    /// Closes the door: what is accepted is processed, those in line are sent home.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        let turned_away = state.core.close(Instant::now());
        let call = state.call();
        let idle = state.crew.everybody_idle();
        drop(state);
        self.answer(call);
        idle.into_iter().for_each(Waker::wake);
        for (door, requests) in turned_away {
            self.settings.metrics.rejected(Reject::Closed, requests.len());
            door.send_home();
        }
    }

    /// Fails everything that is not running yet; returns how many items that were.
    pub(crate) fn abandon(&self) -> usize {
        let mut state = self.lock();
        let abandoned = state.core.abandon();
        let idle = state.crew.everybody_idle();
        drop(state);
        idle.into_iter().for_each(Waker::wake);
        let mut items = 0;
        for batch in abandoned {
            items += batch.items.len();
            batch.lot.deliver(Err(not_run()));
        }
        self.settings.metrics.not_run(items);
        self.ended.tell();
        items
    }

    /// Ends the workers where they stand; the batches they run fail as interrupted.
    pub(crate) fn interrupt(&self) {
        let handles = self.lock().crew.handles();
        handles.into_iter().for_each(|handle| handle.abort());
    }

    /// A worker is no more: retired, or dropped by its runtime.
    pub(crate) fn gone(&self, id: WorkerId, retired: bool) {
        let mut state = self.lock();
        let idle = state.gone(id, retired);
        drop(state);
        idle.into_iter().for_each(Waker::wake);
        if !retired {
            // The runtime goes down: nobody is left to do the work, and nobody may wait for it.
            self.close();
            self.abandon();
        }
    }

    /// Frees the lock after items came in, and calls whoever is needed.
    #[inline]
    fn release(&self, mut state: MutexGuard<'_, Shared<K, I, O>>) {
        let call = state.call();
        let shared = state.core.take_shared();
        drop(state);
        self.answer(call);
        self.settings.metrics.deduplicated(shared);
    }

    #[inline]
    fn answer(&self, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Wake(waker) => waker.wake(),
            Call::Hire(id) => {
                let Some(desk) = self.itself.upgrade() else { return };
                let task = Arc::clone(&self.settings.process).hire(desk, id);
                self.lock().crew.hired(id, task);
            }
        }
    }

    fn refuse_closed(&self, operation: &'static str, items: usize) -> crate::Error {
        self.settings.metrics.rejected(Reject::Closed, items);
        closed(operation)
    }
}

impl<K, I, O> Desk<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    #[inline]
    fn lock(&self) -> MutexGuard<'_, Shared<K, I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
