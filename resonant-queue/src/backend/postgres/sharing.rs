//! What is asked for at once shares a round trip, and a commit.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::store::Shared;
use crate::error::{Error, Result, closed};

/// Something that one statement can do for several at once.
pub(super) trait Load: Send + Sync + 'static {
    type Answer: fmt::Debug + Send + 'static;

    const OPERATION: &'static str;

    /// The most that share a statement, in messages and in bytes; one alone may be larger.
    const MOST: (usize, usize);

    /// How many messages it is about, and what they weigh.
    fn size(&self) -> (usize, usize);

    /// Does it for all. Answers come in the order of what asked.
    fn carry(
        shared: &Shared,
        loads: &[&Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>>> + Send;

    /// Whether what stopped them together need not stop each.
    fn is_about_one(error: &Error) -> bool;
}

/// Carries loads, at most so many statements at a time. While they are on their way the next one grows.
#[derive(Debug)]
pub(super) struct Ferry<L: Load> {
    lane: Arc<Mutex<Lane<L>>>,
    boats: usize,
}

#[derive(Debug)]
struct Lane<L: Load> {
    waiting: VecDeque<Ask<L>>,
    under_way: usize,
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
        let lane = Lane { waiting: VecDeque::new(), under_way: 0 };
        Self { lane: Arc::new(Mutex::new(lane)), boats }
    }

    /// Has it done, together with what others ask for. Dropped, it is done or not done.
    pub(super) async fn carry(&self, shared: &Arc<Shared>, load: L) -> Result<L::Answer> {
        let (reply, answer) = oneshot::channel();
        let departs = {
            let mut lane = locked(&self.lane);
            lane.waiting.push_back(Ask { load, reply });
            let departs = lane.under_way < self.boats;
            lane.under_way += usize::from(departs);
            departs
        };
        if departs {
            // A task of its own: it carries the loads of others, whoever of them stops waiting. It ends with what is
            // waiting, and each of its calls has a limit.
            let (shared, lane) = (Arc::clone(shared), Arc::clone(&self.lane));
            tokio::spawn(async move { cross(&shared, &lane).await });
        }
        answer.await.unwrap_or_else(|_| Err(closed(L::OPERATION).with_may_have_applied()))
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

async fn cross<L: Load>(shared: &Shared, lane: &Mutex<Lane<L>>) {
    let mut landing = Landing { lane, landed: false };
    // Those that were woken together come together.
    tokio::task::yield_now().await;
    loop {
        let asks = {
            let mut lane = locked(lane);
            let asks = take(&mut lane.waiting);
            if asks.is_empty() {
                lane.under_way -= 1;
                landing.landed = true;
                return;
            }
            asks
        };
        let loads: Vec<_> = asks.iter().map(|ask| &ask.load).collect();
        let carried = L::carry(shared, &loads).await;
        drop(loads);
        match carried {
            Ok(answers) => {
                for (ask, answer) in asks.into_iter().zip(answers) {
                    let _ = ask.reply.send(Ok(answer));
                }
            }
            Err(error)
                if asks.len() > 1 && !error.may_have_applied() && L::is_about_one(&error) =>
            {
                for ask in asks {
                    let answer = L::carry(shared, &[&ask.load]).await.and_then(|answers| {
                        answers
                            .into_iter()
                            .next()
                            .ok_or_else(|| super::store::foreign(L::OPERATION))
                    });
                    let _ = ask.reply.send(answer);
                }
            }
            Err(error) => {
                for ask in asks {
                    let _ = ask.reply.send(Err(error.clone()));
                }
            }
        }
    }
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
