//! Sessions over HTTP: a tower layer that carries the token of a session in a cookie or a header, for axum and tonic.
//!
//! A request brings the token of what its sender has written, handlers read and write through the session that the layer
//! puts into the request's extensions, and the answer takes the new token along. So whoever writes at one process of a
//! service and reads at another one sees what was written, however late the replicas are, and the processes share nothing.
//!
//! ```
//! # fn example(db: resonant_db::Database) {
//! use axum::{Extension, Router, routing::post};
//! use resonant_db::tower::SessionLayer;
//! use resonant_db::{Session, params};
//!
//! async fn rename(Extension(session): Extension<Session>, name: String) -> Result<(), String> {
//!     let update = session.write().execute("UPDATE users SET name = $1", params![name]).await;
//!     update.map(drop).map_err(|error| error.to_string())
//! }
//!
//! let app: Router = Router::new().route("/name", post(rename)).layer(SessionLayer::by_cookie(db));
//! # drop(app); }
//! ```
//!
//! With tonic it is `Server::builder().layer(SessionLayer::by_header(db))`, and a method finds its session with
//! `request.extensions().get::<Session>()`. Clients send the answer's metadata `resonant-session` with their next call.
//!
//! # What is promised
//!
//! - Of requests that a client sends one after the other, each sees all that those before it have written through their
//!   sessions, as the [`Session`](crate::Session) promises it.
//! - A token that cannot be read, or is of another database, is dropped and cleared, and the request goes on without it.
//!
//! # What is not
//!
//! - Of requests that one client sends at the same time, the cookie of the answer that comes last stays: it may be the older
//!   one. Clients that keep the token themselves, in a header, can keep the one of each answer they depend on.
//! - What a handler writes once the head of its answer has left, from the stream of a body, is not in the token.
//! - The token is no secret and not signed: it says how much the database has written. Who forges one moves their own
//!   reads to the primary, and gets nothing else for it.

mod carrier;
mod service;
mod sessions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower_layer::Layer;

use self::carrier::Carrier;

pub use self::service::{ResponseFuture, SessionService};
pub use self::sessions::Sessions;

/// The name of the cookie or the header, unless another one is set.
pub const NAME: &str = "resonant-session";

/// Puts a session into every request, and the token of what it has written into the answer.
///
/// `D` is a [`Database`](crate::Database), whose handlers find a [`Session`](crate::Session) in the extensions, or a
/// [`ReplicaSet<P>`](crate::ReplicaSet), whose handlers find a [`PickSession<P>`](crate::replica_set::PickSession). A service
/// with several databases has a layer for each, under names of their own.
#[derive(Clone)]
pub struct SessionLayer<D> {
    sessions: D,
    carrier: Arc<Carrier>,
}

impl<D: Sessions> SessionLayer<D> {
    /// The token travels in a cookie, for browsers: `resonant-session`, of the whole site, not for scripts, kept for ten
    /// minutes.
    pub fn by_cookie(sessions: D) -> Self {
        let max_age = Duration::from_secs(600);
        let carrier = Carrier::Cookie { name: NAME.into(), max_age, secure: false };
        Self { sessions, carrier: Arc::new(carrier) }
    }

    /// The token travels in a header, for programs and gRPC: `resonant-session` in the request and in the answer.
    pub fn by_header(sessions: D) -> Self {
        let carrier = Carrier::Header(HeaderName::from_static(NAME));
        Self { sessions, carrier: Arc::new(carrier) }
    }

    /// The name of the cookie or the header. One that neither may have is reported in the log, and the name stays.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        match self.carrier.named(name) {
            Some(carrier) => self.carrier = Arc::new(carrier),
            None => {
                tracing::warn!(
                    name,
                    "a cookie or header cannot have this name; the session keeps the usual one"
                );
            }
        }
        self
    }

    /// How long a browser keeps the cookie; longer than replicas are ever late is enough. Default ten minutes. Headers have no
    /// such limit.
    #[must_use]
    pub fn max_age(mut self, limit: Duration) -> Self {
        if let Carrier::Cookie { name, secure, .. } = &*self.carrier {
            let (name, secure) = (name.clone(), *secure);
            self.carrier = Arc::new(Carrier::Cookie { name, max_age: limit, secure });
        }
        self
    }

    /// Whether the cookie travels over TLS only. Default no: a browser would drop it without a word where there is none.
    #[must_use]
    pub fn secure(mut self, only: bool) -> Self {
        if let Carrier::Cookie { name, max_age, .. } = &*self.carrier {
            let (name, max_age) = (name.clone(), *max_age);
            self.carrier = Arc::new(Carrier::Cookie { name, max_age, secure: only });
        }
        self
    }
}

impl<S, D: Clone> Layer<S> for SessionLayer<D> {
    type Service = SessionService<S, D>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.sessions.clone(), Arc::clone(&self.carrier))
    }
}

impl<D> fmt::Debug for SessionLayer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("carrier", &self.carrier).finish_non_exhaustive()
    }
}
