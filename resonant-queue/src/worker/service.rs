//! A handler that is a `tower::Service`, so that its layers (timeouts, limits, retries, tracing) need no twin here.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use resonant_common::error::BoxError;
use tower_service::Service;

use super::WorkerBuilder;
use crate::delivery::{Delivery, HandlerError};
use crate::queue::PartitionedQueue;

/// A [`HandlerError`] as an error that passes through layers: a service that answers with it says what is to happen with
/// the message. Any other error means: try again, after the backoff.
pub struct ServiceError(HandlerError);

impl From<HandlerError> for ServiceError {
    fn from(error: HandlerError) -> Self {
        Self(error)
    }
}

impl fmt::Debug for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceError").field(&self.0).finish()
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for ServiceError {}

impl<T> PartitionedQueue<T> {
    /// A worker that calls a `tower::Service` for each message. Start it with [`WorkerBuilder::start`].
    ///
    /// Each message has a clone of the service, which is called once it is ready; what it answers is not looked at. Its
    /// errors and panics are failures of the message, as those of a [closure](Self::worker).
    ///
    /// ```
    /// # async fn example(queue: resonant_queue::PartitionedQueue<String>) -> resonant_queue::Result<()> {
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use resonant_queue::Delivery;
    /// use tower::{ServiceBuilder, service_fn};
    ///
    /// let service = ServiceBuilder::new()
    ///     .concurrency_limit(8)
    ///     .timeout(Duration::from_secs(30))
    ///     .service(service_fn(|task: Delivery<String>| async move {
    ///         println!("{}", task.message());
    ///         Ok::<_, Infallible>(())
    ///     }));
    /// let worker = queue.worker_service(service).concurrency(64).start().await?;
    /// # drop(worker); Ok(()) }
    /// ```
    pub fn worker_service<S>(
        &self,
        service: S,
    ) -> WorkerBuilder<
        T,
        impl FnOnce(Delivery<T>) -> BoxFuture<'static, Result<(), HandlerError>>
        + Clone
        + Send
        + Sync
        + 'static,
    >
    where
        T: Send + 'static,
        S: Service<Delivery<T>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
    {
        // A service need not be shared by threads, a handler is.
        let service = Arc::new(Mutex::new(service));
        self.worker(move |delivery| -> BoxFuture<'static, Result<(), HandlerError>> {
            let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Box::pin(async move {
                poll_fn(|context| service.poll_ready(context)).await.map_err(failure)?;
                service.call(delivery).await.map(drop).map_err(failure)
            })
        })
    }
}

fn failure(error: impl Into<BoxError>) -> HandlerError {
    match error.into().downcast::<ServiceError>() {
        Ok(error) => error.0,
        Err(error) => HandlerError::retry(error),
    }
}
