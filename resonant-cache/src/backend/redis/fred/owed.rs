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
/// server has come to it, and as long as there is none the server's silence goes on counting.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) signs: Signs,
    answers: AtomicUsize,
    asking: AtomicBool,
    over: CancellationToken,
}

impl Owed {
    pub(super) fn new(over: CancellationToken) -> Arc<Self> {
        let (answers, asking) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { signs: Signs::new(), answers, asking, over })
    }

    fn begin(&self) {
        if self.answers.fetch_add(1, Ordering::AcqRel) == 0 {
            self.signs.heard();
        }
    }

    fn end(&self) {
        self.answers.fetch_sub(1, Ordering::AcqRel);
    }

    /// A question behind all that was sent so far, one at a time.
    fn ask(self: &Arc<Self>, client: &Client) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.over.is_cancelled() || self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        self.begin();
        let (owed, client) = (Arc::clone(self), client.clone());
        runtime.spawn(async move {
            let ping = Command::new("PING", []);
            let (name, args) = words(&ping);
            let answer = owed.over.run_until_cancelled(client.custom_raw(name, args)).await;
            if let Some(Ok(_)) = answer {
                owed.signs.heard();
            }
            owed.end();
            owed.asking.store(false, Ordering::Release);
        });
    }
}

/// Somebody waits for an answer.
pub(super) struct Waiting<'a> {
    owed: &'a Arc<Owed>,
    client: &'a Client,
    answered: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn begin(owed: &'a Arc<Owed>, client: &'a Client) -> Self {
        owed.begin();
        Self { owed, client, answered: false }
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.owed.ask(self.client);
        }
        self.owed.end();
    }
}
