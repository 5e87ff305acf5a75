//! Puts what many tasks send at about the same time into one write.
//!
//! The driver writes as soon as its queue is empty, and a command of a pipeline counts as the last of its queue: so under load
//! most commands cost a system call of their own, which was measured to be most of the time spent. Here commands wait until
//! the other tasks that are ready have had their turn, and are then handed over all at once, which the driver writes together.
//! While few commands are on their way they go directly: nobody waits for company.

use std::sync::atomic::{AtomicUsize, Ordering};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::link::{Command, Fault, Reply, fault, reply};

/// Commands on their way below which a further one goes directly.
const FEW: usize = 2;
/// Commands handed over at a time, at most.
const AT_ONCE: usize = 256;

type Answer = Result<Reply, Fault>;

pub(super) struct Gather {
    client: Client,
    queue: mpsc::Sender<(Command, oneshot::Sender<Answer>)>,
    on_their_way: AtomicUsize,
    _task: AbortOnDropHandle<()>,
}

impl Gather {
    pub(super) fn new(client: Client, max_queued: usize) -> Self {
        let (queue, queued) = mpsc::channel(max_queued);
        let task = AbortOnDropHandle::new(tokio::spawn(hand_over(client.clone(), queued)));
        Self { client, queue, on_their_way: AtomicUsize::new(0), _task: task }
    }

    /// Sends commands in their order; others' may come in between.
    pub(super) async fn send(&self, mut commands: Vec<Command>) -> Vec<Answer> {
        let count = commands.len();
        let before = self.on_their_way.fetch_add(count, Ordering::Relaxed);
        let _leave = Leave { counter: &self.on_their_way, count };
        if count == 1
            && before < FEW
            && let Some(command) = commands.pop()
        {
            return vec![run(&self.client, command).await];
        }
        let waiting: Vec<_> = commands.into_iter().map(|command| self.queue(command)).collect();
        let mut answers = Vec::with_capacity(count);
        for answer in waiting {
            answers.push(match answer {
                Ok(answer) => answer.await.unwrap_or_else(|_| Err(ended())),
                Err(fault) => Err(fault),
            });
        }
        answers
    }

    fn queue(&self, command: Command) -> Result<oneshot::Receiver<Answer>, Fault> {
        let (answer, awaited) = oneshot::channel();
        self.queue.try_send((command, answer)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => {
                Fault::Down("too many commands wait to be sent to the server".into())
            }
            mpsc::error::TrySendError::Closed(_) => ended(),
        })?;
        Ok(awaited)
    }
}

struct Leave<'a> {
    counter: &'a AtomicUsize,
    count: usize,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.count, Ordering::Relaxed);
    }
}

async fn hand_over(client: Client, mut queued: mpsc::Receiver<(Command, oneshot::Sender<Answer>)>) {
    let mut batch = Vec::new();
    let mut on_their_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            count = queued.recv_many(&mut batch, AT_ONCE) => {
                if count == 0 {
                    return;
                }
                // Whoever is ready to send as well does so now.
                tokio::task::yield_now().await;
                while batch.len() < AT_ONCE && let Ok(next) = queued.try_recv() {
                    batch.push(next);
                }
                for (command, answer) in batch.drain(..) {
                    // What nobody waits for any more is not sent.
                    if !answer.is_closed() {
                        let client = &client;
                        on_their_way.push(async move { (run(client, command).await, answer) });
                    }
                }
            }
            Some((outcome, answer)) = on_their_way.next(), if !on_their_way.is_empty() => {
                let _ = answer.send(outcome);
            }
        }
    }
}

async fn run(client: &Client, command: Command) -> Answer {
    let name = CustomCommand::new_static(command.name, ClusterHash::Random, false);
    let answer = client.custom::<Value, _>(name, command.args).await;
    answer.map(reply).map_err(|error| fault(&error))
}

fn ended() -> Fault {
    Fault::Broken("the connection ended before the answer came".into())
}
