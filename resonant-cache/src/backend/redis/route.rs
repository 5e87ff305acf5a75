//! From keys to servers and back: commands are split by server, pipelined, and follow the slots when they move.
//!
//! What was certainly not carried out is sent again, within the caller's time. What may have been is sent again only if it
//! reads. So nobody's write is applied twice, and none after its caller was told that it failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::cluster::{Cluster, Map};
use super::driver::{Answer, Fault, Reply};
use super::hub::fingerprint;
use super::node::Node;
use super::resp::Command;
use super::scripts::Script;
use super::slots::{redirection, slot};
use super::target::Address;
use super::trace;

pub(super) const PAUSE: Duration = Duration::from_millis(20);
const MAX_ROUNDS: u32 = 16;

/// One command on one key.
#[derive(Debug)]
pub(super) struct Job {
    slot: u16,
    /// Of the stored name, where a replica may answer.
    any: Option<u64>,
    reads: bool,
    script: Option<&'static Script>,
    command: Command,
}

impl Job {
    pub(super) fn get(name: String, any: bool) -> Self {
        let (slot, print) = (slot(name.as_bytes()), fingerprint(name.as_bytes()));
        let command = Command::new("GET", [Bytes::from(name)]);
        Self { slot, any: any.then_some(print), reads: true, script: None, command }
    }

    /// A write without a condition.
    pub(super) fn set(name: String, value: Bytes, ttl_ms: Option<u128>) -> Self {
        let slot = slot(name.as_bytes());
        let mut words = vec![Bytes::from(name), value];
        if let Some(ttl) = ttl_ms {
            words.extend([Bytes::from_static(b"PX"), number(ttl)]);
        }
        let command = Command { name: "SET", args: words };
        Self { slot, any: None, reads: false, script: None, command }
    }

    /// `repeatable` says that doing it twice is as good as once.
    pub(super) fn script(
        script: &'static Script,
        keys: impl IntoIterator<Item = String>,
        args: impl IntoIterator<Item = Bytes>,
        repeatable: bool,
    ) -> Self {
        let mut words = vec![script.sha.clone(), Bytes::new()];
        words.extend(keys.into_iter().map(Bytes::from));
        words[1] = number(words.len() - 2);
        let slot = words.get(2).map_or(0, |key| slot(key));
        words.extend(args);
        let command = Command { name: "EVALSHA", args: words };
        Self { slot, any: None, reads: repeatable, script: Some(script), command }
    }
}

pub(super) fn number(number: impl ToString) -> Bytes {
    Bytes::from(number.to_string())
}

/// Where a job goes next.
#[derive(Debug, Clone)]
enum To {
    Owner,
    /// Not to a replica any more.
    Primary,
    Moved(Address),
    Ask(Address),
}

struct Pending {
    index: usize,
    to: To,
}

impl Cluster {
    /// Carries out jobs, and answers for each in their order.
    pub(super) async fn run(&self, mut jobs: Vec<Job>) -> Vec<Answer> {
        let deadline = Instant::now() + self.command_timeout * 9 / 10;
        let mut pending: Vec<_> = match &mut jobs[..] {
            [job] => match self.once(job).await {
                Some(Next::Done(answer)) => return vec![answer],
                Some(Next::Again(to, wait)) => {
                    if wait {
                        tokio::time::sleep(PAUSE).await;
                    }
                    vec![Pending { index: 0, to }]
                }
                None => vec![Pending { index: 0, to: To::Owner }],
            },
            _ => (0..jobs.len()).map(|index| Pending { index, to: To::Owner }).collect(),
        };
        let (late, asking) = (Fault::TimedOut(self.command_timeout), Command::new("ASKING", []));
        let mut answers: Vec<_> = jobs.iter().map(|_| Err(late.clone())).collect();
        for round in 0..MAX_ROUNDS {
            let map = match tokio::time::timeout_at(deadline, self.map()).await {
                Ok(Ok(map)) => map,
                Ok(Err(fault)) => return jobs.iter().map(|_| Err(fault.clone())).collect(),
                Err(_) => break,
            };
            let (groups, nowhere) = self.group(&map, &jobs, std::mem::take(&mut pending));
            for unserved in nowhere {
                answers[unserved.index] = Err(Fault::Down("no server has the key's slot".into()));
            }
            let limit = deadline.saturating_duration_since(Instant::now());
            let exchanges = groups.into_iter().map(|(node, group)| {
                let commands = commands(&jobs, &group, &asking);
                let limit = self.patience(&node).min(limit);
                async move { (self.tell(&node, &commands, limit).await, node, group) }
            });
            let mut pause = false;
            for (replies, node, group) in futures::future::join_all(exchanges).await {
                let mut replies = replies.into_iter();
                for mut entry in group {
                    if matches!(entry.to, To::Ask(_)) {
                        replies.next();
                    }
                    let none = || Err(Fault::Broken("a command was not answered".into()));
                    let reply = replies.next().unwrap_or_else(none);
                    let job = &mut jobs[entry.index];
                    match self.next(job, &entry.to, &node, reply) {
                        Next::Done(answer) => answers[entry.index] = answer,
                        Next::Again(to, wait) => {
                            pause |= wait;
                            entry.to = to;
                            pending.push(entry);
                        }
                    }
                }
            }
            if pending.is_empty() {
                return answers;
            }
            if pause {
                let wait = PAUSE * (round + 1);
                if Instant::now() + wait >= deadline {
                    break;
                }
                tokio::time::sleep(wait).await;
            }
        }
        for entry in pending {
            answers[entry.index] =
                Err(Fault::Down("the slots are being moved; no server took it".into()));
        }
        answers
    }

    /// The first attempt of a command alone, which as a rule is the last; `None` while nobody knows who has its slot.
    async fn once(&self, job: &mut Job) -> Option<Next> {
        let map = self.known_map()?;
        let node = self.pick(&map, job, &To::Owner)?;
        let reply = self.tell(&node, &[&job.command], self.patience(&node)).await.pop();
        let none = || Err(Fault::Broken("the command was not answered".into()));
        Some(self.next(job, &To::Owner, &node, reply.unwrap_or_else(none)))
    }

    /// Sends commands to a server, in a span where somebody looks.
    async fn tell(&self, node: &Node, commands: &[&Command], limit: Duration) -> Vec<Answer> {
        let span = trace::exchange(node, self.settings.database, commands);
        if span.is_disabled() {
            return node.exchange(commands, limit).await;
        }
        let answers = node.exchange(commands, limit).instrument(span.clone()).await;
        trace::answered(&span, &answers);
        answers
    }

    /// How long a server may take. The primary knows as well, and sooner than a replica that hangs.
    fn patience(&self, node: &Node) -> Duration {
        self.command_timeout / if node.is_replica() { 10 } else { 2 }
    }

    /// Whether the primary that has the job's slot is known to be away.
    pub(super) fn is_away(&self, job: &Job) -> bool {
        let map = self.known_map();
        let range = map.as_ref().and_then(|map| map.range(job.slot));
        range.is_some_and(|range| self.node(&range.primary, false).is_away())
    }

    /// Asks the replicas of a slot whose primary is away; the first answer counts.
    pub(super) async fn ask_replicas(&self, job: Job) -> Option<Reply> {
        let map = self.map().await.ok()?;
        let limit = self.command_timeout / 4;
        let mut command = job.command;
        // In full: a replica may never have heard of it.
        command.name = "EVAL";
        command.args[0] = Bytes::from_static(job.script?.text.as_bytes());
        for replica in &map.range(job.slot)?.replicas {
            let answers = self.node(replica, true).exchange(&[&command], limit).await;
            if let Some(Ok(reply)) = answers.into_iter().next() {
                return Some(reply);
            }
        }
        None
    }

    #[expect(clippy::type_complexity, reason = "groups, and what has no group")]
    fn group(
        &self,
        map: &Map,
        jobs: &[Job],
        pending: Vec<Pending>,
    ) -> (Vec<(Arc<Node>, Vec<Pending>)>, Vec<Pending>) {
        let mut groups: Vec<(Arc<Node>, Vec<Pending>)> = Vec::new();
        let mut nowhere = Vec::new();
        for entry in pending {
            let Some(node) = self.pick(map, &jobs[entry.index], &entry.to) else {
                nowhere.push(entry);
                self.refresh();
                continue;
            };
            match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &node)) {
                Some((_, group)) => group.push(entry),
                None => groups.push((node, vec![entry])),
            }
        }
        (groups, nowhere)
    }

    fn pick(&self, map: &Map, job: &Job, to: &To) -> Option<Arc<Node>> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        if let To::Moved(address) | To::Ask(address) = to {
            return Some(self.node(address, false));
        }
        let range = map.range(job.slot)?;
        if let (To::Owner, Some(print), Some(lag)) = (to, job.any, self.hub.lag()) {
            let now = Instant::now();
            let fit = |replica: &&Address| lag.may_answer(replica, print, now);
            let count = range.replicas.len().max(1);
            let start = TURN.fetch_add(1, Ordering::Relaxed) % count;
            let mut ring = range.replicas.iter().cycle().skip(start).take(range.replicas.len());
            let fit = ring.find(fit).cloned();
            drop(lag);
            let node = fit.map(|replica| self.node(&replica, true)).filter(|node| node.is_up());
            if node.is_some() {
                return node;
            }
        }
        Some(self.node(&range.primary, false))
    }

    fn next(&self, job: &mut Job, to: &To, node: &Node, reply: Answer) -> Next {
        let Err(fault) = reply else { return Next::Done(reply) };
        let from_replica = matches!(to, To::Owner) && job.any.is_some();
        match &fault {
            Fault::Refused(text) => match fault.code() {
                "MOVED" | "ASK" if self.is_cluster => {
                    let Some(address) = redirection(text, node.address()) else {
                        return Next::Done(Err(fault));
                    };
                    if fault.code() == "MOVED" {
                        self.redirected(&address);
                        // Who is sent on and on waits for the servers to agree.
                        let again = matches!(to, To::Moved(_));
                        return Next::Again(To::Moved(address), again);
                    }
                    Next::Again(To::Ask(address), false)
                }
                "NOSCRIPT" => {
                    let Some(script) = job.script else { return Next::Done(Err(fault)) };
                    job.command.name = "EVAL";
                    job.command.args[0] = Bytes::from_static(script.text.as_bytes());
                    Next::Again(to.clone(), false)
                }
                "TRYAGAIN" => Next::Again(to.clone(), true),
                "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN" => {
                    self.refresh();
                    Next::Again(To::Primary, true)
                }
                _ => Next::Done(Err(fault)),
            },
            Fault::Broken(_) if job.reads => Next::Again(To::Primary, false),
            // The primary knows, too.
            Fault::Down(_) | Fault::TimedOut(_) if from_replica && node.is_replica() => {
                Next::Again(To::Primary, false)
            }
            // Whoever follows a redirection to a server that is gone asks the owner anew.
            Fault::Down(_) if matches!(to, To::Moved(_) | To::Ask(_)) => {
                Next::Again(To::Primary, true)
            }
            Fault::Down(_) | Fault::Broken(_) | Fault::TimedOut(_) => {
                self.refresh();
                Next::Done(Err(fault))
            }
        }
    }
}

enum Next {
    Done(Answer),
    /// Again there, after a pause or at once.
    Again(To, bool),
}

/// The commands of a group; one that asks goes behind its permission to, with nothing in between.
fn commands<'a>(jobs: &'a [Job], group: &[Pending], asking: &'a Command) -> Vec<&'a Command> {
    let mut commands = Vec::with_capacity(group.len());
    for entry in group {
        if matches!(entry.to, To::Ask(_)) {
            commands.push(asking);
        }
        commands.push(&jobs[entry.index].command);
    }
    commands
}
