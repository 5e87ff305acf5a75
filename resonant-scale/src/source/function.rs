//! A closure as a source.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use resonant_common::error::BoxError;

use super::MetricSource;
use crate::error::{Error, ErrorKind, Result};
use crate::hpa::Reading;

type Answer = Pin<Box<dyn Future<Output = Result<Reading, BoxError>> + Send>>;

/// A source made of a closure.
pub struct FromFn {
    read: Box<dyn Fn() -> Answer + Send + Sync>,
}

impl FromFn {
    /// One value for all, such as the depth of a queue.
    pub fn total<F, Fut, E>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<f64, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::reading(move || {
            let value = read();
            async move { value.await.map(Reading::Total) }
        })
    }

    /// Any reading, such as values per instance.
    pub fn reading<F, Fut, E>(read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reading, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self {
            read: Box::new(move || {
                let reading = read();
                Box::pin(async move { reading.await.map_err(Into::into) })
            }),
        }
    }
}

impl fmt::Debug for FromFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

#[async_trait]
impl MetricSource for FromFn {
    async fn read(&self) -> Result<Reading> {
        (self.read)().await.map_err(|error| {
            // The text of the error may hold anything; it goes to the log by way of the source.
            Error::new(ErrorKind::Unavailable, "read", "the metric's closure failed")
                .with_source(error)
        })
    }
}
