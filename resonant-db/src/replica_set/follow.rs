//! Following a topology that somebody else decides on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resonant_common::error::BoxError;
use resonant_common::join::{self, Topology};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::backend::target::name_of;

use super::Role;
use super::node::Node;
use super::probe;
use super::shared::Shared;

/// Takes each topology of a stream, until the stream or the set ends.
pub(super) fn stream<P: Clone + Send + Sync + 'static>(
    shared: &Arc<Shared<P>>,
    mut topologies: watch::Receiver<Topology>,
) {
    let followed = Arc::clone(shared);
    let task = async move {
        loop {
            let topology = topologies.borrow_and_update().clone();
            apply(&followed, &topology);
            if topologies.changed().await.is_err() {
                return;
            }
        }
    };
    spawn(shared, task);
}

/// Asks for a topology again and again.
pub(super) fn ask<P, F, Fut, E>(shared: &Arc<Shared<P>>, every: Duration, ask: F)
where
    P: Clone + Send + Sync + 'static,
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Topology, E>> + Send + 'static,
    E: Into<BoxError>,
{
    let followed = Arc::clone(shared);
    let task = async move {
        let mut failing = false;
        let mut kicks = followed.kicks.subscribe();
        loop {
            match ask().await.map_err(Into::into) {
                Ok(topology) => {
                    failing = false;
                    apply(&followed, &topology);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(database = %followed.name, %error, "the topology cannot be asked for; the last one holds");
                    }
                }
            }
            kicks.borrow_and_update();
            let kick = std::pin::pin!(kicks.changed());
            let pause = std::pin::pin!(tokio::time::sleep(every));
            // A write that fails asks sooner, but not in a busy loop.
            if let futures::future::Either::Left(_) = futures::future::select(kick, pause).await {
                tokio::time::sleep(every / 10).await;
            }
        }
    };
    spawn(shared, task);
}

fn spawn<P>(shared: &Shared<P>, task: impl Future<Output = ()> + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(shared.tasks().spawn_on(task, &runtime)),
        Err(_) => tracing::warn!("a topology can only be followed on a Tokio runtime"),
    }
}

/// Takes a topology if its epoch is above the one that is followed.
pub(super) fn apply<P: Clone + Send + Sync + 'static>(
    shared: &Arc<Shared<P>>,
    topology: &Topology,
) {
    let mut authority = shared.authority();
    // An empty one is what a stream begins with before anything is known.
    let old = authority.told.is_some_and(|(epoch, _)| topology.epoch <= epoch);
    if old || topology.nodes.is_empty() {
        tracing::debug!(epoch = topology.epoch, "a topology that is not newer is left alone");
        return;
    }
    let view = shared.view();
    let mut nodes = Vec::new();
    let mut added = Vec::new();
    let mut told = None;
    for wanted in &topology.nodes {
        let known = view.nodes.iter().find(|node| is_same(node, wanted)).cloned();
        let node = match known {
            Some(node) => node,
            None => match open(shared, wanted) {
                Some(node) => {
                    added.push(Arc::clone(&node));
                    node
                }
                None => continue,
            },
        };
        if topology.primary.as_deref() == Some(wanted.name.as_str()) {
            told = Some(node.id);
        }
        nodes.push(node);
    }
    if nodes.is_empty() {
        return;
    }
    authority.told = Some((topology.epoch, told));
    let kept = |node: &Node<P>| nodes.iter().any(|other| other.id == node.id);
    for node in view.nodes.iter().filter(|node| !kept(node)) {
        node.gone.store(true, Ordering::Release);
        shared.publish_lag(node, None);
        tracing::warn!(database = %shared.name, node = %node.name, "the node has left the topology");
    }
    let wanted = authority.forced.or(told);
    let primary = wanted.and_then(|id| nodes.iter().position(|node| node.id == id));
    let epoch = topology.epoch.max(view.epoch + 1);
    let change = shared.publish(nodes, primary, epoch, &view);
    drop(authority);
    shared.announce(Some(change));
    if shared.started.load(Ordering::Acquire)
        && let Ok(runtime) = Handle::try_current()
    {
        for node in &added {
            probe::watch_node(shared, node, &runtime);
        }
    } else {
        probe::start(shared);
    }
}

fn is_same<P>(node: &Node<P>, wanted: &join::Node) -> bool {
    // The same name at another address is another server.
    let by_name = *node.name == *name_of(&wanted.url) && pinned(&node.url) == pinned(&wanted.url);
    let by_url = *node.url == *wanted.url || by_name;
    *node.name == *wanted.name || (!wanted.url.is_empty() && by_url)
}

/// The address a URL is bound to, whatever its host's name means now.
fn pinned(url: &str) -> Option<&str> {
    let (_, options) = url.rsplit_once('?')?;
    options.split('&').find_map(|option| option.strip_prefix("hostaddr="))
}

fn open<P>(shared: &Shared<P>, wanted: &join::Node) -> Option<Arc<Node<P>>> {
    let Some(open) = &shared.open else {
        tracing::warn!(database = %shared.name, node = %wanted.name, "the topology names a node that is not known here; it is left out");
        return None;
    };
    match open(wanted) {
        Ok(handle) => {
            let url = &wanted.url;
            // A URL may hold a password, its name does not.
            let name = if url.is_empty() { wanted.name.as_str() } else { name_of(url) };
            let zones = &shared.config.zones;
            let zone = zones.get(url).or_else(|| zones.get(name)).map(String::as_str);
            let probed = shared.probe.is_some();
            Some(Arc::new(Node::new(name, url, zone, handle, Role::Replica, probed)))
        }
        Err(error) => {
            tracing::warn!(database = %shared.name, node = %wanted.name, %error, "a node of the topology cannot be used");
            None
        }
    }
}
