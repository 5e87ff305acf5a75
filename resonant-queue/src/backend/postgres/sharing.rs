//! What is asked for at once shares a round trip, and a commit.
//!
//! Company has a price: what holds up one holds up all that are with it. So those that share a statement wait only briefly for
//! locks. If it fails, each is tried by itself, briefly again; those that still wait for a lock then have time, without the
//! others. What may be repeated and still waited for a lock by itself has no company any more until it has gone well once.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, oneshot};

use super::error::is_lock;
use super::store::Shared;
use crate::error::{Error, Result, closed};

/// How long a statement waits for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// As long as the server's settings and the functions say.
    AsSet,
    /// At most so long, in the words of `lock_timeout`.
    AtMost(&'static str),
}

/// The beginning of a statement whose only row of `briefly` sets how long it waits for locks, by the parameter of this
/// name. A shorter limit stays.
macro_rules! briefly {
    ($parameter:literal) => {
        concat!(
            "WITH briefly AS MATERIALIZED (SELECT set_config('lock_timeout',
                CASE WHEN current_setting('lock_timeout')::interval BETWEEN '1 ms' AND ",
            $parameter,
            "::text::interval THEN current_setting('lock_timeout') ELSE ",
            $parameter,
            "::text END, true) AS most) "
        )
    };
}
pub(super) use briefly;

/// In company, and by itself to find out who it was.
const TOGETHER: Wait = Wait::AtMost("1s");
const EACH: Wait = Wait::AtMost("200ms");

/// How many of those that failed together are tried at once, and how many without company are under way.
const APART: usize = 4;

/// Something that one statement can do for several at once.
pub(super) trait Load: Send + Sync + 'static {
    type Answer: fmt::Debug + Send + 'static;

    const OPERATION: &'static str;

    /// Doing it twice changes no more than doing it once, so that it may be tried again when it is in doubt whether it was done.
    const REPEATABLE: bool;

    /// The most that share a statement, in messages and in bytes; one alone may be larger.
    const MOST: (usize, usize);

    /// How many messages it is about, and what they weigh.
    fn size(&self) -> (usize, usize);

    /// The partition it is about, if it is one.
    fn partition(&self) -> Option<i32>;

    /// Does it for all. Answers come in the order of what asked.
    fn carry(
        shared: &Shared,
        loads: &[&Self],
        wait: Wait,
    ) -> impl Future<Output = Result<Vec<Self::Answer>>> + Send;

    /// Whether what stopped them together need not stop each. `same` says that all are about the same partition.
    fn is_about_one(error: &Error, same: bool) -> bool;
}

/// Carries loads, at most so many statements at a time. While they are on their way the next one grows.
#[derive(Debug)]
pub(super) struct Ferry<L: Load> {
    lane: Arc<Mutex<Lane<L>>>,
    boats: usize,
    apart: Arc<Semaphore>,
}

#[derive(Debug)]
struct Lane<L: Load> {
    waiting: VecDeque<Ask<L>>,
    under_way: usize,
    /// Partitions whose last load waited for a lock, by itself.
    apart: HashSet<i32>,
}

#[derive(Debug)]
struct Ask<L: Load> {
    load: L,
    reply: oneshot::Sender<Result<L::Answer>>,
}

fn locked<L: Load>(lane: &Mutex<Lane<L>>) -> MutexGuard<'_, Lane<L>> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<L: Load> Ferry<L> {
    pub(super) fn new(boats: usize) -> Self {
        let lane = Lane { waiting: VecDeque::new(), under_way: 0, apart: HashSet::new() };
        let apart = Arc::new(Semaphore::new(APART));
        Self { lane: Arc::new(Mutex::new(lane)), boats, apart }
    }

    /// Has it done, together with what others ask for. Dropped, it is done or not done.
    pub(super) async fn carry(&self, shared: &Arc<Shared>, load: L) -> Result<L::Answer> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { load, reply };
        // Tasks of their own: they carry the loads of others, whoever of them stops waiting. They end with what is
        // waiting, and each of their calls has a limit.
        let (shared, lane) = (Arc::clone(shared), Arc::clone(&self.lane));
        match self.board(ask) {
            Boarded::Waits => {}
            Boarded::Departs => drop(tokio::spawn(cross(shared, lane))),
            Boarded::Apart(ask) => {
                let apart = Arc::clone(&self.apart);
                tokio::spawn(async move {
                    let _place = apart.acquire().await;
                    alone(&shared, &lane, ask, Wait::AsSet).await;
                });
            }
        }
        answer.await.unwrap_or_else(|_| Err(closed(L::OPERATION).with_may_have_applied()))
    }
}

enum Boarded<L: Load> {
    /// Somebody takes it along.
    Waits,
    /// There is a boat for it and whoever comes until then.
    Departs,
    /// It goes by itself.
    Apart(Ask<L>),
}

impl<L: Load> Ferry<L> {
    fn board(&self, ask: Ask<L>) -> Boarded<L> {
        let mut lane = locked(&self.lane);
        if ask.load.partition().is_some_and(|partition| lane.apart.contains(&partition)) {
            return Boarded::Apart(ask);
        }
        lane.waiting.push_back(ask);
        if lane.under_way >= self.boats {
            return Boarded::Waits;
        }
        lane.under_way += 1;
        Boarded::Departs
    }
}

/// Gives its place back if its task ends before its time.
struct Landing<'a, L: Load> {
    lane: &'a Mutex<Lane<L>>,
    landed: bool,
}

impl<L: Load> Drop for Landing<'_, L> {
    fn drop(&mut self) {
        // Once it has landed, the place may be another task's.
        if !self.landed {
            let mut lane = locked(self.lane);
            lane.under_way -= 1;
            if lane.under_way == 0 {
                // Nobody is left to carry them: who waits is told.
                lane.waiting.clear();
            }
        }
    }
}

async fn cross<L: Load>(shared: Arc<Shared>, lane: Arc<Mutex<Lane<L>>>) {
    let mut landing = Landing { lane: &lane, landed: false };
    // Those that were woken together come together.
    tokio::task::yield_now().await;
    loop {
        let asks = {
            let mut lane = locked(&lane);
            let asks = take(&mut lane.waiting);
            if asks.is_empty() {
                lane.under_way -= 1;
                landing.landed = true;
                return;
            }
            asks
        };
        let first = asks.first().and_then(|ask| ask.load.partition());
        let same = first.is_some() && asks.iter().all(|ask| ask.load.partition() == first);
        let wait = if same || asks.len() == 1 { Wait::AsSet } else { TOGETHER };
        if let Some((error, asks)) = together(&shared, asks, wait).await {
            if asks.len() > 1
                && (L::REPEATABLE || !error.may_have_applied())
                && L::is_about_one(&error, same)
            {
                // Not by this boat: those that come next need not wait for the slowest of them.
                tokio::spawn(part(Arc::clone(&shared), Arc::clone(&lane), asks));
            } else {
                refuse(asks, &error);
            }
        }
    }
}

fn refuse<L: Load>(asks: Vec<Ask<L>>, error: &Error) {
    for ask in asks {
        let _ = ask.reply.send(Err(error.clone()));
    }
}

/// Carries some in one statement. Gives them back if that failed.
async fn together<L: Load>(
    shared: &Shared,
    asks: Vec<Ask<L>>,
    wait: Wait,
) -> Option<(Error, Vec<Ask<L>>)> {
    let loads: Vec<_> = asks.iter().map(|ask| &ask.load).collect();
    let carried = L::carry(shared, &loads, wait).await;
    drop(loads);
    match carried {
        Ok(answers) => {
            for (ask, answer) in asks.into_iter().zip(answers) {
                let _ = ask.reply.send(Ok(answer));
            }
            None
        }
        Err(error) => Some((error, asks)),
    }
}

/// Carries those that failed together.
async fn part<L: Load>(shared: Arc<Shared>, lane: Arc<Mutex<Lane<L>>>, asks: Vec<Ask<L>>) {
    let (shared, lane) = (&*shared, &*lane);
    let each = stream::iter(asks).map(|ask| alone(shared, lane, ask, EACH));
    let waiting: Vec<_> =
        each.buffer_unordered(APART).filter_map(std::future::ready).collect().await;
    if L::REPEATABLE {
        let each = |ask| async { drop(alone(shared, lane, ask, Wait::AsSet).await) };
        stream::iter(waiting).for_each_concurrent(APART, each).await;
    } else if !waiting.is_empty()
        && let Some((error, asks)) = together(shared, waiting, Wait::AsSet).await
    {
        refuse(asks, &error);
    }
}

/// Carries one by itself. Gives it back if it would have had to wait longer for a lock. Who does not wait any more is left
/// out.
async fn alone<L: Load>(
    shared: &Shared,
    lane: &Mutex<Lane<L>>,
    ask: Ask<L>,
    wait: Wait,
) -> Option<Ask<L>> {
    if ask.reply.is_closed() {
        return None;
    }
    let carried = L::carry(shared, &[&ask.load], wait).await;
    let waits = wait != Wait::AsSet && carried.as_ref().is_err_and(is_lock);
    if let Some(partition) = ask.load.partition().filter(|_| L::REPEATABLE) {
        let mut lane = locked(lane);
        if waits {
            lane.apart.insert(partition);
        } else if carried.is_ok() {
            lane.apart.remove(&partition);
        }
    }
    if waits {
        return Some(ask);
    }
    let answer = carried.and_then(|answers| {
        answers.into_iter().next().ok_or_else(|| super::store::foreign(L::OPERATION))
    });
    let _ = ask.reply.send(answer);
    None
}

/// As many as may share a statement. Who does not wait any more is left out.
fn take<L: Load>(waiting: &mut VecDeque<Ask<L>>) -> Vec<Ask<L>> {
    let (mut asks, mut messages, mut bytes) = (Vec::new(), 0_usize, 0_usize);
    while let Some(ask) = waiting.pop_front() {
        if ask.reply.is_closed() {
            continue;
        }
        let (more, heavier) = ask.load.size();
        messages += more;
        bytes += heavier;
        if !asks.is_empty() && (messages > L::MOST.0 || bytes > L::MOST.1) {
            waiting.push_front(ask);
            break;
        }
        asks.push(ask);
    }
    asks
}
