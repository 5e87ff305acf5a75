//! Who to log in as, asked for each new connection.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use resonant_common::error::BoxError;

/// What a new connection logs in with. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: String,
}

impl Credentials {
    /// A password for the node URL's user.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// The user as well.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Asks the user's closure.
#[derive(Clone)]
pub(crate) struct Provider(Arc<Ask>);

type Ask = dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

impl Provider {
    pub(crate) fn new<F, Fut, E>(provide: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let answer = provide();
            Box::pin(async move { answer.await.map_err(Into::into) })
        }))
    }

    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only servers are logged in to"))]
    pub(crate) async fn ask(&self) -> Result<Credentials, BoxError> {
        (self.0)().await
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}
