//! Publishes and waits for the broker's confirms, in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::error::{Fault, Partly};
use super::flights::fly;
use super::link::Link;

/// Messages on their way at once.
const WINDOW: usize = 4096;

/// What their bodies may weigh together, in units of [`UNIT`].
const WEIGHT: usize = 32 << 10;

/// The most flights at once.
const FLIGHTS: usize = 8;

/// The most messages in one flight: less than the broker takes on a channel whose queue does not answer, before it stops
/// reading the connection.
pub(super) const FLIGHT: usize = 200;

/// What they may weigh: all flights together leave room for others, whatever becomes of them. One message may weigh more.
pub(super) const FLIGHT_WEIGHT: usize = WEIGHT / FLIGHTS / 2;

/// How long a queue is silent before one publish finds out whether it is the queue, or only a channel. If it is the queue, the
/// next one waits for twice as long.
const PROBE: Duration = Duration::from_millis(500);

/// How long that one keeps others from finding out about other queues.
const PROBING: Duration = Duration::from_secs(2);

/// The wait before messages the broker refused are sent again.
const REFUSED: Duration = Duration::from_millis(100);

/// Bytes per permit of weight.
const UNIT: usize = 1024;

/// A message for a queue.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) queue: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Parcel {
    pub(super) fn weight(&self) -> usize {
        (self.body.len() / UNIT + 1).min(WEIGHT)
    }
}

/// Sends parcels over channels of one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) link: Link,
    window: Arc<Semaphore>,
    weight: Arc<Semaphore>,
    state: Mutex<State>,
    /// A queue that was silent has answered.
    answers: Notify,
    tasks: TaskTracker,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) waiting: VecDeque<Ask>,
    pub(super) flying: usize,
    /// Channels that are between two flights, each with its connection.
    pub(super) idle: Vec<(Channel, Arc<Connection>)>,
    /// Queues that let flights wait.
    silent: HashMap<ShortString, Silence>,
    /// One finds out about a silent queue.
    probing: bool,
    /// Numbers silences.
    silences: u64,
    /// When the broker answered last.
    pub(super) heard: Instant,
}

/// A queue does not answer.
#[derive(Debug)]
struct Silence {
    number: u64,
    /// How many flights wait for it.
    flights: usize,
    /// When somebody may find out about it, and how long the one after waits then.
    probe_at: Instant,
    pause: Duration,
}

impl State {
    /// Whether one of the queues does not answer.
    fn is_silent(&self, parcels: &[Parcel]) -> bool {
        !self.silent.is_empty()
            && parcels.iter().any(|parcel| self.silent.contains_key(&parcel.queue))
    }

    /// Whether they are to wait: one of the queues does not answer, and it is not they who find out about it.
    pub(super) fn turns_back(&self, ask: &Ask) -> bool {
        !ask.probe && self.is_silent(ask.parcels())
    }

    /// A flight waits for this queue. Returns the number of its silence.
    pub(super) fn silence(&mut self, queue: &ShortString) -> u64 {
        self.silences += 1;
        let (number, now) = (self.silences, Instant::now());
        let silence = self.silent.entry(queue.clone()).or_insert_with(|| Silence {
            number,
            flights: 0,
            probe_at: now + PROBE,
            pause: PROBE,
        });
        silence.flights += 1;
        silence.number
    }

    /// A flight waits no longer. Says whether the queue is silent no more.
    fn unsilence(&mut self, queue: &ShortString, number: u64) -> bool {
        let Some(silence) = self.silent.get_mut(queue).filter(|it| it.number == number) else {
            return false;
        };
        silence.flights -= 1;
        let over = silence.flights == 0;
        if over {
            self.silent.remove(queue);
        }
        over
    }

    /// Whether these may go: as their queues answer, or as it is time to find out. Otherwise when to ask again.
    fn admit(&mut self, parcels: &[Parcel], now: Instant) -> Result<Admitted, Option<Instant>> {
        let mut next: Option<Instant> = None;
        let mut silent = false;
        for parcel in parcels {
            if let Some(silence) = self.silent.get(&parcel.queue) {
                silent = true;
                next = next.max(Some(silence.probe_at));
            }
        }
        if !silent {
            return Ok(Admitted::AsOthers);
        }
        if self.probing || next.is_some_and(|at| at > now) {
            return Err(next.filter(|at| *at > now));
        }
        for parcel in parcels {
            if let Some(silence) =
                self.silent.get_mut(&parcel.queue).filter(|it| it.probe_at <= now)
            {
                silence.pause *= 2;
                silence.probe_at = now + silence.pause;
            }
        }
        self.probing = true;
        Ok(Admitted::AsProbe)
    }
}

/// How parcels may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admitted {
    AsOthers,
    AsProbe,
}

/// Lets the next one find out, whatever becomes of this one.
struct Probe<'a>(&'a Publisher);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.state().probing = false;
        self.0.answers.notify_waiters();
    }
}

/// Parcels that are to be stored.
#[derive(Debug)]
pub(super) struct Ask {
    parcels: Arc<Vec<Parcel>>,
    pub(super) range: Range<usize>,
    pub(super) by: Instant,
    /// It finds out about a queue that is silent.
    probe: bool,
    alone: bool,
    stage: Arc<AtomicU8>,
    pub(super) reply: oneshot::Sender<Result<(), Partly>>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// The stages of an ask: it waits, and is then either written or given up.
const WAITS: u8 = 0;
const WRITTEN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Ask {
    pub(super) fn new(
        (parcels, range): (Arc<Vec<Parcel>>, Range<usize>),
        by: Instant,
        (probe, alone): (bool, bool),
        (stage, reply): (Arc<AtomicU8>, oneshot::Sender<Result<(), Partly>>),
        permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> Self {
        Self { parcels, range, by, probe, alone, stage, reply, _permits: permits }
    }

    /// Whether it shares its flight with none. Who finds out about a queue may hang with it.
    pub(super) fn alone(&self) -> bool {
        self.alone || self.probe
    }

    pub(super) fn parcels(&self) -> &[Parcel] {
        &self.parcels[self.range.clone()]
    }

    /// Says whether it is to be written, and that it is from now on.
    pub(super) fn begin(&self) -> bool {
        let begun =
            self.stage.compare_exchange(WAITS, WRITTEN, Ordering::AcqRel, Ordering::Acquire);
        begun != Err(GIVEN_UP) && !self.reply.is_closed()
    }

    pub(super) fn answer(self, result: Result<(), Partly>) {
        // Who asked may have gone.
        let _ = self.reply.send(result);
    }
}

impl Publisher {
    /// Its flights are among these tasks.
    pub(super) fn new(link: Link, tasks: TaskTracker) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            flying: 0,
            idle: Vec::new(),
            silent: HashMap::new(),
            probing: false,
            silences: 0,
            heard: Instant::now(),
        };
        Self {
            link,
            window: Arc::new(Semaphore::new(WINDOW)),
            weight: Arc::new(Semaphore::new(WEIGHT)),
            state: Mutex::new(state),
            answers: Notify::new(),
            tasks,
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a parcel of the queue's own business.
    pub(super) async fn send_one(self: &Arc<Self>, parcel: Parcel) -> Result<(), Partly> {
        self.send_apart(&Arc::new(vec![parcel])).await
    }

    /// Stores parcels of the queue's own business: apart from what users publish as long as some queue does not answer, as
    /// another one may be about to.
    pub(super) async fn send_apart(
        self: &Arc<Self>,
        parcels: &Arc<Vec<Parcel>>,
    ) -> Result<(), Partly> {
        let apart = !self.state().silent.is_empty();
        self.send_as(parcels, apart).await
    }

    /// Stores all parcels in order. Returns when the broker has confirmed each of them.
    pub(super) async fn send(self: &Arc<Self>, parcels: &Arc<Vec<Parcel>>) -> Result<(), Partly> {
        self.send_as(parcels, false).await
    }

    /// The same, in flights of their own: on a channel that publishes to a queue for the first time the broker asks that
    /// queue, and does nothing else until it answers.
    pub(super) async fn send_alone(
        self: &Arc<Self>,
        parcels: &Arc<Vec<Parcel>>,
    ) -> Result<(), Partly> {
        self.send_as(parcels, true).await
    }

    async fn send_as(
        self: &Arc<Self>,
        parcels: &Arc<Vec<Parcel>>,
        alone: bool,
    ) -> Result<(), Partly> {
        let by = Instant::now() + self.link.settings().confirm_timeout;
        let mut sent = 0;
        while sent < parcels.len() {
            let (mut count, mut weight) = (0, 0);
            for parcel in parcels[sent..].iter().take(FLIGHT) {
                if count > 0 && weight + parcel.weight() > FLIGHT_WEIGHT {
                    break;
                }
                count += 1;
                weight += parcel.weight();
            }
            let outcome = self.repeat(parcels, sent..sent + count, weight, (by, alone)).await;
            outcome.map_err(|mut partly| {
                partly.may_have_applied |= sent > 0;
                partly
            })?;
            sent += count;
        }
        Ok(())
    }

    /// Sends again what was refused. Meanwhile it has no place among the messages on their way.
    async fn repeat(
        self: &Arc<Self>,
        parcels: &Arc<Vec<Parcel>>,
        range: Range<usize>,
        weight: usize,
        (by, alone): (Instant, bool),
    ) -> Result<(), Partly> {
        loop {
            let late =
                || Partly::nothing(Fault::Late("a publish before this one to the same queue"));
            let some = &parcels[range.clone()];
            let admitted = timeout_at(by, self.answering(some)).await.map_err(|_| late())?;
            let probes = admitted == Admitted::AsProbe;
            let chunk = self.chunk(parcels, range.clone(), weight, by, (probes, alone));
            let outcome = if probes { self.probe(some, chunk).await } else { chunk.await };
            match outcome {
                None => {}
                Some(Err(Partly { fault: Fault::Refused, may_have_applied: false }))
                    if Instant::now() + REFUSED < by =>
                {
                    sleep(REFUSED).await;
                }
                Some(outcome) => return outcome,
            }
        }
    }

    /// Waits until none of the queues is silent, or it is time to find out.
    async fn answering(&self, parcels: &[Parcel]) -> Admitted {
        loop {
            let answers = self.answers.notified();
            let admitted = self.state().admit(parcels, Instant::now());
            match admitted {
                Ok(admitted) => return admitted,
                Err(None) => answers.await,
                Err(Some(next)) => drop(timeout_at(next, answers).await),
            }
        }
    }

    /// Finds out whether queues answer over another channel.
    async fn probe(
        &self,
        parcels: &[Parcel],
        chunk: impl Future<Output = Option<Result<(), Partly>>>,
    ) -> Option<Result<(), Partly>> {
        let probe = Probe(self);
        let mut chunk = pin!(chunk);
        // The next one need not wait until this one is given up.
        let Ok(outcome) = timeout(PROBING, &mut chunk).await else {
            drop(probe);
            return chunk.await;
        };
        if matches!(outcome, Some(Ok(()))) {
            self.heard_of(parcels);
        }
        outcome
    }

    /// Queues that were silent have answered somebody else: it is only a channel that hangs.
    fn heard_of(&self, parcels: &[Parcel]) {
        let mut state = self.state();
        for parcel in parcels {
            state.silent.remove(&parcel.queue);
        }
        // Who waits is told when the probe is over.
    }

    /// A flight waits no longer for these queues.
    pub(super) fn answered(&self, queues: &[(ShortString, u64)]) {
        let mut over = false;
        {
            let mut state = self.state();
            for (queue, number) in queues {
                over |= state.unsilence(queue, *number);
            }
        }
        if over {
            self.answers.notify_waiters();
        }
    }

    /// Begins a flight, if there is a place for one.
    pub(super) fn depart(self: &Arc<Self>) {
        let departs = {
            let mut state = self.state();
            let departs = state.flying < FLIGHTS;
            state.flying += usize::from(departs);
            departs
        };
        if departs {
            // A task of its own: it carries the messages of others, whoever of them stops waiting. It ends with what is
            // waiting, and each of its steps has a limit.
            self.tasks.spawn(fly(Arc::clone(self)));
        }
    }

    /// Sends once. `None` if nothing was sent, as one of the queues does not answer.
    async fn chunk(
        self: &Arc<Self>,
        parcels: &Arc<Vec<Parcel>>,
        range: Range<usize>,
        weight: usize,
        by: Instant,
        (probe, alone): (bool, bool),
    ) -> Option<Result<(), Partly>> {
        let count = u32::try_from(range.len()).unwrap_or(u32::MAX);
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        let permits = async {
            let window = Arc::clone(&self.window).acquire_many_owned(count).await.ok()?;
            Some((window, Arc::clone(&self.weight).acquire_many_owned(weight).await.ok()?))
        };
        let late = || Partly::nothing(Fault::Late("a place among the messages on their way"));
        let Ok(Some(permits)) = timeout_at(by, permits).await else { return Some(Err(late())) };
        let (reply, answer) = oneshot::channel();
        let stage = Arc::new(AtomicU8::new(WAITS));
        let parcels = (Arc::clone(parcels), range);
        let ask = Ask::new(parcels, by, (probe, alone), (Arc::clone(&stage), reply), permits);
        self.state().waiting.push_back(ask);
        self.depart();
        let in_doubt = || Partly { fault: Fault::Late("a publish"), may_have_applied: true };
        let given_up =
            || stage.compare_exchange(WAITS, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok();
        match timeout_at(by, answer).await {
            Ok(Ok(outcome)) => Some(outcome),
            // It was turned back.
            Ok(Err(_)) if given_up() => None,
            // The runtime ends.
            Ok(Err(_)) => Some(Err(in_doubt())),
            Err(_) if given_up() => Some(Err(Partly::nothing(if self.link.blocked() {
                Fault::Blocked
            } else {
                Fault::Late("a channel")
            }))),
            Err(_) => Some(Err(in_doubt())),
        }
    }
}
