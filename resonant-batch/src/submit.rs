//! The ways in, once the key is known.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::desk::Entered;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::processor::BatchProcessor;
use crate::submitted::{Submitted, SubmittedMany};

/// An item that was not accepted, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rejected<I> {
    /// The item, handed back.
    pub item: I,
    /// Why.
    pub error: Error,
}

impl<I> From<Rejected<I>> for Error {
    fn from(rejected: Rejected<I>) -> Self {
        rejected.error
    }
}

impl<I> fmt::Display for Rejected<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<I: fmt::Debug> std::error::Error for Rejected<I> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// The point in time after `limit`; a limit too long to reckon with is as good as a year.
pub(crate) fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + YEAR)
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl<I, O, K> BatchProcessor<I, O, K>
where
    K: Key,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(crate) async fn submit_as(&self, key: K, item: I) -> Result<O> {
        self.enter("submit", key, item)?.await
    }

    pub(crate) fn try_submit_as(
        &self,
        key: K,
        item: I,
    ) -> Result<Submitted<'_, I, O, K>, Rejected<I>> {
        let rejected = |(item, error)| Rejected { item, error };
        let request = self.desk().request("try_submit", key, item).map_err(rejected)?;
        let place = self.desk().try_enter(request).map_err(rejected)?;
        Ok(Submitted::new(self.desk(), Entered::Seated(place)))
    }

    pub(crate) async fn submit_deadline_as(&self, key: K, item: I, deadline: Instant) -> Result<O> {
        let mut submitted = self.enter("submit_deadline", key, item)?;
        match timeout_at(deadline, &mut submitted).await {
            Ok(outcome) => outcome,
            Err(_) if submitted.give_up() => {
                let message = "the deadline passed while the item was queued; it was not processed";
                Err(Error::new(ErrorKind::TimedOut, "submit_deadline", message))
            }
            Err(_) => {
                let message = "the deadline passed while the item was being processed";
                Err(Error::new(ErrorKind::TimedOut, "submit_deadline", message)
                    .with_may_have_applied())
            }
        }
    }

    pub(crate) async fn submit_many_as(&self, keyed: Vec<(Result<K>, I)>) -> Vec<Result<O>> {
        let total = keyed.len();
        // Items no batch may ever hold, by position; mostly none.
        let mut refused = Vec::new();
        let mut requests = Vec::with_capacity(total);
        for (position, (key, item)) in keyed.into_iter().enumerate() {
            let request = key.and_then(|key| {
                self.desk().request("submit_many", key, item).map_err(|(_, error)| error)
            });
            match request {
                Ok(request) => requests.push(request),
                Err(error) => refused.push((position, error)),
            }
        }
        let accepted = requests.len();
        let mut outcomes = match self.desk().enter_many(requests.into_iter()) {
            Ok((places, line)) => SubmittedMany::new(self.desk(), accepted, places, line).await,
            Err(error) => (0..accepted).map(|_| Err(error.clone())).collect(),
        };
        if refused.is_empty() {
            return outcomes;
        }
        let mut all = Vec::with_capacity(total);
        let mut accepted = outcomes.drain(..);
        for (position, error) in refused {
            let before = position - all.len();
            all.extend(accepted.by_ref().take(before));
            all.push(Err(error));
        }
        all.extend(accepted);
        all
    }

    /// To be accepted with its first poll: then it is known whom to tell of the outcome.
    fn enter(&self, operation: &'static str, key: K, item: I) -> Result<Submitted<'_, I, O, K>> {
        let request = self.desk().request(operation, key, item).map_err(|(_, error)| error)?;
        Ok(Submitted::entering(self.desk(), request))
    }
}
