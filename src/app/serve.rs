//! Setting the parts going, and listening.

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connections::Counting;
use super::error::{Error, ErrorKind, Result, part};
use super::life::{lock, see_off};
use super::resonant::Resonant;
use crate::http::Api;
use crate::telemetry::{Requests, count_requests};

/// The listener's task.
pub(super) struct Server {
    pub(super) task: JoinHandle<std::io::Result<()>>,
    pub(super) close: watch::Sender<bool>,
    /// How many connections are open, those that were upgraded included.
    pub(super) open: watch::Receiver<usize>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resonant {
    /// Starts the health checks, the failover manager and the scalers, and serves `routes` beside the
    /// [HTTP API](crate::http) where `[http]` says: `/`, `/health` and all below it, and all below `/api/v1` are the API's own.
    /// Answers with the address, or `None` where there is no `[http]`.
    ///
    /// Requests are counted as [`count_requests`] does.
    ///
    /// # Errors
    ///
    /// What was started goes on: correct what is wrong and call it again, or [shut down](Self::shutdown).
    ///
    /// [`Io`](ErrorKind::Io) if the port cannot be had; [`Part`](ErrorKind::Part) for a part that does not start;
    /// [`Missing`](ErrorKind::Missing) if there are routes and no `[http]`, or it serves already.
    pub async fn serve(&self, routes: Router) -> Result<Option<SocketAddr>> {
        self.start().await?;
        let Some(http) = &self.settings().http else {
            return if routes.has_routes() { Err(self.missing("http")) } else { Ok(None) };
        };
        let life = &self.inner.life;
        let mut server = life.server.lock().await;
        if server.is_some() {
            let message = "it serves already; give all routes in one call";
            return Err(Error::new(ErrorKind::Missing, "serve", message));
        }
        let io = |error: std::io::Error| {
            let message = format!("http.listen: {}: {error}", http.listen);
            Error::new(ErrorKind::Io, "serve", message).with_source(error)
        };
        let api = self.api()?;
        let listener = TcpListener::bind(&http.listen).await.map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        let app = routes
            .merge(api.router())
            .layer(middleware::from_fn_with_state(Requests::new(), count_requests))
            .layer(middleware::from_fn_with_state(Arc::clone(&life.traffic), see_off));
        let (close, mut closing) = watch::channel(false);
        let (listener, open) = Counting::new(listener);
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            let _ = closing.wait_for(|close| *close).await;
        });
        *server = Some(Server { task: tokio::spawn(serving.into_future()), close, open });
        Ok(Some(address))
    }

    /// Starts what runs in the background, without listening. [`serve`](Self::serve) does it, too; a second time does nothing,
    /// and after an error it is tried again.
    ///
    /// # Errors
    ///
    /// [`Part`](ErrorKind::Part) for a part that does not start.
    pub async fn start(&self) -> Result<()> {
        let mut started = self.inner.life.started.lock().await;
        if *started {
            return Ok(());
        }
        // What may refuse comes first, and last what can be started only once.
        #[cfg(feature = "queue")]
        let scalers = self.scalers().await?;
        self.health().start().map_err(|error| part("serve", "health", error))?;
        #[cfg(feature = "queue")]
        {
            for scaler in &scalers {
                scaler.start().map_err(|error| part("serve", scaler.name(), error))?;
            }
            *lock(&self.inner.life.scalers) = scalers;
        }
        #[cfg(feature = "ha")]
        if let Some(failover) = &self.inner.failover {
            failover.start().await.map_err(|error| part("serve", "failover", error))?;
        }
        *started = true;
        Ok(())
    }

    /// Waits until the service begins to end: for what lives longer than a request, such as a WebSocket. It has the
    /// `drain_delay` of `[health]` and the time of requests to end by itself; afterwards the parts it may use are closed, and the
    /// report says how many did not end.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.inner.life.stopping();
        async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    fn api(&self) -> Result<Api> {
        let Some(http) = &self.settings().http else { return Err(self.missing("http")) };
        let mut api = http
            .builder()
            .service(self.settings().service.name.clone())
            .health(self.health().clone());
        for scaler in lock(&self.inner.life.scalers).iter() {
            api = api.scaler(scaler.clone());
        }
        #[cfg(feature = "prometheus")]
        if let Some(prometheus) = self.prometheus().cloned() {
            api = api.metrics(move || prometheus.render());
        }
        #[cfg(feature = "ha")]
        if let Some(failover) = &self.inner.failover {
            api = api.topology(failover.subscribe());
        }
        self.tables(api).build().map_err(|error| part("serve", "http", error))
    }
}
