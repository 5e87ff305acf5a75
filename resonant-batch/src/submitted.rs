//! The futures of those who wait for their outcomes.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::core::Request;
use crate::desk::{Desk, Entered, Line};
use crate::door::{Door, Place};
use crate::error::Result;
use crate::key::Key;

/// An accepted item: await it for its outcome.
///
/// # Cancel safety
///
/// Dropping it before its batch is dispatched takes the item out of the queue, and a batch everybody has left is not run.
/// Dropping it later changes nothing: the item is processed and its outcome lost.
#[must_use = "dropping it takes the item back"]
pub struct Submitted<'a, I, O, K = ()>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    desk: &'a Desk<K, I, O>,
    stage: Stage<K, I, O>,
}

enum Stage<K, I, O> {
    /// Not accepted yet.
    Entering(Request<K, I>),
    Seated(Place<O>),
    InLine(u64, Arc<Door<O>>),
    Over,
}

impl<K, I, O> Stage<K, I, O> {
    #[inline]
    fn of(entered: Entered<O>) -> Self {
        match entered {
            Entered::Seated(place) => Self::Seated(place),
            Entered::InLine(ticket, door) => Self::InLine(ticket, door),
        }
    }
}

impl<'a, K, I, O> Submitted<'a, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(crate) fn new(desk: &'a Desk<K, I, O>, entered: Entered<O>) -> Self {
        Self { desk, stage: Stage::of(entered) }
    }

    /// The first poll. Whoever was seated with his waker has nothing to ask for yet: whatever comes wakes him.
    #[inline]
    fn poll_entering(
        &mut self,
        mut request: Request<K, I>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<O>> {
        request.waker = Some(cx.waker().clone());
        let entered = match self.desk.enter(request) {
            Ok(entered) => entered,
            Err(error) => return Poll::Ready(Err(error)),
        };
        let told = matches!(&entered, Entered::Seated(place) if place.seat.told);
        self.stage = Stage::of(entered);
        if told { Poll::Pending } else { Pin::new(self).poll(cx) }
    }

    /// A request that is accepted, or put in line, with the first poll.
    pub(crate) fn entering(desk: &'a Desk<K, I, O>, request: Request<K, I>) -> Self {
        Self { desk, stage: Stage::Entering(request) }
    }

    /// Gives up. Whether the item was taken back before it was dispatched.
    pub(crate) fn give_up(&mut self) -> bool {
        let removed = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Entering(_) | Stage::Over => 0,
            Stage::Seated(place) => self.desk.leave(None, [place]),
            Stage::InLine(ticket, door) => self.desk.leave(Some((ticket, &door)), []),
        };
        removed > 0
    }
}

impl<K, I, O> Future for Submitted<'_, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    type Output = Result<O>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let copy = this.desk.settings.copy;
        loop {
            match &mut this.stage {
                Stage::Entering(_) => {
                    let Stage::Entering(request) = std::mem::replace(&mut this.stage, Stage::Over)
                    else {
                        return Poll::Pending;
                    };
                    return this.poll_entering(request, cx);
                }
                Stage::Seated(Place { seat, token }) => {
                    let mut outcome = None;
                    ready!(
                        seat.lot
                            .poll(seat.start, 1, token, copy, cx, |given| outcome = Some(given))
                    );
                    this.stage = Stage::Over;
                    return Poll::Ready(
                        outcome.unwrap_or_else(|| Err(crate::error::interrupted())),
                    );
                }
                Stage::InLine(_, door) => match ready!(door.poll_place(cx)) {
                    Ok(place) => this.stage = Stage::Seated(place),
                    Err(error) => {
                        this.stage = Stage::Over;
                        return Poll::Ready(Err(error));
                    }
                },
                // Polled after its end, as nobody should.
                Stage::Over => return Poll::Pending,
            }
        }
    }
}

// Nothing in it is pinned.
impl<K, I, O> Unpin for Submitted<'_, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
}

impl<K, I, O> Drop for Submitted<'_, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Over) {
            self.give_up();
        }
    }
}

impl<K, I, O> fmt::Debug for Submitted<'_, I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Entering(_) => "not accepted yet",
            Stage::Seated(_) => "accepted",
            Stage::InLine(..) => "in line",
            Stage::Over => "over",
        };
        f.debug_struct("Submitted").field("stage", &stage).finish_non_exhaustive()
    }
}

/// Many accepted items. Waits for them in order: one wake for each batch, not for each item.
pub(crate) struct SubmittedMany<'a, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    desk: &'a Desk<K, I, O>,
    places: VecDeque<Place<O>>,
    line: Option<Line<O>>,
    outcomes: Vec<Result<O>>,
    expected: usize,
}

impl<'a, K, I, O> SubmittedMany<'a, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(crate) fn new(
        desk: &'a Desk<K, I, O>,
        expected: usize,
        places: VecDeque<Place<O>>,
        line: Option<Line<O>>,
    ) -> Self {
        Self { desk, places, line, outcomes: Vec::with_capacity(expected), expected }
    }
}

impl<K, I, O> Future for SubmittedMany<'_, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    type Output = Vec<Result<O>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let copy = this.desk.settings.copy;
        while this.outcomes.len() < this.expected {
            if let Some(Place { seat, token }) = this.places.front_mut() {
                let outcomes = &mut this.outcomes;
                ready!(
                    seat.lot
                        .poll(seat.start, seat.len, token, copy, cx, |given| outcomes.push(given))
                );
                this.places.pop_front();
                continue;
            }
            let Some((_, door)) = &this.line else { break };
            match ready!(door.poll_place(cx)) {
                Ok(place) => this.places.push_back(place),
                Err(error) => this.outcomes.resize_with(this.expected, || Err(error.clone())),
            }
        }
        this.line = None;
        Poll::Ready(std::mem::take(&mut this.outcomes))
    }
}

impl<K, I, O> Unpin for SubmittedMany<'_, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
}

impl<K, I, O> Drop for SubmittedMany<'_, K, I, O>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn drop(&mut self) {
        let line = self.line.take();
        if line.is_some() || !self.places.is_empty() {
            let line = line.as_ref().map(|(ticket, door)| (*ticket, &**door));
            self.desk.leave(line, std::mem::take(&mut self.places));
        }
    }
}
