//! A session with a server while it lasts: deadlines, stopping what runs, the end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::alarm::Alarm;
use super::error::Trouble;
use super::facts::Facts;
use super::wire::{self, Cover, Route};
use super::{Node, whereabouts};

/// How long a dropped statement may take to be answered anyway before it is cancelled.
const PATIENCE: Duration = Duration::from_millis(2);
/// How long one request to cancel may take, and how long its effect.
const CANCEL: Duration = Duration::from_secs(2);
const EFFECT: Duration = Duration::from_millis(50);
const GOODBYE: Duration = Duration::from_secs(2);
/// How long nothing may come before somebody looks whether the node is still where it was: first, and at most.
const DOUBT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) facts: Arc<Facts>,
    pub(super) driver: AbortOnDropHandle<()>,
    pub(super) node: Arc<Node>,
    /// The node's name in messages.
    pub(super) name: Arc<str>,
    pub(super) orphans: Orphans,
    /// Made where the driver runs: as long as that runs, it can be used.
    pub(super) alarm: Alarm,
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
        let mut answer = pin!(answer);
        let (mut received, mut heard) = (self.facts.received(), Instant::now());
        let (mut doubt, longest) = DOUBT;
        let mut alarm = None;
        loop {
            let now = if alarm.is_none() { heard } else { Instant::now() };
            let silent = now.saturating_duration_since(heard);
            let left = self.silence.map(|limit| limit.saturating_sub(silent));
            let due = now + left.map_or(doubt, |left| left.min(doubt));
            let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => {
                    alarm.get_or_insert_with(|| self.alarm.borrow()).poll(due, cx).map(|()| None)
                }
            });
            if let Some(answer) = answered.await {
                return answer.map_err(Into::into);
            }
            if self.facts.received() != received {
                (received, heard) = (self.facts.received(), Instant::now());
                doubt = DOUBT.0;
                continue;
            }
            if let Some(limit) = self.silence.filter(|limit| heard.elapsed() >= *limit) {
                return Err(Trouble::Silent(limit));
            }
            let left_behind = Box::pin(self.is_left_behind());
            match select(answer.as_mut(), left_behind).await {
                Either::Left((answer, _)) => return answer.map_err(Into::into),
                Either::Right((true, _)) => return Err(Trouble::Silent(heard.elapsed())),
                Either::Right((false, _)) => doubt = (doubt * 2).min(longest),
            }
        }
    }

    /// Whether the node has left the address of this session. Gives up on asking when something comes.
    async fn is_left_behind(&self) -> bool {
        let received = self.facts.received();
        let asked = pin!(whereabouts::is_left_behind(&self.node, &self.name, &self.route.address));
        let heard = pin!(async {
            while self.facts.received() == received {
                sleep(EFFECT).await;
            }
        });
        matches!(select(asked, heard).await, Either::Left((true, _)))
    }

    /// Whether it is known that the node is elsewhere. Free.
    pub(super) fn was_left_behind(&self) -> bool {
        self.node.whereabouts.has_left(&self.route.address)
    }

    /// Prepares a statement. Whoever does not wait for that leaves it to [`adopt`](Session::adopt): what has been sent makes
    /// the server keep a statement, which nobody would ever close.
    pub(super) fn prepare(&self, sql: &str) -> Preparing<'_> {
        let (client, sql) = (Arc::clone(&self.client), sql.to_owned());
        let work: Preparation = Box::pin(async move { client.prepare(&sql).await });
        Preparing { orphans: &self.orphans, work: Some(work), begun: false }
    }

    /// Ends what was left half prepared. The statements are closed.
    pub(super) async fn adopt(&self) -> std::result::Result<(), Trouble> {
        for orphan in self.orphans.take() {
            match self.within(orphan).await {
                Err(trouble) if trouble.said().is_none() => return Err(trouble),
                _ => {}
            }
        }
        Ok(())
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
        let request = wire::cancel(&token, &self.route, &self.node.settings, self.cover);
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
        let Self { client, driver, orphans, .. } = self;
        drop((orphans, client));
        // What does not end by then is ended by the handle.
        let _ = timeout(GOODBYE, driver).await;
    }
}

type Preparation = Pin<Box<dyn Future<Output = Result<Statement, tokio_postgres::Error>> + Send>>;

/// What was half prepared when its caller went.
#[derive(Default)]
pub(super) struct Orphans(Mutex<Vec<Preparation>>);

impl Orphans {
    pub(super) fn take(&self) -> Vec<Preparation> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, work: Preparation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(work);
    }
}

/// A statement that is being prepared.
pub(super) struct Preparing<'a> {
    orphans: &'a Orphans,
    work: Option<Preparation>,
    /// It may have been sent.
    begun: bool,
}

impl Future for Preparing<'_> {
    type Output = Result<Statement, tokio_postgres::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.begun = true;
        let Some(work) = &mut self.work else { return Poll::Pending };
        let prepared = work.as_mut().poll(cx);
        if prepared.is_ready() {
            self.work = None;
        }
        prepared
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take().filter(|_| self.begun) {
            self.orphans.keep(work);
        }
    }
}
