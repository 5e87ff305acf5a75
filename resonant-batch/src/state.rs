//! What the lock guards: the core and the crew, and the steps that need both.
//!
//! Each step is atomic and says what to do once the lock is free. That nobody is forgotten between the steps, whatever
//! their order, is what `model.rs` checks.

use std::task::{Context, Waker};

use tokio::time::Instant;

use crate::core::{Core, Guest, Lot, Taken, Ticket, Trigger};
use crate::crew::{Call, Crew, WorkerId};
use crate::key::Key;

#[derive(Debug)]
pub(crate) struct State<K, I, C, G> {
    pub(crate) core: Core<K, I, C, G>,
    pub(crate) crew: Crew,
}

/// What a worker that looks for work has to do.
#[derive(Debug)]
pub(crate) enum Step<K, I, C> {
    /// Let others have a turn first: whoever is ready to submit joins the batch.
    Yield,
    /// Run this batch, and call somebody for the next.
    Run(Taken<K, I, C>, Call),
    /// Nothing to do until called, or until the time.
    Rest(Option<Instant>),
    Retire,
}

/// What a worker did just before it looks for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It ran a batch.
    Busy,
    /// It waited for work.
    Rested,
    /// It let others have a turn.
    Yielded,
}

impl<K: Key, I, C: Lot, G: Guest<C>> State<K, I, C, G> {
    pub(crate) fn new(core: Core<K, I, C, G>, workers: usize) -> Self {
        Self { core, crew: Crew::new(workers) }
    }

    /// Calls a worker if there is something to do or a time to keep.
    #[inline]
    pub(crate) fn call(&mut self) -> Call {
        let untimed = || self.core.next_due().is_some() && !self.crew.has_timekeeper();
        if self.core.has_ready() || untimed() { self.crew.call() } else { Call::Nobody }
    }

    /// What the worker `id` has to do next. It has `finished` a batch whose outcomes are delivered.
    #[inline]
    pub(crate) fn step(
        &mut self,
        id: WorkerId,
        pause: Pause,
        finished: Option<Ticket>,
        cx: &Context<'_>,
    ) -> Step<K, I, C> {
        let Self { core, crew } = self;
        if let Some(ticket) = finished {
            core.finish(ticket);
        }
        crew.arrive(id);
        if core.next_due().is_some() {
            core.tick(Instant::now());
        }
        if core.has_ready() {
            if pause == Pause::Busy || (pause == Pause::Rested && !core.is_lone()) {
                crew.claim(id);
                return Step::Yield;
            }
            if let Some(mut taken) = core.take(Instant::now) {
                taken.at_once = pause == Pause::Rested && taken.trigger == Trigger::Idle;
                crew.busy(id);
                let call = self.call();
                return Step::Run(taken, call);
            }
        }
        if core.is_closed() && core.level().queued == 0 {
            crew.busy(id);
            return Step::Retire;
        }
        let due = core.next_due().filter(|_| !crew.has_timekeeper());
        crew.rest(id, cx.waker().clone(), due.is_some());
        Step::Rest(due)
    }

    /// A worker is no more. Those who are idle look whether they are needed any more; unless it retired, nobody is hired
    /// in its place.
    pub(crate) fn gone(&mut self, id: WorkerId, retired: bool) -> Vec<Waker> {
        self.crew.gone(id);
        if !retired {
            self.crew.disband();
        }
        self.crew.everybody_idle()
    }
}
