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
    /// Those to tell, in the order they asked. `None` once they are gone.
    wakers: Vec<Option<Waker>>,
}

#[derive(Debug)]
enum Outcome<O> {
    Open,
    Each(Outcomes<O>),
    All(Error),
}

impl<O> Lot for Arc<Tray<O>> {
    fn open(hint: usize) -> Self {
        let state = State { outcome: Outcome::Open, wakers: Vec::with_capacity(hint) };
        Arc::new(Tray { state: Mutex::new(state) })
    }
}

/// Which waker in the tray is ours; none until we first had to wait.
pub(crate) type Token = Option<usize>;

impl<O> Tray<O> {
    /// Puts the outcomes down and wakes everybody. Only the first call counts.
    pub(crate) fn deliver(&self, outcomes: Result<Outcomes<O>>) {
        let mut state = self.lock();
        if !matches!(state.outcome, Outcome::Open) {
            return;
        }
        state.outcome = match outcomes {
            Ok(outcomes) => Outcome::Each(outcomes),
            Err(error) => Outcome::All(error),
        };
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Takes the outcomes of `len` places from `start` on, or asks to be woken.
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
                    None => *token = Some(state.register(cx.waker().clone())),
                }
                return Poll::Pending;
            }
            Outcome::Each(outcomes) => {
                for outcome in outcomes.iter_mut().skip(start).take(len) {
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
            return Some(state.register(waker));
        }
        drop(state);
        waker.wake();
        None
    }

    /// Asks not to be woken any more.
    pub(crate) fn unregister(&self, token: Token) {
        let mut state = self.lock();
        let waker = token.and_then(|token| state.wakers.get_mut(token)).and_then(Option::take);
        // So that a caller who comes and goes leaves nothing behind.
        while let Some(None) = state.wakers.last() {
            state.wakers.pop();
        }
        drop(state);
        drop(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O> State<O> {
    fn register(&mut self, waker: Waker) -> usize {
        self.wakers.push(Some(waker));
        self.wakers.len() - 1
    }
}
