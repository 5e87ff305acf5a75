//! Bounded concurrent map: [`process_all`] and [`process_stream`].

mod task;

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::poll_fn;
use futures::stream::{self, FuturesUnordered, Stream};
use resonant_common::error::BoxError;

use self::task::Task;
use crate::error::Result;

/// Processes all items of an iterator concurrently, each in a task of its own, never more than a limit at a time.
///
/// Write the closure as `async move |item: Request| { … }`: it is cloned for each item. Choose the limit and how to receive
/// the outcomes on the [`ProcessAll`] this returns; nothing happens before.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), resonant_batch::Error> {
/// let double = async move |n: u32| Ok::<_, std::io::Error>(n * 2);
/// let doubled = resonant_batch::process_all(1..=3, double).limit(2).try_collect().await?;
/// assert_eq!(doubled, [2, 4, 6]);
/// # Ok(()) }
/// ```
///
/// To share one call among many items, use a [`BatchProcessor`](crate::BatchProcessor).
pub fn process_all<I, F, Fut, O, E>(
    items: I,
    process: F,
) -> ProcessAll<stream::Iter<I::IntoIter>, F, O>
where
    I: IntoIterator<Item: Send + 'static>,
    F: FnOnce(I::Item) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'static,
    O: Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    process_stream(stream::iter(items), process)
}

/// As [`process_all`], for the items of a stream. The next item is pulled when there is room for it.
pub fn process_stream<S, F, Fut, O, E>(items: S, process: F) -> ProcessAll<S, F, O>
where
    S: Stream<Item: Send + 'static>,
    F: FnOnce(S::Item) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'static,
    O: Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    ProcessAll {
        input: Some(Box::pin(items)),
        process,
        spawn: task::spawn,
        limit: DEFAULT_LIMIT,
        ordered: true,
        timeout: None,
        running: FuturesUnordered::new(),
        pulled: 0,
        given: 0,
        done: VecDeque::new(),
    }
}

const DEFAULT_LIMIT: usize = 16;

type Spawn<T, F, O> = fn(usize, F, T, Option<Duration>) -> Task<O>;

/// A bounded concurrent map, made by [`process_all`] or [`process_stream`].
///
/// It is a [`Stream`] of one outcome for each item. Or take everything with [`collect`](Self::collect), or stop at the first
/// error with [`try_collect`](Self::try_collect).
///
/// Items run in tasks of their own: they go on while the consumer of the stream is busy elsewhere. A panic fails its item.
/// At most `limit` items run and, in order, at most as many more outcomes wait for their turn.
///
/// Errors: [`ErrorKind::ItemFailed`](crate::ErrorKind::ItemFailed) with the closure's own error as source,
/// [`ErrorKind::Panicked`](crate::ErrorKind::Panicked), [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut),
/// [`ErrorKind::Config`](crate::ErrorKind::Config) without a Tokio runtime, [`ErrorKind::Closed`](crate::ErrorKind::Closed)
/// if the runtime ends first.
///
/// # Cancel safety
///
/// Dropping it aborts the items that run, and pulls no more.
#[must_use = "nothing is processed before it is collected or polled"]
pub struct ProcessAll<S: Stream, F, O> {
    /// `None` once it has ended.
    input: Option<Pin<Box<S>>>,
    process: F,
    spawn: Spawn<S::Item, F, O>,
    limit: usize,
    ordered: bool,
    timeout: Option<Duration>,
    running: FuturesUnordered<Task<O>>,
    pulled: usize,
    given: usize,
    /// Outcomes from item `given` on, for the ordered stream.
    done: VecDeque<Option<Result<O>>>,
}

impl<S: Stream, F: Clone, O> ProcessAll<S, F, O> {
    /// The most items at a time; at least 1. Default 16.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.max(1);
        self
    }

    /// Gives outcomes as they come instead of in the order of the items.
    pub fn unordered(mut self) -> Self {
        self.ordered = false;
        self
    }

    /// The longest one item may take; then it is aborted and fails as timed out. Default none.
    pub fn item_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Processes everything and gives every outcome, whatever fails.
    pub async fn collect(mut self) -> Vec<Result<O>> {
        let mut outcomes = Vec::new();
        while let Some((index, outcome)) = self.next_done().await {
            self.put(&mut outcomes, index, outcome);
        }
        outcomes.into_iter().flatten().collect()
    }

    /// Processes everything, or stops at the first error: the other items are aborted, no more are pulled.
    ///
    /// # Errors
    ///
    /// The first error that happens, of whichever item.
    pub async fn try_collect(mut self) -> Result<Vec<O>> {
        let mut outputs = Vec::new();
        while let Some((index, outcome)) = self.next_done().await {
            self.put(&mut outputs, index, outcome?);
        }
        Ok(outputs.into_iter().flatten().collect())
    }

    fn put<T>(&self, all: &mut Vec<Option<T>>, index: usize, value: T) {
        if !self.ordered {
            return all.push(Some(value));
        }
        if index >= all.len() {
            all.resize_with(index + 1, || None);
        }
        all[index] = Some(value);
    }

    async fn next_done(&mut self) -> Option<(usize, Result<O>)> {
        poll_fn(|cx| self.poll_done(usize::MAX, cx)).await
    }

    /// The next outcome to be ready, with its item's number. Pulls no item from number `end` on.
    fn poll_done(&mut self, end: usize, cx: &mut Context<'_>) -> Poll<Option<(usize, Result<O>)>> {
        while self.running.len() < self.limit && self.pulled < end {
            let Some(input) = &mut self.input else { break };
            match input.as_mut().poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(item)) => {
                    let task = (self.spawn)(self.pulled, self.process.clone(), item, self.timeout);
                    self.running.push(task);
                    self.pulled += 1;
                }
            }
        }
        match Pin::new(&mut self.running).poll_next(cx) {
            // Nothing runs, but more may come.
            Poll::Ready(None) if self.input.is_some() => Poll::Pending,
            polled => polled,
        }
    }
}

impl<S: Stream, F: Clone, O> Stream for ProcessAll<S, F, O> {
    type Item = Result<O>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.ordered {
            let done = ready!(this.poll_done(usize::MAX, cx));
            return Poll::Ready(done.map(|(_, outcome)| outcome));
        }
        loop {
            if let Some(Some(_)) = this.done.front() {
                this.given += 1;
                return Poll::Ready(this.done.pop_front().flatten());
            }
            let end = this.given.saturating_add(this.limit.saturating_mul(2));
            let Some((index, outcome)) = ready!(this.poll_done(end, cx)) else {
                return Poll::Ready(None);
            };
            let place = index - this.given;
            if place >= this.done.len() {
                this.done.resize_with(place + 1, || None);
            }
            this.done[place] = Some(outcome);
        }
    }
}

// The input is boxed; nothing else is ever pinned.
impl<S: Stream, F, O> Unpin for ProcessAll<S, F, O> {}

impl<S: Stream, F, O> fmt::Debug for ProcessAll<S, F, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessAll")
            .field("limit", &self.limit)
            .field("ordered", &self.ordered)
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}
