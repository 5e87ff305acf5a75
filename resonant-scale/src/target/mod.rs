//! What is scaled.

#[cfg(feature = "kubernetes")]
mod kubernetes;
mod pool;

use std::fmt;

use async_trait::async_trait;

use crate::error::Result;
use crate::hpa::{Instance, Scale};

#[cfg(feature = "kubernetes")]
pub use self::kubernetes::{Kubernetes, KubernetesBuilder};
pub use self::pool::WorkerPool;

/// Something with a number of replicas.
///
/// # Contract
///
/// - [`read`](Self::read) tells what was last asked for, by whomever, and what exists. It changes nothing.
/// - [`set`](Self::set) returns when the target has taken the number, not when the replicas are there. `set(n)` again does
///   nothing more.
/// - A target that somebody else scales refuses with [`Owned`](crate::ErrorKind::Owned).
/// - A dropped `set` may have been taken, not, or in part; the next `read` tells. An error of a `set` that may have changed
///   anything says so ([`with_may_have_applied`](crate::Error::with_may_have_applied)).
#[async_trait]
pub trait ScaleTarget: fmt::Debug + Send + Sync + 'static {
    /// How many there are.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if it does not answer.
    async fn read(&self) -> Result<TargetState>;

    /// Asks for `replicas`.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if it does not answer, [`Owned`](crate::ErrorKind::Owned) if somebody
    /// else scales it, [`Closed`](crate::ErrorKind::Closed) if it is no more.
    async fn set(&self, replicas: u32) -> Result<()>;

    /// Whether none at all means that somebody switched it off, so that it is left alone. Default yes, as Kubernetes has it.
    ///
    /// Where it is no, as with a [`WorkerPool`], none are fewer than the minimum as one would be.
    fn zero_is_off(&self) -> bool {
        true
    }
}

/// What a target is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TargetState {
    /// How many there are.
    pub scale: Scale,
    /// Each of them, where metrics are per instance. May be empty.
    pub instances: Vec<Instance>,
}

impl From<Scale> for TargetState {
    fn from(scale: Scale) -> Self {
        Self { scale, instances: Vec::new() }
    }
}
