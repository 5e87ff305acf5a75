//! The shell around the state machine: does what it says and tells it what came of it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use resonant_common::join::{Node, Topology};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Shared;
use crate::core::{Event, EventKind, Input, Output};
use crate::error::{Error, ErrorKind};
use crate::hook::{self, Hook};
use crate::observe::Observer;
use crate::region::{
    Balk, Done, Pledge, PledgedTo, RegionBackend, RegionName, RegionTarget, Unsettled, Verb,
};

pub(super) struct Driver {
    shared: Arc<Shared>,
    regions: BTreeMap<RegionName, Arc<dyn RegionBackend>>,
    order: Vec<RegionName>,
    observers: Vec<Arc<dyn Observer>>,
    hooks: Option<mpsc::Sender<Event>>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        regions: Vec<(RegionName, Arc<dyn RegionBackend>)>,
        observers: Vec<Arc<dyn Observer>>,
        hooks: Vec<Arc<dyn Hook>>,
    ) -> Self {
        let order = regions.iter().map(|(region, _)| region.clone()).collect();
        let hooks = (!hooks.is_empty()).then(|| {
            let (sender, receiver) = mpsc::channel(super::HISTORY);
            let limit = shared.config.step_timeout;
            let running = hook::run_all(hooks, receiver, limit);
            shared.tasks.spawn(shared.stop.clone().run_until_cancelled_owned(running));
            sender
        });
        Self { shared, regions: regions.into_iter().collect(), order, observers, hooks }
    }

    pub(super) async fn run(self, mut inputs: mpsc::Receiver<Input>) {
        let mut ticks = interval(self.shared.config.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                () = self.shared.stop.cancelled() => break,
                _ = ticks.tick() => Input::Tick,
                input = inputs.recv() => match input {
                    Some(input) => input,
                    None => break,
                },
            };
            let mut out = Vec::new();
            let now = self.shared.clock.now();
            self.shared.core().step(now, input, &mut out);
            for output in out {
                self.apply(output);
            }
            self.shared.meter.show(&self.shared.core(), now);
        }
        let mut out = Vec::new();
        self.shared.core().retire(&mut out);
        let casts = out.into_iter().filter_map(|output| match output {
            Output::Cast { voter, ballot, .. } => Some((voter, ballot)),
            _ => None,
        });
        let casts = casts.filter_map(|(voter, ballot)| {
            let voter = self.shared.quorum.as_ref()?.voters().get(voter)?;
            Some(voter.cast(&self.shared.name, ballot))
        });
        // Best effort: a lease that is not given back runs out.
        let _ = timeout(Duration::from_secs(1), futures::future::join_all(casts)).await;
    }

    fn apply(&self, output: Output) {
        match output {
            Output::Cast { voter, round, ballot } => {
                let Some(chosen) = self.shared.quorum.as_ref().and_then(|q| q.voters().get(voter))
                else {
                    return;
                };
                let (chosen, name) = (Arc::clone(chosen), self.shared.name.clone());
                let limit = self.shared.config.lease_ttl / 3;
                let casting = async move { timeout(limit, chosen.cast(&name, ballot)).await };
                self.spawn(casting, move |vote| {
                    let vote = vote.ok().and_then(Result::ok).and_then(Result::ok);
                    Input::Vote { voter, round, vote }
                });
            }
            Output::Probe { region } => {
                let Some(backend) = self.regions.get(&region).cloned() else { return };
                let limit = self.shared.config.probe_timeout;
                let recent = self.shared.config.health_check_interval;
                let probing = async move { timeout(limit, backend.probe(recent)).await };
                self.spawn(probing, move |seen| {
                    let seen = match seen {
                        Ok(Ok(seen)) => seen.map_err(|error| error.to_string()),
                        Ok(Err(_)) => Err(format!("no answer within {limit:?}")),
                        Err(Panicked) => Err("the probe panicked".to_owned()),
                    };
                    Input::Seen { region, seen }
                });
            }
            Output::Ask { primary } => self.ask(&primary),
            Output::Act { id, region, order, verb, peer, limit } => {
                self.act((id, limit), &region, order, verb, peer);
            }
            Output::Publish { epoch, primary } => self.publish(epoch, &primary),
            Output::Event(event) => self.tell(&event),
        }
    }

    fn ask(&self, primary: &RegionName) {
        let Some(target) = self.target(primary) else { return };
        for (number, observer) in self.observers.iter().enumerate() {
            let (observer, target) = (Arc::clone(observer), target.clone());
            let limit = self.shared.config.probe_timeout;
            let primary = target.region.clone();
            let asking = async move { timeout(limit, observer.hears(&target)).await };
            self.spawn(asking, move |heard| {
                // An observer that cannot be asked has heard nothing.
                let heard = matches!(heard, Ok(Ok(Ok(true))));
                Input::Heard { observer: number, primary, heard }
            });
        }
    }

    fn act(
        &self,
        (id, limit): (u64, Duration),
        region: &RegionName,
        order: Pledge,
        verb: Verb,
        peer: Option<RegionName>,
    ) {
        let Some(backend) = self.regions.get(region).cloned() else { return };
        let heir = peer.as_ref().and_then(|peer| self.regions.get(peer).cloned());
        let target = peer.as_ref().and_then(|peer| self.target(peer));
        tracing::debug!(%region, ?verb, epoch = order.epoch, "ordered");
        let name = region.clone();
        let obeying = async move {
            let obeying = obey(&*backend, &name, verb, &order, heir, target);
            timeout(limit, obeying).await
        };
        self.spawn(obeying, move |done| {
            let result = match done {
                Ok(Ok(result)) => result.map_err(balk),
                Ok(Err(_)) => Err(Balk::Unreachable(format!("no answer within {limit:?}"))),
                // It may have done it before.
                Err(Panicked) => Err(Balk::Unreachable("the backend panicked".to_owned())),
            };
            Input::Done { id, result }
        });
    }

    fn target(&self, region: &RegionName) -> Option<RegionTarget> {
        let backend = self.regions.get(region)?;
        let (url, replication_url) = (backend.url(), backend.replication_url());
        Some(RegionTarget { region: region.clone(), url, replication_url })
    }

    fn publish(&self, epoch: u64, primary: &RegionName) {
        let node = |region: &RegionName| {
            let url = self.regions.get(region)?.url();
            Some(Node { name: region.as_str().to_owned(), url })
        };
        let topology = Topology {
            epoch,
            primary: Some(primary.as_str().to_owned()),
            nodes: self.order.iter().filter_map(node).collect(),
        };
        self.shared.topology.send_if_modified(|current| {
            let newer = topology.supersedes(current);
            if newer {
                *current = topology;
            }
            newer
        });
    }

    fn tell(&self, event: &Event) {
        let (cluster, epoch) = (&self.shared.name, event.epoch);
        match &event.kind {
            EventKind::TwoPrimaries { .. } => {
                tracing::error!(%cluster, epoch, kind = ?event.kind, "several regions take writes");
            }
            EventKind::Balked { .. } | EventKind::RegionDown { .. } | EventKind::Refused { .. } => {
                tracing::warn!(%cluster, epoch, kind = ?event.kind, "failover manager");
            }
            _ => tracing::info!(%cluster, epoch, kind = ?event.kind, "failover manager"),
        }
        self.shared.meter.count(event);
        self.shared.remember(event);
        if let Some(hooks) = &self.hooks
            && hooks.try_send(event.clone()).is_err()
        {
            tracing::warn!(%cluster, "a hook is so slow that an event passed it by");
        }
    }

    /// Works beside the manager, which hears of the end in any case: it waits for the answer of everything it began.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        heard: impl FnOnce(Result<T, Panicked>) -> Input + Send + 'static,
    ) {
        let (inputs, cluster) = (self.shared.inputs.clone(), self.shared.name.clone());
        let work = async move {
            let done = AssertUnwindSafe(work).catch_unwind().await.map_err(|_| {
                tracing::error!(%cluster, "a backend, a voter or an observer panicked");
                Panicked
            });
            // The manager has ended: nobody waits for it.
            let _ = inputs.send(heard(done)).await;
        };
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(work));
    }
}

/// Code that was given to the manager panicked.
#[derive(Debug)]
struct Panicked;

async fn obey(
    backend: &dyn RegionBackend,
    region: &RegionName,
    verb: Verb,
    order: &Pledge,
    heir: Option<Arc<dyn RegionBackend>>,
    peer: Option<RegionTarget>,
) -> Result<Done, Error> {
    let missing = || Error::new(ErrorKind::Failed, "order", "the other region is not known here");
    match verb {
        Verb::Demote => {
            let heir = heir.ok_or_else(missing)?;
            let (reach, proof) = backend.demote(order, &*heir).await?;
            Ok(Done::Demoted(reach, proof.map(|proof| proof.about(region))))
        }
        Verb::Fence => backend.fence(order).await.map(|proof| Done::Fenced(proof.about(region))),
        Verb::Freeze => backend.freeze(order).await.map(Done::Frozen),
        Verb::Promote => backend.promote(order).await.map(Done::Promoted),
        Verb::Repoint => {
            backend.repoint(order, &peer.ok_or_else(missing)?).await.map(|()| Done::Ok)
        }
        Verb::Confirm => backend.confirm(order).await.map(|()| Done::Ok),
        Verb::Rejoin => backend.rejoin(order, &peer.ok_or_else(missing)?).await.map(Done::Rejoined),
    }
}

fn balk(error: Error) -> Balk {
    match error.kind() {
        ErrorKind::Fenced => {
            let source = std::error::Error::source(&error);
            let pledge = source.and_then(|source| source.downcast_ref::<PledgedTo>());
            Balk::Pledged(pledge.map(|pledged| pledged.0.clone()).unwrap_or_default())
        }
        ErrorKind::Unsettled => {
            let source = std::error::Error::source(&error);
            let why = source.and_then(|source| source.downcast_ref::<Unsettled>());
            Balk::Unsettled(why.cloned().unwrap_or(Unsettled::Replays))
        }
        ErrorKind::Unsupported => Balk::Unsupported,
        ErrorKind::Unavailable | ErrorKind::TimedOut => Balk::Unreachable(error.to_string()),
        _ => Balk::Failed(error.to_string()),
    }
}
