//! Who to log in as, asked for each new connection.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use resonant_common::error::BoxError;

use crate::{Error, ErrorKind, Result};

/// What a new connection logs in with. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// A password for the URL's user.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// The user as well.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The user, where it is not the URL's.
    pub fn user_name(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, to hand it to the engine.
    pub fn secret(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

type Ask = dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

/// Where credentials come from: a file that is rotated, a vault, a cloud's token service.
///
/// It is asked for each new connection, and once more if what it gave was refused, in case it has just changed. The
/// pool's `connect_timeout` counts for it too. Keep a copy for as long as the source says it is valid.
#[derive(Clone)]
pub struct CredentialsProvider(Arc<Ask>);

impl CredentialsProvider {
    /// A provider.
    pub fn new<F, Fut, E>(provide: F) -> Self
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

    /// Asks for what the next connection to a node logs in with.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`], with what the provider said as the source.
    pub async fn ask(&self, node: &str) -> Result<Credentials> {
        (self.0)().await.map_err(|error| {
            let message = format!("{node}: there are no credentials");
            Error::new(ErrorKind::Unavailable, "connect", message).with_source(error)
        })
    }
}

impl fmt::Debug for CredentialsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider")
    }
}
