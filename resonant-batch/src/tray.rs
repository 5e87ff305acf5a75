//! Where the outcomes of one batch are collected and its submitters are told: one allocation and one lock for the whole
//! batch, instead of a channel for each item.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::core::Lot;
use crate::error::{Error, Result};
use crate::output::Outcomes;
use crate::sync::{Mutex, MutexGuard};

/// How an outcome is copied when equal items share one.
pub(crate) type Copy<O> = fn(&O) -> O;

#[derive(Debug)]
pub(crate) struct Tray<O> {
    state: Mutex<State<O>>,
}

#[derive(Debug)]
struct State<O> {
    outcome: Outcome<O>,
    wakers: Wakers,
}

/// Those to tell, in the order they asked; `None` once they are gone. A lone item allocates nothing for it.
#[derive(Debug)]
struct Wakers {
    first: Option<Waker>,
    rest: Vec<Option<Waker>>,
    /// Whether the first place is taken, though its owner may be gone.
    started: bool,
}

#[derive(Debug)]
enum Outcome<O> {
    Open,
    Each(Outcomes<O>),
    All(Error),
}

impl<O> Lot for Arc<Tray<O>> {
    #[inline]
    fn open(hint: usize, waker: Option<Waker>) -> Self {
        let mut wakers = Wakers::new(hint);
        (wakers.started, wakers.first) = (waker.is_some(), waker);
        Arc::new(Tray { state: Mutex::new(State { outcome: Outcome::Open, wakers }) })
    }
}

/// Which waker in the tray is ours; none until we first had to wait.
pub(crate) type Token = Option<usize>;

/// The token of the waker a tray was opened with.
pub(crate) const FIRST: Token = Some(0);

impl<O> Tray<O> {
    /// Puts the outcomes down and wakes everybody. Only the first call counts.
    #[inline]
    pub(crate) fn deliver(&self, outcomes: Result<Outcomes<O>>) {
        let mut state = self.lock();
        if !matches!(state.outcome, Outcome::Open) {
            return;
        }
        state.outcome = match outcomes {
            Ok(outcomes) => Outcome::Each(outcomes),
            Err(error) => Outcome::All(error),
        };
        // Nobody asks to be woken any more: the places may stay as they are.
        let (first, rest) = (state.wakers.first.take(), std::mem::take(&mut state.wakers.rest));
        drop(state);
        if let Some(first) = first {
            first.wake();
        }
        if !rest.is_empty() {
            rest.into_iter().flatten().for_each(Waker::wake);
        }
    }

    /// Takes the outcomes of `len` places from `start` on, or asks to be woken.
    #[inline]
    pub(crate) fn poll(
        &self,
        start: usize,
        len: usize,
        token: &mut Token,
        copy: Option<Copy<O>>,
        cx: &mut Context<'_>,
        mut give: impl FnMut(Result<O>),
    ) -> Poll<()> {
        let mut state = self.lock();
        match &mut state.outcome {
            Outcome::Open => {
                match token.and_then(|token| state.wakers.get_mut(token)) {
                    Some(Some(waker)) => waker.clone_from(cx.waker()),
                    Some(empty) => *empty = Some(cx.waker().clone()),
                    None => *token = Some(state.wakers.push(cx.waker().clone())),
                }
                return Poll::Pending;
            }
            Outcome::Each(outcomes) => {
                for outcome in outcomes.as_mut_slice().iter_mut().skip(start).take(len) {
                    let given = match (copy, &*outcome) {
                        // Somebody else may share it.
                        (Some(copy), Some(Ok(output))) => Some(Ok(copy(output))),
                        (Some(_), Some(Err(error))) => Some(Err(error.clone())),
                        _ => outcome.take(),
                    };
                    give(given.unwrap_or_else(|| Err(crate::error::interrupted())));
                }
            }
            Outcome::All(error) => (0..len).for_each(|_| give(Err(error.clone()))),
        }
        Poll::Ready(())
    }

    /// Asks to be woken on behalf of `waker`, before its task has come to ask itself.
    pub(crate) fn register(&self, waker: Waker) -> Token {
        let mut state = self.lock();
        if matches!(state.outcome, Outcome::Open) {
            return Some(state.wakers.push(waker));
        }
        drop(state);
        waker.wake();
        None
    }

    /// Asks not to be woken any more.
    pub(crate) fn unregister(&self, token: Token) {
        let mut state = self.lock();
        let waker = token.and_then(|token| state.wakers.get_mut(token)).and_then(Option::take);
        state.wakers.forget_the_gone();
        drop(state);
        drop(waker);
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wakers {
    #[inline]
    fn new(hint: usize) -> Self {
        Self { first: None, rest: Vec::with_capacity(hint.saturating_sub(1)), started: false }
    }

    #[inline]
    fn push(&mut self, waker: Waker) -> usize {
        if self.started {
            self.rest.push(Some(waker));
            return self.rest.len();
        }
        self.started = true;
        self.first = Some(waker);
        0
    }

    #[inline]
    fn get_mut(&mut self, token: usize) -> Option<&mut Option<Waker>> {
        match token.checked_sub(1) {
            Some(index) => self.rest.get_mut(index),
            None => self.started.then_some(&mut self.first),
        }
    }

    /// Frees the places at the end, so that a caller who comes and goes leaves nothing behind.
    fn forget_the_gone(&mut self) {
        while let Some(None) = self.rest.last() {
            self.rest.pop();
        }
        self.started = self.first.is_some() || !self.rest.is_empty();
    }
}

#[cfg(all(test, not(resonant_model)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_freed_from_the_end_and_given_again() {
        let mut wakers = Wakers::new(1);
        let waker = || Waker::noop().clone();
        let tokens: Vec<_> = (0..3).map(|_| wakers.push(waker())).collect();
        assert_eq!(tokens, [0, 1, 2]);

        wakers.get_mut(0).unwrap().take();
        wakers.forget_the_gone();
        assert_eq!(
            wakers.push(waker()),
            3,
            "the first place is before others that are still taken"
        );
        for token in [1, 2, 3] {
            assert!(wakers.get_mut(token).unwrap().take().is_some());
        }
        wakers.forget_the_gone();
        assert!(wakers.get_mut(0).is_none());
        assert_eq!(wakers.push(waker()), 0);
    }
}
