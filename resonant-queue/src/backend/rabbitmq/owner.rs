//! One opened partition: a task that keeps a channel, takes what is delivered, and notices who comes after.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::ChannelFlowOptions;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control::Record;
use super::error::Fault;
use super::holdings::Holding;
use super::link::Link;
use super::log::Log;
use super::names::{BURIAL, Kind, Names, PREFETCH};
use super::opening::{Opening, Source};
use super::publisher::Publisher;
use super::receiving::{Events, Lost, returned, settled};
use crate::error::{Error, Result, closed, fenced};
use crate::key::Key;

/// How long the queue is given to apply what was acknowledged before the channel is closed.
const SETTLING: Duration = Duration::from_secs(3);

/// What all openings of a queue share.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub(super) names: Names,
    /// How many there are.
    pub(super) partitions: u32,
    pub(super) link: Arc<Link>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) log: Arc<Log>,
    /// All objects were there when they were last looked at.
    pub(super) prepared: Arc<AtomicBool>,
    /// All tasks of the queue.
    pub(super) tasks: TaskTracker,
}

impl Tools {
    /// An object turned out to be gone: all are looked at again before the next call.
    pub(super) fn doubt(&self) {
        self.prepared.store(false, Ordering::Release);
    }

    /// The same, if that is what the fault says.
    pub(super) fn doubt_if_missing(&self, fault: &Fault) {
        if matches!(fault, Fault::Unroutable(_)) || fault.is_missing() {
            self.doubt();
        }
    }
}

/// How an opening stands.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Connecting,
    /// The number tells channels apart.
    Connected(Channel, u64),
    /// A newer epoch was opened.
    Fenced(u64),
    /// It was let go.
    Closed,
}

/// An opened partition.
pub(super) struct Owner {
    pub(super) partition: u32,
    pub(super) epoch: u64,
    pub(super) tools: Tools,
    state: Mutex<Opening>,
    /// Keys the dispatcher believes parked.
    pub(super) parked: Mutex<HashSet<Key>>,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) bell: watch::Sender<u64>,
    /// Held while messages are moved, so that a replay does not begin in the middle of that.
    pub(super) settling: tokio::sync::Mutex<()>,
    pub(super) cycle: Notify,
    pub(super) tidy: Notify,
    asks: mpsc::Sender<oneshot::Sender<u64>>,
    pub(super) end: CancellationToken,
    /// The task is over and what it held was returned.
    pub(super) gone: CancellationToken,
    /// Why there is no channel.
    trouble: Mutex<Option<Fault>>,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("partition", &self.partition)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Owner {
    /// An opening and the future that serves it.
    pub(super) fn new(
        tools: Tools,
        partition: u32,
        epoch: u64,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (asks, asked) = mpsc::channel(8);
        let owner = Arc::new(Self {
            partition,
            epoch,
            tools,
            state: Mutex::new(Opening::new(epoch)),
            parked: Mutex::default(),
            stage: watch::Sender::new(Stage::Connecting),
            bell: watch::Sender::new(0),
            settling: tokio::sync::Mutex::new(()),
            cycle: Notify::new(),
            tidy: Notify::new(),
            asks,
            end: CancellationToken::new(),
            gone: CancellationToken::new(),
            trouble: Mutex::default(),
        });
        let serving = Arc::clone(&owner).serve(asked);
        (owner, serving)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Opening> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn parked_keys(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Fault>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        self.bell.send_modify(|rung| *rung += 1);
    }

    /// The error of an opening that is over.
    pub(super) fn over(&self, operation: &'static str) -> Option<Error> {
        match &*self.stage.borrow() {
            Stage::Fenced(by) => Some(fenced(operation, self.partition, self.epoch, *by)),
            Stage::Closed => Some(closed(operation)),
            Stage::Connecting | Stage::Connected(..) => None,
        }
    }

    /// Waits until there is a channel.
    pub(super) async fn connected(
        &self,
        operation: &'static str,
        wait: Duration,
    ) -> Result<(Channel, u64)> {
        let mut stage = self.stage.subscribe();
        let ready = stage.wait_for(|stage| !matches!(stage, Stage::Connecting));
        let stage = timeout(wait, ready).await.ok().and_then(|stage| stage.ok().map(|s| s.clone()));
        match stage {
            Some(Stage::Connected(channel, number)) => Ok((channel, number)),
            Some(_) => Err(self.over(operation).unwrap_or_else(|| closed(operation))),
            None => {
                let trouble = self.trouble().clone();
                let fault = trouble.unwrap_or(Fault::Late("opening the partition"));
                Err(fault.into_error(operation))
            }
        }
    }

    /// The loop of the opening's task.
    async fn serve(self: Arc<Self>, mut asked: mpsc::Receiver<oneshot::Sender<u64>>) {
        let (mut failures, mut number) = (0_u32, 0);
        let last = loop {
            let connecting = self.connect();
            let lost = tokio::select! {
                () = self.end.cancelled() => break None,
                connected = connecting => match connected {
                    Err(lost) => lost,
                    Ok((channel, mut events)) => {
                        if std::mem::take(&mut failures) > 0 {
                            tracing::info!(partition = self.partition, "reading from RabbitMQ again");
                        }
                        number += 1;
                        self.stage.send_replace(Stage::Connected(channel.clone(), number));
                        self.ring();
                        let lost = self.receive(&channel, &mut events, &mut asked).await;
                        if matches!(lost, Lost::Ended) {
                            break Some((channel, events));
                        }
                        self.stage.send_replace(Stage::Connecting);
                        let _ = timeout(Duration::from_secs(1), channel.close(200, "again".into())).await;
                        self.state().disconnected();
                        lost
                    }
                },
            };
            match lost {
                Lost::Fenced(by) => {
                    self.stage.send_replace(Stage::Fenced(by));
                    self.ring();
                    self.gone.cancel();
                    return;
                }
                Lost::Ended => {}
                Lost::Fault(fault) => {
                    failures += 1;
                    self.tools.doubt_if_missing(&fault);
                    *self.trouble() = Some(fault.clone());
                    if failures == 1 {
                        tracing::warn!(partition = self.partition, error = %fault, "lost the channel to RabbitMQ; making another");
                    }
                    // The first time at once: it may have been only the channel.
                    let wait = Duration::from_millis(100) * (failures - 1).min(5);
                    tokio::select! {
                        () = self.end.cancelled() => break None,
                        () = sleep(wait) => {}
                    }
                }
            }
        };
        self.stage.send_if_modified(|stage| {
            let ends = !matches!(stage, Stage::Fenced(_));
            if ends {
                *stage = Stage::Closed;
            }
            ends
        });
        self.ring();
        if let Some((channel, events)) = last {
            let (here, _) = self.state().here();
            let queue = self.tools.names.partition(self.partition);
            // Should it not answer, what it has not applied comes again.
            let _ = timeout(SETTLING, settled(&self.tools.link, &channel, &queue)).await;
            let _ = timeout(Duration::from_secs(1), channel.close(200, "ended".into())).await;
            drop(events);
            // Counted again before it is said to be gone.
            let _ = returned(&self.tools.link, queue, here, Duration::from_secs(1)).await;
        }
        self.gone.cancel();
    }

    /// Proves that no newer owner is there, then consumes.
    async fn connect(&self) -> Result<(Channel, Events), Lost> {
        let Tools { names, link, log, .. } = &self.tools;
        let open = Record::Open { partition: self.partition, epoch: self.epoch };
        log.append(&open).await.map_err(|partly| partly.fault)?;
        self.not_fenced()?;
        let mut channel = link.consuming(PREFETCH).await?;
        let queue = names.partition(self.partition);
        match link.count(&channel, queue.clone()).await {
            Ok(_) => {}
            Err(fault) if fault.is_missing() => {
                // What was in it is gone with it; the rest may be, too.
                self.tools.doubt();
                if !link.settings().create_queues {
                    return Err(Fault::Missing(queue.to_string()).into());
                }
                sleep(BURIAL).await;
                channel = link.consuming(PREFETCH).await?;
                link.declare(&channel, queue.clone(), &Kind::Messages).await?;
                tracing::warn!(queue = %queue, "the queue was gone and has been created again");
                sleep(link.settings().creation_wait).await;
            }
            Err(fault) => return Err(fault.into()),
        }
        let mut events = Events::new(&channel, &self.tools.tasks);
        events.consume(link, queue, Source::Partition).await?;
        let mut keys = self.state().replaying();
        keys.extend(log.look(|control| control.keys(self.partition, true)));
        keys.sort();
        keys.dedup();
        for key in keys {
            self.replay(&channel, &mut events, key).await?;
        }
        // So that what waits is here when the opening is.
        self.flush(&channel).await?;
        self.take_all(&channel, &mut events).await?;
        Ok((channel, events))
    }

    pub(super) fn not_fenced(&self) -> Result<(), Lost> {
        let current = self.tools.log.look(|control| control.epoch(self.partition));
        if current > self.epoch { Err(Lost::Fenced(current)) } else { Ok(()) }
    }

    pub(super) async fn flush(&self, channel: &Channel) -> Result<(), Fault> {
        let asked = channel.channel_flow(ChannelFlowOptions { active: true });
        self.tools.link.answer("an acknowledgement", asked).await.map(drop)
    }

    /// What it holds, if it does.
    pub(super) fn holding(&self) -> Option<Holding> {
        let (messages, oldest) = self.state().here();
        let holding = Holding { partition: self.partition, epoch: self.epoch, messages, oldest };
        Some(holding).filter(|holding| holding.messages > 0)
    }

    /// How many messages of the partition there are, and when the oldest was published, as far as is known here.
    pub(super) async fn count(&self, by: Instant) -> Option<(u64, Option<u64>)> {
        let (sender, receiver) = oneshot::channel();
        let asking = async {
            self.asks.send(sender).await.ok()?;
            receiver.await.ok()
        };
        let ready = timeout_at(by, asking).await.ok().flatten()?;
        let (here, oldest) = self.state().here();
        Some((ready + here, oldest))
    }
}
