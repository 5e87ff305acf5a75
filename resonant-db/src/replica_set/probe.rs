//! Asking the nodes in the background what they are and how far they are.
//!
//! One task a node, so that a node that hangs holds up nobody. The primary is asked at the interval; a replica right after
//! the primary has answered, as its own answer says the most then, and at one and a half intervals while the primary does
//! not answer. A kick (a write that failed) has all of them asked at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Role;
use super::node::Node;
use super::shared::{Probe, Shared};

/// However many kicks there are, a node is not asked more often than this.
const LEAST_PAUSE: Duration = Duration::from_millis(25);

/// For so many limits more an answer is waited for that is late.
const LATE: u32 = 2;

/// Starts asking, once there is a runtime and somebody to ask. Free when that was done.
pub(super) fn start<P: Clone + Send + Sync + 'static>(shared: &Arc<Shared<P>>) {
    if shared.started.load(Ordering::Acquire) {
        return;
    }
    let view = shared.view();
    let Ok(runtime) = Handle::try_current() else { return };
    if shared.probe.is_none() || view.nodes.len() < 2 {
        return;
    }
    if !shared.started.swap(true, Ordering::AcqRel) {
        for node in &view.nodes {
            watch_node(shared, node, &runtime);
        }
    }
}

/// Watches a node of a set that is being watched.
pub(super) fn watch_node<P: Clone + Send + Sync + 'static>(
    shared: &Arc<Shared<P>>,
    node: &Arc<Node<P>>,
    runtime: &Handle,
) {
    let Some(probe) = shared.probe.clone() else { return };
    let (watcher, node) = (Arc::clone(shared), Arc::clone(node));
    shared.tasks().spawn_on(keep_asking(watcher, node, probe), runtime);
}

async fn keep_asking<P: Clone + Send + Sync + 'static>(
    shared: Arc<Shared<P>>,
    node: Arc<Node<P>>,
    probe: Probe<P>,
) {
    let (mut kicks, mut samples) = (shared.kicks.subscribe(), shared.samples.subscribe());
    let mut excused = false;
    while !node.gone.load(Ordering::Acquire) {
        kicks.borrow_and_update();
        samples.borrow_and_update();
        let asked = Instant::now();
        let limit = shared.config.probe_timeout;
        let mut answer = probe(node.handle.clone());
        match timeout(limit, &mut answer).await {
            Ok(Ok(said)) => shared.observed(&node, asked, said),
            Ok(Err(error)) => shared.missed(&node, asked, &error),
            Err(_) => {
                // This process was held up itself: that says nothing of the node, if it is not the rule.
                excused = !excused && is_late(asked, limit);
                if !excused {
                    shared.missed(&node, asked, &format_args!("no sign of life for {limit:?}"));
                }
                // A late answer brings the node back sooner than another question, which would need another login.
                match timeout(limit * LATE, answer).await {
                    Ok(Ok(said)) => shared.observed(&node, asked, said),
                    _ => shared.missed(&node, asked, &"still no sign of life"),
                }
            }
        }
        sleep_until(asked + LEAST_PAUSE).await;
        pause(&shared, &node, asked, &mut kicks, &mut samples).await;
    }
}

/// Whether the end of a wait was noticed so late that the answer may have come in time.
fn is_late(asked: Instant, limit: Duration) -> bool {
    asked.elapsed() > limit + limit / 5
}

/// Waits for the next reason to ask.
async fn pause<P>(
    shared: &Shared<P>,
    node: &Node<P>,
    asked: Instant,
    kicks: &mut watch::Receiver<u64>,
    samples: &mut watch::Receiver<u64>,
) {
    let interval = shared.config.probe_interval;
    let kick = async {
        if kicks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let reason = async {
        match node.role() {
            Role::Primary => sleep_until(asked + interval).await,
            Role::Replica => {
                let sample = std::pin::pin!(samples.changed());
                let alone = std::pin::pin!(sleep(interval * 3 / 2));
                futures::future::select(sample, alone).await;
            }
        }
    };
    futures::future::select(std::pin::pin!(kick), std::pin::pin!(reason)).await;
}
