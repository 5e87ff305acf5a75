//! An engine that can do as little as a message broker: it hands out each message once per opening and reads nothing
//! again, numbers nothing that lasts, and forgets failures with their owner. It passes the suite all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use resonant_queue::backend::{Capabilities, Feed, Fetch, Fetched, Opened, QueueStore, Settlement};
use resonant_queue::{Error, ErrorKind, Message, Outgoing, PartitionedQueue, Receipt, Result};
use tokio::sync::Mutex;

use crate::wrap::{Change, Changed};

#[derive(Debug)]
struct Pushes;

#[async_trait]
impl Change for Pushes {
    fn capabilities(&self, inner: Capabilities) -> Capabilities {
        inner.seek(false).numbered(false).atomic(false).remembers_failures(false)
    }

    async fn publish(
        &self,
        inner: &dyn QueueStore,
        batch: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        let receipts = inner.publish(batch).await?;
        let unnumbered = |receipt: &Receipt| {
            let unnumbered = Receipt::new(receipt.partition, None);
            if receipt.duplicate { unnumbered.of_duplicate() } else { unnumbered }
        };
        Ok(receipts.iter().map(unnumbered).collect())
    }

    async fn settle(
        &self,
        inner: &dyn QueueStore,
        (partition, epoch): (u32, u64),
        batch: Arc<Vec<Settlement>>,
    ) -> Result<()> {
        let kept = |settlement: &&Settlement| !matches!(settlement, Settlement::Retry { .. });
        let batch = batch.iter().filter(kept).cloned().collect();
        inner.settle(partition, epoch, Arc::new(batch)).await
    }

    async fn open(&self, inner: &dyn QueueStore, partition: u32, epoch: u64) -> Result<Opened> {
        let opened = inner.open(partition, epoch).await?;
        let feed = PushFeed { inner: opened.feed, state: Mutex::default() };
        Ok(Opened::new(Arc::new(feed), opened.parked))
    }
}

/// Gives what it has not given yet; of a resumed key everything again.
#[derive(Debug)]
struct PushFeed {
    inner: Arc<dyn Feed>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    given: u64,
    again: VecDeque<Message>,
}

#[async_trait]
impl Feed for PushFeed {
    async fn fetch(&self, fetch: Fetch) -> Result<Fetched> {
        assert!(fetch.until.is_none(), "a broker reads nothing again");
        let mut state = self.state.lock().await;
        let mut answer = Fetched::default();
        if state.again.is_empty() {
            let read = Fetch::after(state.given, fetch.limit).bytes(fetch.bytes);
            let fetched = self.inner.fetch(read).await?;
            if fetched.resumed.is_empty() {
                state.given = fetched.messages.last().map_or(state.given, |last| last.sequence);
                return Ok(fetched);
            }
            // What came along is read once more after the resumed keys have had their turn.
            answer.resumed = fetched.resumed;
            let all = self.inner.fetch(Fetch::between(0, state.given, usize::MAX)).await?;
            answer.resumed.extend(all.resumed);
            let resumed = |message: &Message| {
                answer.resumed.iter().any(|(key, _)| message.key.as_ref() == Some(key))
            };
            state.again = all.messages.into_iter().filter(resumed).collect();
        }
        let count = fetch.fitting(state.again.iter().map(|message| message.body.len()));
        answer.messages = state.again.drain(..count).collect();
        answer.more = !state.again.is_empty();
        Ok(answer)
    }
}

resonant_queue::conformance!(broker, Changed::new(Pushes));

/// Stores one message of each batch and has no room for the others.
#[derive(Debug, Default)]
struct HalfFull(AtomicUsize);

#[async_trait]
impl Change for HalfFull {
    async fn publish(
        &self,
        inner: &dyn QueueStore,
        batch: Arc<Vec<Outgoing>>,
    ) -> Result<Vec<Receipt>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        inner.publish(Arc::new(batch[..1].to_vec())).await?;
        Err(Error::new(ErrorKind::Full, "publish", "the rest is refused").with_may_have_applied())
    }
}

/// A batch of which some may be stored is not published again behind the caller's back.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_half_stored_is_not_repeated() {
    let engine = Changed::new(HalfFull::default());
    let builder = PartitionedQueue::builder("half").key(|number: &u64| *number);
    let queue = builder.backend(engine.clone()).build().await.unwrap();
    let error = queue.publish_many([1, 2]).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Full, true));
    assert_eq!(engine.change.0.load(Ordering::SeqCst), 1);
}
