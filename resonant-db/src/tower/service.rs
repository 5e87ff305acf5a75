//! The service the layer makes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::Sessions;
use super::carrier::Carrier;

/// A service whose requests have a session in their extensions; made by [`SessionLayer`](super::SessionLayer).
#[derive(Clone)]
pub struct SessionService<S, D> {
    inner: S,
    sessions: D,
    carrier: Arc<Carrier>,
}

impl<S, D> SessionService<S, D> {
    pub(super) fn new(inner: S, sessions: D, carrier: Arc<Carrier>) -> Self {
        Self { inner, sessions, carrier }
    }
}

impl<S, D, B, R> Service<Request<B>> for SessionService<S, D>
where
    S: Service<Request<B>, Response = Response<R>>,
    D: Sessions,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, D>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let brought = self.carrier.read(request.headers()).map(str::to_owned);
        let resumed = brought.as_deref().map(|token| self.sessions.resume(token));
        let refused = matches!(resumed, Some(None));
        if refused {
            tracing::debug!("a token that is none, or of another database, is dropped");
        }
        let session = resumed.flatten().unwrap_or_else(|| self.sessions.start());
        request.extensions_mut().insert(session.clone());
        let carrier = Arc::clone(&self.carrier);
        let inner = self.inner.call(request);
        ResponseFuture { inner, after: After { session, brought, refused, carrier } }
    }
}

impl<S: fmt::Debug, D> fmt::Debug for SessionService<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer of a [`SessionService`].
    pub struct ResponseFuture<F, D: Sessions> {
        #[pin]
        inner: F,
        after: After<D>,
    }
}

struct After<D: Sessions> {
    session: D::Session,
    brought: Option<String>,
    refused: bool,
    carrier: Arc<Carrier>,
}

impl<D: Sessions> After<D> {
    fn finish<R>(&self, answer: &mut Response<R>) {
        match D::token(&self.session) {
            // Who brought this very one has it.
            Some(token) if self.brought.as_ref() == Some(&token) => {}
            Some(token) => self.carrier.write(answer.headers_mut(), Some(&token)),
            None if self.refused => self.carrier.write(answer.headers_mut(), None),
            None => {}
        }
    }
}

impl<F, D, R, E> Future for ResponseFuture<F, D>
where
    F: Future<Output = Result<Response<R>, E>>,
    D: Sessions,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(context))?;
        this.after.finish(&mut answer);
        Poll::Ready(Ok(answer))
    }
}

impl<F, D: Sessions> fmt::Debug for ResponseFuture<F, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
