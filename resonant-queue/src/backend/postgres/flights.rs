//! What is published at once into the same place shares a transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::publish::store;
use super::store::{Queue, Shared};
use crate::error::{Error, ErrorKind, Result, closed};
use crate::message::{Outgoing, Receipt};

/// Messages and bytes of bodies that share a transaction at most; a single batch may be larger.
const TOGETHER: usize = 1000;
const BYTES_TOGETHER: usize = 4 << 20;

/// Lets plain batches share transactions: one at a time for each partition, and one for batches that touch several. While
/// one is on its way the next one grows.
#[derive(Debug)]
pub(super) struct Publisher {
    lanes: Vec<Arc<Mutex<Lane>>>,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Ask>,
    flying: bool,
}

#[derive(Debug)]
struct Ask {
    batch: Arc<Vec<Outgoing>>,
    reply: oneshot::Sender<Result<Vec<Receipt>>>,
}

impl Publisher {
    pub(super) fn new(partitions: u32) -> Self {
        Self { lanes: (0..=partitions).map(|_| Arc::default()).collect() }
    }

    pub(super) async fn publish(
        &self,
        shared: &Arc<Shared>,
        queue: &Queue,
        batch: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        let lane = self.lane_of(&batch).ok_or_else(|| closed("publish"))?;
        let (reply, answer) = oneshot::channel();
        let begins = {
            let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.waiting.push_back(Ask { batch, reply });
            !std::mem::replace(&mut lane.flying, true)
        };
        if begins {
            // A task of its own: it carries the messages of others, whoever of them stops waiting. It ends with what is
            // waiting, and each of its calls has a limit.
            let (shared, queue, lane) = (Arc::clone(shared), queue.clone(), Arc::clone(lane));
            tokio::spawn(async move { fly(&shared, &queue, &lane).await });
        }
        answer.await.unwrap_or_else(|_| Err(closed("publish").with_may_have_applied()))
    }

    fn lane_of(&self, batch: &[Outgoing]) -> Option<&Arc<Mutex<Lane>>> {
        let first = batch.first()?.partition;
        if batch.iter().all(|message| message.partition == first) {
            self.lanes.get(first as usize)
        } else {
            self.lanes.last()
        }
    }
}

/// Ends a lane's flying if its task ends before its time: then who waits is told.
struct Landing<'a> {
    lane: &'a Mutex<Lane>,
    landed: bool,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // Once it has landed, the lane may be another task's.
        if !self.landed {
            let mut lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
            lane.flying = false;
            lane.waiting.clear();
        }
    }
}

async fn fly(shared: &Shared, queue: &Queue, lane: &Mutex<Lane>) {
    let mut landing = Landing { lane, landed: false };
    loop {
        let asks = {
            let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            let asks = take(&mut lane.waiting);
            if asks.is_empty() {
                lane.flying = false;
                landing.landed = true;
                return;
            }
            asks
        };
        let batches: Vec<_> = asks.iter().map(|ask| Arc::clone(&ask.batch)).collect();
        match store(shared, queue, &batches).await {
            Ok(mut receipts) => {
                for ask in asks {
                    let rest = receipts.split_off(ask.batch.len().min(receipts.len()));
                    let _ = ask.reply.send(Ok(std::mem::replace(&mut receipts, rest)));
                }
            }
            // What stopped them together need not stop each.
            Err(error) if asks.len() > 1 && !error.may_have_applied() && is_about_one(&error) => {
                for ask in asks {
                    let _ = ask.reply.send(store(shared, queue, &[Arc::clone(&ask.batch)]).await);
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

fn is_about_one(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Full | ErrorKind::Encoding | ErrorKind::Key)
}

/// As many as may share a transaction. Who does not wait any more is left out.
fn take(waiting: &mut VecDeque<Ask>) -> Vec<Ask> {
    let (mut asks, mut messages, mut bytes) = (Vec::new(), 0_usize, 0_usize);
    while let Some(ask) = waiting.pop_front() {
        if ask.reply.is_closed() {
            continue;
        }
        messages += ask.batch.len();
        bytes += ask.batch.iter().map(|message| message.body.len()).sum::<usize>();
        if !asks.is_empty() && (messages > TOGETHER || bytes > BYTES_TOGETHER) {
            waiting.push_front(ask);
            break;
        }
        asks.push(ask);
    }
    asks
}
