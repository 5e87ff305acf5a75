//! What a server owes: the driver does not say so once a caller has gone away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ::fred::clients::Client;
use ::fred::interfaces::ClientLike as _;
use tokio_util::sync::CancellationToken;

use super::words;
use crate::backend::redis::driver::Signs;
use crate::backend::redis::resp::Command;

/// The answers that a server owes, and since when it has said nothing.
///
/// Who waits sees the answer. Where nobody waits any more, a question is put behind what was left alone: its answer says that the
/// server has come to it. As long as there is none the server's silence goes on counting, and so does what was left: it takes room.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) signs: Signs,
    /// Answers that nobody waits for.
    left: AtomicUsize,
    asking: AtomicBool,
    over: CancellationToken,
}

impl Owed {
    pub(super) fn new(over: CancellationToken) -> Arc<Self> {
        let (left, asking) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { signs: Signs::new(), left, asking, over })
    }

    /// A question behind all that was sent so far, one at a time.
    fn ask(self: &Arc<Self>, client: &Client) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.over.is_cancelled() || self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (owed, client) = (Arc::clone(self), client.clone());
        runtime.spawn(async move {
            let _ = owed.over.run_until_cancelled(owed.settle(&client)).await;
        });
    }

    /// Asks until nothing is left alone.
    async fn settle(&self, client: &Client) {
        loop {
            let left = self.left.swap(0, Ordering::AcqRel);
            if left == 0 {
                self.asking.store(false, Ordering::Release);
                // Somebody may have left just before and seen that it is asked already.
                if self.left.load(Ordering::Acquire) == 0
                    || self.asking.swap(true, Ordering::AcqRel)
                {
                    return;
                }
                continue;
            }
            let ping = Command::new("PING", []);
            let (name, args) = words(&ping);
            if client.custom_raw(name, args).await.is_ok() {
                self.signs.heard();
            }
            self.signs.end(left);
        }
    }
}

/// Somebody waits for answers.
pub(super) struct Waiting<'a> {
    owed: &'a Arc<Owed>,
    client: &'a Client,
    answers: usize,
    answered: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn begin(owed: &'a Arc<Owed>, client: &'a Client, answers: usize) -> Self {
        owed.signs.begin(answers);
        Self { owed, client, answers, answered: false }
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.owed.signs.end(self.answers);
        } else {
            self.owed.left.fetch_add(self.answers, Ordering::AcqRel);
            self.owed.ask(self.client);
        }
    }
}
