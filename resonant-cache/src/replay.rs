//! Makes up for invalidations that the store did not hear.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use resonant_common::backoff::Backoff;

use crate::backend::{Bump, FenceAt, Key};
use crate::cache::Core;
use crate::error::Error;
use crate::journal::{Deed, Noted};

const AGAIN: Backoff =
    Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(250), factor: 2.0 };
/// Entries looked at in one step.
const STEP: usize = 512;

impl Core {
    /// The store may not have heard that keys are to be removed: remembers it.
    pub(crate) fn make_up_for_removals(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = Key>,
        fence: Option<FenceAt>,
        error: &Error,
    ) {
        if error.is_transient() {
            for key in keys {
                let plain = self.is_plain(key.namespace());
                let noted = self.journal.remove(key, fence, plain);
                self.see_to(noted);
            }
        }
    }

    /// The same of a bump.
    pub(crate) fn make_up_for_bump(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        what: Bump,
        error: &Error,
    ) {
        if error.is_transient() {
            let noted = self.journal.bump(namespace, what);
            self.see_to(noted);
        }
    }

    fn is_plain(&self, namespace: &Arc<str>) -> bool {
        let namespaces = self.local.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        namespaces.get(namespace).is_some_and(|namespace| namespace.config.plain)
    }

    fn see_to(self: &Arc<Self>, noted: Noted) {
        self.note_journal();
        if self.journal.begins_to_lose() {
            tracing::warn!(
                cache = %self.config.name,
                max_journal = self.config.max_journal,
                "the store has not answered for so long that removals are forgotten which no clear can stand for: values that \
                 were deleted may be read again until their time to live is over; raise max_journal"
            );
        }
        if noted == Noted::Begin {
            // That the store does not answer is logged by who noticed it; this is a finding and a gauge.
            tracing::debug!(
                cache = %self.config.name,
                "the store did not hear of a change; it is remembered, and made up for when the store answers"
            );
            let core = Arc::clone(self);
            self.spawn(async move { core.replay().await });
        }
    }

    /// Goes through the journal, in order, until nothing is left. What one server does not hear keeps nobody from the others.
    async fn replay(&self) {
        for round in 0u32.. {
            let wait = AGAIN.wait(round.min(16), &mut rand::rng());
            tokio::time::sleep(wait.max(Duration::from_millis(5))).await;
            let mut from = 0;
            loop {
                let step = self.journal.from(from, STEP);
                let Some((last, _)) = step.last() else { break };
                from = last + 1;
                self.redo(step).await;
                self.note_journal();
            }
            if self.journal.rest() {
                break;
            }
        }
        tracing::debug!(cache = %self.config.name, "the store has heard of all changes");
    }

    async fn redo(&self, step: Vec<(u64, Deed)>) {
        let mut removals: Vec<(u64, Key)> = Vec::new();
        for (number, deed) in step {
            match deed {
                Deed::Remove(key, None) => removals.push((number, key)),
                Deed::Remove(key, fence) => self.redo_removals(vec![(number, key)], fence).await,
                Deed::Bump(namespace, what) => self.redo_bump(number, &namespace, what).await,
            }
        }
        if !removals.is_empty() {
            self.redo_removals(removals, None).await;
        }
    }

    async fn redo_removals(&self, removals: Vec<(u64, Key)>, fence: Option<FenceAt>) {
        let (numbers, keys): (Vec<_>, Vec<_>) = removals.into_iter().unzip();
        let answers = self.gate.remove(&keys, fence).await;
        for (number, answer) in numbers.into_iter().zip(answers) {
            // What can never succeed is not tried for ever.
            if !answer.is_err_and(|error| error.is_transient()) {
                self.journal.done(number);
            }
        }
    }

    async fn redo_bump(&self, number: u64, namespace: &Arc<str>, what: Bump) {
        let epoch = match self.gate.bump(namespace, what.clone()).await {
            Ok(epoch) => epoch,
            Err(error) if error.is_transient() => return,
            Err(_) => return self.journal.done(number),
        };
        let open = {
            let namespaces = self.local.namespaces.read().unwrap_or_else(PoisonError::into_inner);
            namespaces.get(namespace).cloned()
        };
        if let Some(namespace) = open {
            match what {
                Bump::Tags(tags) => namespace.note_tags(&tags, epoch),
                Bump::All => {
                    namespace.note_clear(epoch);
                    self.local.cleared(namespace.id());
                }
            }
        }
        self.journal.done(number);
    }
}
