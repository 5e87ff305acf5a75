//! Running the user's processor for one batch: a panic, a hang or a wrong answer touches this batch only.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::{Error, ErrorKind, Result, panicked};
use crate::isolate::Isolate;
use crate::output::{BatchOutput, Outcomes, outcomes};

/// The user's processor with its types hidden.
pub(crate) trait Process<K, I, O>: Send + Sync {
    fn process(&self, key: K, items: Vec<I>) -> BoxFuture<'static, Result<Outcomes<O>>>;
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
    F: FnOnce(K, Vec<I>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: BatchOutput> + Send + 'static,
{
    fn process(
        &self,
        key: K,
        items: Vec<I>,
    ) -> BoxFuture<'static, Result<Outcomes<<Fut::Output as BatchOutput>::Item>>> {
        let len = items.len();
        let output = (self.0.clone())(key, items);
        Box::pin(async move { outcomes(output.await, len) })
    }
}

/// The processor with everything that guards it.
pub(crate) struct Runner<K, I, O> {
    pub(crate) process: Box<dyn Process<K, I, O>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) isolate: Option<Isolate<I>>,
}

impl<K: Clone, I, O> Runner<K, I, O> {
    /// Processes a batch. Extra runs to find bad items are counted in `reruns`.
    pub(crate) async fn run(&self, key: K, items: Vec<I>, reruns: &mut u64) -> Result<Outcomes<O>> {
        match &self.isolate {
            Some(isolate) if items.len() > 1 => isolate.run(self, key, items, reruns).await,
            _ => self.attempt(key, items).await,
        }
    }

    /// One call of the processor.
    pub(crate) async fn attempt(&self, key: K, items: Vec<I>) -> Result<Outcomes<O>> {
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
