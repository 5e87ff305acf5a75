//! Runs the user's closure on a job and says how it ended. Knows the message type, so that nothing below must.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::delivery::{Delivery, HandlerError, Progress, Run, line};
use crate::lanes::{Failure, Outcome, Verdict};
use crate::message::Message;
use crate::trace;
use crate::version::{Unreadable, Versions};

/// Where a job comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
}

/// A handler of jobs, whatever its messages are.
pub(crate) trait Handle: Send + Sync + 'static {
    /// Hands the messages to the user's closure. Dropping the future stops the closure.
    fn handle<'a>(&'a self, messages: &'a [Message], origin: Origin) -> BoxFuture<'a, Outcome>;
}

/// Calls a closure for each message.
pub(crate) struct Single<T, F> {
    handler: F,
    timeout: Option<Duration>,
    versions: Arc<Versions>,
    message: PhantomData<fn() -> T>,
}

/// Calls a closure for each run.
pub(crate) struct Runs<T, F> {
    handler: F,
    timeout: Option<Duration>,
    versions: Arc<Versions>,
    message: PhantomData<fn() -> T>,
}

impl<T, F> Single<T, F> {
    pub(crate) fn new(handler: F, timeout: Option<Duration>, versions: Arc<Versions>) -> Self {
        Self { handler, timeout, versions, message: PhantomData }
    }
}

impl<T, F> Runs<T, F> {
    pub(crate) fn new(handler: F, timeout: Option<Duration>, versions: Arc<Versions>) -> Self {
        Self { handler, timeout, versions, message: PhantomData }
    }
}

impl<T, F> fmt::Debug for Single<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Single")
    }
}

impl<T, F> fmt::Debug for Runs<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runs")
    }
}

impl<T, F, Fut> Handle for Single<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: FnOnce(Delivery<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn handle<'a>(&'a self, messages: &'a [Message], origin: Origin) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Some(message) = messages.first() else { return Outcome { done: 0, failure: None } };
            match decode(&self.versions, message, origin) {
                Ok(delivery) => {
                    // The closure itself may panic before it returns a future.
                    let call = async { (self.handler.clone())(delivery).await };
                    let call = call.instrument(trace::process(&messages[..1], origin));
                    match guarded(call, self.timeout).await {
                        Ok(()) => Outcome { done: 1, failure: None },
                        Err(failure) => Outcome { done: 0, failure: Some(failure) },
                    }
                }
                Err(failure) => Outcome { done: 0, failure: Some(failure) },
            }
        })
    }
}

impl<T, F, Fut> Handle for Runs<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: FnOnce(Run<T>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn handle<'a>(&'a self, messages: &'a [Message], origin: Origin) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let mut deliveries = Vec::with_capacity(messages.len());
            for message in messages {
                match decode(&self.versions, message, origin) {
                    Ok(delivery) => deliveries.push(delivery),
                    Err(failure) if deliveries.is_empty() => {
                        return Outcome { done: 0, failure: Some(failure) };
                    }
                    // What comes before it goes first; it will be the head of the next run.
                    Err(_) => break,
                }
            }
            let count = deliveries.len();
            let progress = Progress::default();
            let run = Run::new(deliveries, progress.clone());
            let call = async { (self.handler.clone())(run).await };
            let call = call.instrument(trace::process(&messages[..count], origin));
            match guarded(call, self.timeout).await {
                Ok(()) => Outcome { done: count, failure: None },
                Err(failure) => {
                    let done = progress.get().min(count);
                    Outcome { done, failure: (done < count).then_some(failure) }
                }
            }
        })
    }
}

fn decode<T: DeserializeOwned>(
    versions: &Versions,
    message: &Message,
    origin: Origin,
) -> Result<Delivery<T>, Failure> {
    match versions.decode(message) {
        Ok(decoded) => Ok(Delivery::new(decoded, message, origin.partition, origin.epoch)),
        Err(Unreadable::Broken(why)) => {
            Err(Failure { verdict: Verdict::Poison, error: line(&why) })
        }
        Err(Unreadable::Later(why)) => Err(Failure { verdict: Verdict::Later, error: line(&why) }),
    }
}

/// Awaits a handler; a panic and a time-out are failures like any other.
async fn guarded(
    call: impl Future<Output = Result<(), HandlerError>>,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    // The error's own text is the user's code too.
    let call = call.map(|ended| {
        ended.map_err(|error| Failure { verdict: error.verdict, error: error.line() })
    });
    let call = AssertUnwindSafe(call).catch_unwind();
    let ended = match timeout {
        None => call.await,
        Some(limit) => match tokio::time::timeout(limit, call).await {
            Ok(ended) => ended,
            Err(_) => return Err(retry(format!("the handler took longer than {limit:?}"))),
        },
    };
    ended.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// Runs a handler's job. What panics outside the handler itself, such as reading the body or dropping what a stopped
/// handler held, is the user's code as well: the first message has failed.
pub(crate) async fn run(handler: &dyn Handle, messages: &[Message], origin: Origin) -> Outcome {
    let job = async { handler.handle(messages, origin).await };
    let outcome = AssertUnwindSafe(job).catch_unwind().await;
    outcome.unwrap_or_else(|panic| Outcome { done: 0, failure: Some(panicked(&*panic)) })
}

fn retry(error: String) -> Failure {
    Failure { verdict: Verdict::Retry(None), error }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    retry(line(&format!("the handler panicked: {text}")))
}
