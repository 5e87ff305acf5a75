//! Running the user's processor for one batch: a panic, a hang or a wrong answer touches this batch only.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::AbortHandle;

use crate::crew::WorkerId;
use crate::desk::Desk;
use crate::error::{Error, ErrorKind, Result, panicked};
use crate::isolate::Isolate;
use crate::key::Key;
use crate::output::{BatchOutput, Outcomes};
use crate::worker::Worker;

/// The user's processor.
pub(crate) trait Process<K, I, O>: Send + Sync + 'static {
    fn process(&self, key: K, items: Vec<I>) -> impl Future<Output = Result<Outcomes<O>>> + Send;
}

/// Hires workers for a processor whose types are hidden. They are known within the worker, so that a batch costs neither a
/// box nor a call through a table.
pub(crate) trait Hire<K, I, O>: Send + Sync
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    fn hire(self: Arc<Self>, desk: Arc<Desk<K, I, O>>, id: WorkerId) -> AbortHandle;
}

/// A closure of key and items. It is cloned for each batch, so that `async move |key, items| …` may use its captures.
pub(crate) struct Keyed<F, Fut>(F, PhantomData<fn() -> Fut>);

impl<F, Fut> Keyed<F, Fut> {
    pub(crate) fn new(process: F) -> Self {
        Self(process, PhantomData)
    }
}

impl<K, I, F, Fut> Process<K, I, <Fut::Output as BatchOutput>::Item> for Keyed<F, Fut>
where
    K: Send + 'static,
    I: Send + 'static,
    F: FnOnce(K, Vec<I>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: BatchOutput> + Send + 'static,
{
    fn process(
        &self,
        key: K,
        items: Vec<I>,
    ) -> impl Future<Output = Result<Outcomes<<Fut::Output as BatchOutput>::Item>>> + Send {
        let len = items.len();
        let output = (self.0.clone())(key, items);
        async move { output.await.into_outcomes(len) }
    }
}

impl<K, I, O, P> Hire<K, I, O> for P
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
    P: Process<K, I, O>,
{
    fn hire(self: Arc<Self>, desk: Arc<Desk<K, I, O>>, id: WorkerId) -> AbortHandle {
        let runtime = desk.settings.runtime.clone();
        runtime.spawn(Worker::new(desk, id).work(self)).abort_handle()
    }
}

/// The processor with everything that guards it.
pub(crate) struct Runner<'a, I, P> {
    pub(crate) process: &'a P,
    pub(crate) timeout: Option<Duration>,
    pub(crate) isolate: Option<&'a Isolate<I>>,
}

impl<I, P> Runner<'_, I, P> {
    /// Processes a batch. Extra runs to find bad items are counted in `reruns`.
    pub(crate) async fn run<K, O>(
        &self,
        key: K,
        items: Vec<I>,
        reruns: &mut u64,
    ) -> Result<Outcomes<O>>
    where
        K: Clone,
        P: Process<K, I, O>,
    {
        match self.isolate {
            // In a box, so that it takes no room where it is not used.
            Some(isolate) if items.len() > 1 => {
                Box::pin(isolate.run(self, key, items, reruns)).await
            }
            _ => self.attempt(key, items).await,
        }
    }

    /// One call of the processor.
    pub(crate) async fn attempt<K, O>(&self, key: K, items: Vec<I>) -> Result<Outcomes<O>>
    where
        P: Process<K, I, O>,
    {
        // The closure itself may panic before it returns a future, hence the block.
        let guarded =
            AssertUnwindSafe(async { self.process.process(key, items).await }).catch_unwind();
        let mut guarded = pin!(guarded);
        let caught = match self.timeout {
            None => guarded.await,
            // No timer for a processor that needs no waiting.
            Some(limit) => match poll_fn(|cx| Poll::Ready(guarded.as_mut().poll(cx))).await {
                Poll::Ready(caught) => caught,
                Poll::Pending => match tokio::time::timeout(limit, guarded).await {
                    Ok(caught) => caught,
                    Err(_) => return Err(too_slow(limit)),
                },
            },
        };
        caught.unwrap_or_else(|_| Err(panicked("submit")))
    }
}

fn too_slow(limit: Duration) -> Error {
    let message =
        format!("the processor took longer than {limit:?} for the batch (max_process_time)");
    Error::new(ErrorKind::TimedOut, "submit", message).with_may_have_applied()
}
