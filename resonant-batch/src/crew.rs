//! Which workers there are and whom to call. At most one worker is under way at a time: it calls the next itself if there
//! is more than it can take, so a burst of items costs one wake.

use std::task::Waker;

use tokio::task::AbortHandle;

pub(crate) type WorkerId = usize;

/// What the caller has to do once the lock is free.
#[derive(Debug)]
#[must_use]
pub(crate) enum Call {
    Nobody,
    Wake(Waker),
    Hire(WorkerId),
}

#[derive(Debug)]
pub(crate) struct Crew {
    limit: usize,
    hired: usize,
    next: WorkerId,
    /// Workers with nothing to do; the last one to lie down is called first, its memory is warmest.
    idle: Vec<(WorkerId, Waker)>,
    /// The worker that was called and has not looked yet.
    called: Option<WorkerId>,
    /// The idle worker that wakes itself when the next batch is due.
    timekeeper: Option<WorkerId>,
    handles: Vec<(WorkerId, AbortHandle)>,
}

impl Crew {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            hired: 0,
            next: 0,
            idle: Vec::new(),
            called: None,
            timekeeper: None,
            handles: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn has_timekeeper(&self) -> bool {
        self.timekeeper.is_some()
    }

    /// Calls an idle worker, or hires one. Nobody if one is under way or all are busy: a busy one looks when it is done.
    #[inline]
    pub(crate) fn call(&mut self) -> Call {
        if self.called.is_some() {
            return Call::Nobody;
        }
        if let Some((id, waker)) = self.idle.pop() {
            self.called = Some(id);
            self.timekeeper.take_if(|keeper| *keeper == id);
            return Call::Wake(waker);
        }
        if self.hired < self.limit {
            self.hired += 1;
            self.next += 1;
            self.called = Some(self.next);
            return Call::Hire(self.next);
        }
        Call::Nobody
    }

    /// A worker looks for work, called or not.
    #[inline]
    pub(crate) fn arrive(&mut self, id: WorkerId) {
        self.idle.retain(|(idle, _)| *idle != id);
        self.timekeeper.take_if(|keeper| *keeper == id);
    }

    /// It will take something in its next turn: nobody else has to come.
    #[inline]
    pub(crate) fn claim(&mut self, id: WorkerId) {
        self.called.get_or_insert(id);
    }

    /// It has taken what it wanted.
    #[inline]
    pub(crate) fn busy(&mut self, id: WorkerId) {
        self.called.take_if(|called| *called == id);
    }

    /// It found nothing. `keep_time` makes it the timekeeper.
    #[inline]
    pub(crate) fn rest(&mut self, id: WorkerId, waker: Waker, keep_time: bool) {
        self.called.take_if(|called| *called == id);
        self.idle.push((id, waker));
        if keep_time {
            self.timekeeper = Some(id);
        }
    }

    /// It is no more.
    pub(crate) fn gone(&mut self, id: WorkerId) {
        self.arrive(id);
        self.busy(id);
        self.hired -= 1;
        self.handles.retain(|(other, _)| *other != id);
    }

    /// The runtime is going down: nobody is hired any more.
    pub(crate) fn disband(&mut self) {
        self.limit = 0;
    }

    pub(crate) fn hired(&mut self, id: WorkerId, handle: AbortHandle) {
        if !handle.is_finished() {
            self.handles.push((id, handle));
        }
    }

    /// Everybody idle, to look whether they are needed any more.
    pub(crate) fn everybody_idle(&mut self) -> Vec<Waker> {
        self.timekeeper = None;
        self.idle.drain(..).map(|(_, waker)| waker).collect()
    }

    pub(crate) fn handles(&self) -> Vec<AbortHandle> {
        self.handles.iter().map(|(_, handle)| handle.clone()).collect()
    }
}
