//! What tests need: a target and a metric that do what a test says, and the suite that every target must pass.

#![expect(clippy::panic, reason = "a suite fails by panicking")]

pub mod cases;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::hpa::{Reading, Scale};
use crate::source::MetricSource;
use crate::target::{ScaleTarget, TargetState};

/// A target that is only a number. Clones are the same target.
#[derive(Debug, Clone, Default)]
pub struct FakeTarget {
    inner: Arc<Mutex<Inner>>,
    released: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    replicas: u32,
    sets: Vec<u32>,
    fails_to_read: bool,
    fails_to_set: bool,
    hangs: bool,
}

impl FakeTarget {
    /// A target of `replicas`.
    pub fn new(replicas: u32) -> Self {
        let target = Self::default();
        target.inner().replicas = replicas;
        target
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many it has.
    pub fn replicas(&self) -> u32 {
        self.inner().replicas
    }

    /// Every number it was asked for.
    pub fn sets(&self) -> Vec<u32> {
        self.inner().sets.clone()
    }

    /// Somebody else changes it.
    pub fn becomes(&self, replicas: u32) {
        self.inner().replicas = replicas;
    }

    /// Whether reading fails from now on.
    pub fn fail_to_read(&self, fails: bool) {
        self.inner().fails_to_read = fails;
    }

    /// Whether changing fails from now on.
    pub fn fail_to_set(&self, fails: bool) {
        self.inner().fails_to_set = fails;
    }

    /// Whether a change is taken but never answered from now on.
    pub fn hang(&self, hangs: bool) {
        self.inner().hangs = hangs;
        if !hangs {
            self.released.notify_waiters();
        }
    }
}

#[async_trait]
impl ScaleTarget for FakeTarget {
    async fn read(&self) -> Result<TargetState> {
        let inner = self.inner();
        if inner.fails_to_read {
            return Err(Error::new(ErrorKind::Unavailable, "read", "told to fail"));
        }
        Ok(Scale::steady(inner.replicas).into())
    }

    async fn set(&self, replicas: u32) -> Result<()> {
        let waits = {
            let mut inner = self.inner();
            inner.sets.push(replicas);
            if inner.fails_to_set {
                return Err(Error::new(ErrorKind::Unavailable, "set", "told to fail"));
            }
            inner.replicas = replicas;
            inner.hangs.then(|| Arc::clone(&self.released))
        };
        if let Some(released) = waits {
            released.notified().await;
        }
        Ok(())
    }
}

/// A metric of one value that a test sets. Clones are the same metric.
#[derive(Debug, Clone)]
pub struct FakeMetric(Arc<Mutex<Option<f64>>>);

impl FakeMetric {
    /// A metric of this value.
    pub fn new(value: f64) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    /// The value from now on; `None` fails.
    pub fn set(&self, value: impl Into<Option<f64>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}

#[async_trait]
impl MetricSource for FakeMetric {
    async fn read(&self) -> Result<Reading> {
        let value = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::new(ErrorKind::Unavailable, "read", "told to fail");
        value.map(Reading::Total).ok_or_else(missing)
    }
}

/// Tests that a [`ScaleTarget`] keeps its contract, one `#[tokio::test]` a case, in a module of the name given.
///
/// What it is given makes a target of so many replicas.
///
/// ```
/// # #[allow(unused_imports, unused_macros)] mod tests {
/// use resonant_scale::testing::FakeTarget;
///
/// resonant_scale::conformance!(my_target, async |replicas| FakeTarget::new(replicas));
/// # }
/// ```
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance! { @cases $make;
                a_dropped_change_can_be_made_again
                asking_again_changes_nothing
                it_goes_to_none_and_back
                reading_changes_nothing
                two_changes_at_once_come_to_one_of_them
                what_was_asked_for_is_read
            }
        }
    };
    (@cases $make:expr; $($case:ident)*) => {
        $(
            #[::tokio::test]
            async fn $case() {
                $crate::testing::cases::$case($make).await;
            }
        )*
    };
}
