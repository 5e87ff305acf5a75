//! Where a submitter waits while the queue is full, and what it holds once its item came in.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::core::{Guest, Seat};
use crate::error::{Result, closed};
use crate::sync::{Mutex, MutexGuard};
use crate::tray::{FIRST, Token, Tray};

/// Accepted items of one submitter, in one batch.
#[derive(Debug)]
pub(crate) struct Place<O> {
    pub(crate) seat: Seat<Arc<Tray<O>>>,
    pub(crate) token: Token,
}

impl<O> Place<O> {
    pub(crate) fn new(seat: Seat<Arc<Tray<O>>>) -> Self {
        let token = if seat.told { FIRST } else { None };
        Self { seat, token }
    }
}

/// The door. Items come in without their submitter being polled, so nobody who sleeps in line stops the others.
#[derive(Debug)]
pub(crate) struct Door<O> {
    state: Mutex<State<O>>,
}

#[derive(Debug)]
struct State<O> {
    places: VecDeque<Place<O>>,
    waker: Option<Waker>,
    sent_home: bool,
}

impl<O> Door<O> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { places: VecDeque::new(), waker: None, sent_home: false };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Waits for the next of one's items to come in.
    pub(crate) fn poll_place(&self, cx: &mut Context<'_>) -> Poll<Result<Place<O>>> {
        let mut state = self.lock();
        if let Some(place) = state.places.pop_front() {
            return Poll::Ready(Ok(place));
        }
        if state.sent_home {
            return Poll::Ready(Err(closed("submit")));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What came in and was not fetched.
    pub(crate) fn leave(&self) -> VecDeque<Place<O>> {
        std::mem::take(&mut self.lock().places)
    }

    /// Nothing more will come in.
    pub(crate) fn send_home(&self) {
        let mut state = self.lock();
        state.sent_home = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O> Guest<Arc<Tray<O>>> for Arc<Door<O>> {
    fn seat(&self, seat: Seat<Arc<Tray<O>>>) {
        let mut state = self.lock();
        let seat = match state.places.back_mut() {
            Some(last) => last.seat.extend(seat),
            None => Some(seat),
        };
        if let Some(seat) = seat {
            // Whoever waits here now waits for this batch: no need to wake it only to tell.
            let token = state.waker.take().and_then(|waker| seat.lot.register(waker));
            state.places.push_back(Place { seat, token });
        }
    }
}
