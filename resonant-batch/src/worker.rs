//! The workers: at most `max_in_flight`, hired when first needed, kept for the life of the processor. Batches run here and
//! never in a submitter's future; no task is spawned for a batch.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::Instrument;

use crate::core::{Places, Ticket};
use crate::crew::WorkerId;
use crate::desk::{Desk, TakenBatch};
use crate::error::{Result, interrupted};
use crate::key::Key;
use crate::output::Outcomes;
use crate::process::{Process, Runner};
use crate::state::{Pause, Step};
use crate::trace::Callers;
use crate::tray::Tray;

pub(crate) struct Worker<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    desk: Arc<Desk<K, I, O>>,
    id: WorkerId,
    /// The batch it has run, until it says so with its next step: one lock for both.
    finished: Option<Ticket>,
    retired: bool,
}

impl<K, I, O> Worker<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    /// Made before its task is spawned: a runtime that is going down drops the task unrun, and that is noticed too.
    pub(crate) fn new(desk: Arc<Desk<K, I, O>>, id: WorkerId) -> Self {
        Self { desk, id, finished: None, retired: false }
    }

    pub(crate) async fn work<P: Process<K, I, O>>(mut self, process: Arc<P>) {
        while let Some(batch) = self.next().await {
            self.finished = self.run(&*process, batch).await;
        }
        self.retired = true;
    }

    /// Waits for a batch. Before taking one it lets a turn of the scheduler pass, so that submitters that are ready to run
    /// join the batch, and a worker that is never out of work starves nobody. A lone item is spared the turn.
    async fn next(&mut self) -> Option<TakenBatch<K, I, O>> {
        let mut pause = Pause::Busy;
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        poll_fn(move |cx| {
            loop {
                match self.desk.step(self.id, pause, self.finished.take(), cx) {
                    Step::Run(batch, _) => return Poll::Ready(Some(batch)),
                    Step::Retire => return Poll::Ready(None),
                    Step::Yield => {
                        pause = Pause::Yielded;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Step::Rest(due) => {
                        pause = Pause::Rested;
                        if !rings(&mut alarm, due, cx) {
                            return Poll::Pending;
                        }
                    }
                }
            }
        })
        .await
    }

    async fn run<P: Process<K, I, O>>(
        &self,
        process: &P,
        batch: TakenBatch<K, I, O>,
    ) -> Option<Ticket> {
        let TakenBatch { key, items, lot, trigger, at_once, opened, weight, .. } = batch;
        let TakenBatch { callers, ticket, places, .. } = batch;
        let settings = &self.desk.settings;
        let size = items.len();
        // Looking at the clock once more would take longer than the hand-over, which counts as processing then.
        let started = if at_once { opened } else { Instant::now() };
        let span = Callers::span(callers, settings.metrics.name(), size, trigger, weight);
        settings.metrics.started(trigger, size, started.duration_since(opened));

        let running = Running { desk: &self.desk, lot, size, ended: Some((ticket, places)) };
        let mut reruns = 0;
        let (timeout, isolate) = (settings.config.max_process_time, settings.isolate.as_ref());
        let runner = Runner { process, timeout, isolate };
        let run = runner.run(key, items, &mut reruns);
        let outcomes = run.instrument(span).await;
        settings.metrics.processed(&outcomes, size, started.elapsed(), reruns);
        running.finish(outcomes)
    }
}

/// Whether it is time to look again.
fn rings(alarm: &mut Option<Pin<Box<Sleep>>>, due: Option<Instant>, cx: &mut Context<'_>) -> bool {
    let Some(due) = due else {
        *alarm = None;
        return false;
    };
    let sleep = alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
    if sleep.deadline() != due {
        sleep.as_mut().reset(due);
    }
    sleep.as_mut().poll(cx).is_ready()
}

impl<K, I, O> Drop for Worker<K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(ticket) = self.finished.take() {
            self.desk.finish(ticket);
        }
        self.desk.gone(self.id, self.retired);
    }
}

/// A batch in the hands of the processor. However it ends, its items get an outcome and its slot is freed.
struct Running<'a, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    desk: &'a Desk<K, I, O>,
    lot: Arc<Tray<O>>,
    size: usize,
    ended: Option<(Ticket, Places)>,
}

impl<K, I, O> Running<'_, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn finish(mut self, outcomes: Result<Outcomes<O>>) -> Option<Ticket> {
        let (ticket, places) = self.ended.take()?;
        self.lot.deliver(outcomes.map(|outcomes| places.spread(outcomes)));
        Some(ticket)
    }
}

impl<K, I, O> Drop for Running<'_, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn drop(&mut self) {
        if let Some((ticket, _)) = self.ended.take() {
            self.desk.settings.metrics.interrupted(self.size);
            self.lot.deliver(Err(interrupted()));
            self.desk.finish(ticket);
        }
    }
}
