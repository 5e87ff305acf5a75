//! One item in a task of its own.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use resonant_common::error::BoxError;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result, item_failed, panicked};

const OPERATION: &str = "process_all";

/// The task of item `index`; aborted when dropped.
pub(super) struct Task<O> {
    index: usize,
    /// `None` where there is no runtime.
    handle: Option<JoinHandle<Result<O>>>,
}

pub(super) fn spawn<T, F, Fut, O, E>(
    index: usize,
    process: F,
    item: T,
    limit: Option<Duration>,
) -> Task<O>
where
    T: Send + 'static,
    F: FnOnce(T) -> Fut + Send + 'static,
    Fut: Future<Output = Result<O, E>> + Send + 'static,
    O: Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    // The closure itself may panic before it returns a future: it too is called within the task.
    let work = async move {
        let caught = AssertUnwindSafe(async move { process(item).await }).catch_unwind();
        match caught.await {
            Ok(outcome) => outcome.map_err(|error| item_failed(OPERATION, error)),
            Err(_) => Err(panicked(OPERATION)),
        }
    };
    let handle = Handle::try_current().ok().map(|runtime| match limit {
        None => runtime.spawn(work),
        Some(limit) => runtime.spawn(async move {
            timeout(limit, work).await.unwrap_or_else(|_| Err(too_slow(limit)))
        }),
    });
    Task { index, handle }
}

fn too_slow(limit: Duration) -> Error {
    let message = format!("the item took longer than {limit:?} (item_timeout)");
    Error::new(ErrorKind::TimedOut, OPERATION, message).with_may_have_applied()
}

impl<O> Future for Task<O> {
    type Output = (usize, Result<O>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.index;
        let Some(handle) = &mut self.handle else {
            let message = "process_all must be polled within a Tokio runtime";
            return Poll::Ready((index, Err(Error::new(ErrorKind::Config, OPERATION, message))));
        };
        let outcome = ready!(Pin::new(handle).poll(cx)).unwrap_or_else(|_| {
            let message = "the runtime ended before the item was done";
            Err(Error::new(ErrorKind::Closed, OPERATION, message).with_may_have_applied())
        });
        Poll::Ready((index, outcome))
    }
}

impl<O> Drop for Task<O> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}
