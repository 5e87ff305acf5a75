//! A session with a server while it lasts: deadlines, stopping what runs, the end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;

use super::error::Trouble;
use super::facts::Facts;
use super::settings::Settings;
use super::wire::{self, Cover, Route};

/// How long a dropped statement may take to be answered anyway before it is cancelled.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long one request to cancel may take, and how long its effect.
const CANCEL: Duration = Duration::from_secs(2);
const EFFECT: Duration = Duration::from_millis(50);
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) struct Session {
    pub(super) client: Client,
    pub(super) facts: Arc<Facts>,
    pub(super) driver: AbortOnDropHandle<()>,
    pub(super) settings: Arc<Settings>,
    pub(super) route: Route,
    pub(super) cover: Cover,
    /// How long nothing at all may come.
    pub(super) silence: Option<Duration>,
    /// How long the server lets a statement run.
    pub(super) limit: Option<Duration>,
    /// It was opened with options.
    pub(super) options: bool,
}

impl Session {
    /// Waits for an answer, as long as the server shows signs of life.
    pub(super) async fn within<T, E: Into<Trouble>>(
        &self,
        answer: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, Trouble> {
        let Some(limit) = self.silence else { return answer.await.map_err(Into::into) };
        let mut answer = pin!(answer);
        loop {
            let received = self.facts.received();
            match timeout(limit, &mut answer).await {
                Ok(answer) => return answer.map_err(Into::into),
                Err(_) if self.facts.received() != received => {}
                Err(_) => return Err(Trouble::Silent(limit)),
            }
        }
    }

    /// Waits until what was sent has been answered.
    pub(super) async fn settle(&self) -> std::result::Result<(), Trouble> {
        let settled = async {
            self.facts.settled().await;
            Ok::<(), Trouble>(())
        };
        self.within(settled).await
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.facts.has_ended()
    }

    /// Stops what runs and waits until nothing is under way and no request to cancel can hit what comes next.
    pub(super) async fn drain(&self) -> std::result::Result<(), Trouble> {
        let mut barrier = pin!(self.client.check_connection());
        if let Ok(answered) = timeout(PATIENCE, &mut barrier).await {
            return answered.map_err(Trouble::from);
        }
        let mut effect = EFFECT;
        loop {
            // It may have come before the statement began, or between two of them.
            self.cancel().await;
            match timeout(effect, &mut barrier).await {
                Ok(answered) => {
                    answered?;
                    break;
                }
                Err(_) => effect = (effect * 2).min(CANCEL),
            }
        }
        self.client.check_connection().await.map_err(Trouble::from)
    }

    pub(super) async fn cancel(&self) {
        let token = self.client.cancel_token();
        let request = wire::cancel(&token, &self.route, &self.settings, self.cover);
        match timeout(CANCEL, request).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::debug!(address = %self.route.address, ?fault, "a request to cancel failed")
            }
            Err(_) => {
                tracing::debug!(address = %self.route.address, "a request to cancel took too long")
            }
        }
    }

    /// Says goodbye and waits until the driver has.
    pub(super) async fn close(self, busy: bool) {
        if busy && !self.is_closed() {
            self.cancel().await;
        }
        let Self { client, driver, .. } = self;
        drop(client);
        // What does not end by then is ended by the handle.
        let _ = timeout(GOODBYE, driver).await;
    }
}
