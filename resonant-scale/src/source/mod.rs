//! Where metrics come from.

mod function;
#[cfg(feature = "prometheus")]
mod prometheus;
mod text;

use std::fmt;

use async_trait::async_trait;

use crate::error::Result;
use crate::hpa::Reading;

pub use self::function::FromFn;
#[cfg(feature = "prometheus")]
pub use self::prometheus::PrometheusQuery;
pub use self::text::PrometheusText;

/// Something that can be asked for a metric.
///
/// # Contract
///
/// - A call tells what is now, not what was at the last call. The scaler asks once per evaluation, never twice at a time.
/// - Nothing known is an error, never zero: for a missing metric nothing is taken away, for a zero everything is.
/// - The message of an error is shown to operators and kept in the history. It holds no secret.
/// - A dropped call leaves nothing behind.
#[async_trait]
pub trait MetricSource: fmt::Debug + Send + Sync + 'static {
    /// What it is now.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if it is not known.
    async fn read(&self) -> Result<Reading>;
}
