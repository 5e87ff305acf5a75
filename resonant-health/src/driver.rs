//! The schedule: one task that starts what is due and sleeps until the next is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use resonant_common::duration::after;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::core::Core;

/// How often watchdogs and staleness are looked at even when nothing is due.
const ROUND: Duration = Duration::from_secs(1);

/// The least time between two looks at the executor.
const LEAST: Duration = Duration::from_millis(5);

/// A running schedule.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Schedule {
    pub(crate) fn start(core: &Arc<Core>, runtime: &tokio::runtime::Handle) -> Self {
        // A child: it ends with the checker's last handle even if nobody stops it.
        let stop = core.token.child_token();
        core.schedules.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(core));
        let task = runtime.spawn(drive(running, stop.clone()));
        Self { stop, task }
    }
}

async fn drive(running: Running, stop: CancellationToken) {
    loop {
        let until = tick(&running.0, Instant::now());
        let pause = timeout_at(until, running.0.wake.notified());
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// Starts what is due and returns when to look again.
fn tick(core: &Arc<Core>, now: Instant) -> Instant {
    let members = core.members();
    let mut next = now + ROUND;
    for dog in &members.dogs {
        if let Some(soon) = dog.fact.tick(now) {
            next = next.min(after(now, soon.max(LEAST)));
        }
    }
    for entry in &members.entries {
        let due = entry.due();
        if due > now {
            next = next.min(due);
        } else {
            // The run, started here or joined, goes on in its own task; its result plans the next and wakes us.
            drop(core.run(entry));
        }
    }
    core.publish(true);
    next
}

/// Says that a schedule runs, and that it has ended, however it ended.
struct Running(Arc<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.schedules.fetch_sub(1, Ordering::AcqRel) == 1 {
            for dog in &self.0.members().dogs {
                dog.fact.disarm();
            }
        }
    }
}
