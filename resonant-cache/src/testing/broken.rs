//! Stores that break on purpose: to show that the suite can fail, and to see how a program takes a store's faults.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{
    Announces, Bump, Capabilities, Epochs, FenceAt, Guard, Key, LeaseAsk, LeaseToken, Leased,
    Listener, Origin, ReadFrom, Store, TagId, Write, WriteOutcome,
};
use crate::error::{Error, ErrorKind, Result};

/// What a [`Faulty`] store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every call fails with `Unavailable`.
    Down,
    /// No call ever returns.
    Hung,
    /// Writes under a lease are stored whether or not the lease lives: the classic race of a slow load and a delete.
    IgnoresLeases,
    /// Writes are stored whatever position they were read at.
    IgnoresFences,
    /// Answers of a read come in the reverse order.
    ReversesAnswers,
    /// Changes are never announced, though it says so.
    NeverAnnounces,
    /// Times to live are ignored.
    KeepsForEver,
    /// Changes are never announced, and it says so.
    Silent,
    /// Every call gives way once before it acts and once after, so that a caller can be dropped on either side.
    Lingers,
    /// Leases are granted, but the answer never comes.
    LosesGrants,
}

const FAULTS: [Fault; 11] = [
    Fault::None,
    Fault::Down,
    Fault::Hung,
    Fault::IgnoresLeases,
    Fault::IgnoresFences,
    Fault::ReversesAnswers,
    Fault::NeverAnnounces,
    Fault::KeepsForEver,
    Fault::Silent,
    Fault::Lingers,
    Fault::LosesGrants,
];

/// A store with a switch for a [`Fault`] in front of another.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    fault: AtomicU8,
    /// Whether the fault ends with the next call.
    once: AtomicBool,
}

impl Faulty {
    /// A store like `inner`, with `fault`.
    pub fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        Self { inner, fault: AtomicU8::new(fault as u8), once: AtomicBool::new(false) }
    }

    /// From now on it has this fault.
    pub fn set(&self, fault: Fault) {
        self.once.store(false, Ordering::SeqCst);
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// The next call has this fault, and no other.
    pub fn set_once(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
        self.once.store(true, Ordering::SeqCst);
    }

    fn fault(&self) -> Fault {
        FAULTS[usize::from(self.fault.load(Ordering::SeqCst)) % FAULTS.len()]
    }

    /// The fault of this call; does not return if it hangs.
    async fn meet(&self) -> Result<Fault> {
        let fault = self.fault();
        if self.once.swap(false, Ordering::SeqCst) {
            self.fault.store(Fault::None as u8, Ordering::SeqCst);
        }
        match fault {
            Fault::Down => {
                Err(Error::new(ErrorKind::Unavailable, "store", "the store is down on purpose"))
            }
            Fault::Hung => std::future::pending().await,
            Fault::Lingers => {
                tokio::task::yield_now().await;
                Ok(fault)
            }
            fault => Ok(fault),
        }
    }

    /// What `call` answers, given back late if the fault says so.
    async fn answer<T>(&self, fault: Fault, call: impl Future<Output = T> + Send) -> T {
        let answer = call.await;
        if fault == Fault::Lingers {
            tokio::task::yield_now().await;
        }
        answer
    }

    async fn meet_all<T>(&self, count: usize) -> Result<Fault, Vec<Result<T>>> {
        self.meet().await.map_err(|error| (0..count).map(|_| Err(error.clone())).collect())
    }
}

#[async_trait]
impl Store for Faulty {
    fn capabilities(&self) -> Capabilities {
        let held = self.inner.capabilities();
        let silent = self.fault() == Fault::Silent;
        Capabilities::new(if silent { Announces::Never } else { held.announces }, held.shared)
    }

    fn clock(&self) -> u64 {
        self.inner.clock()
    }

    fn attach(&self, listener: Weak<dyn Listener>) -> Origin {
        if matches!(self.fault(), Fault::NeverAnnounces | Fault::Silent) {
            return Origin(u64::MAX);
        }
        self.inner.attach(listener)
    }

    async fn read(&self, keys: &[Key], from: ReadFrom) -> Vec<Result<Option<Bytes>>> {
        match self.meet_all(keys.len()).await {
            Ok(fault) => {
                let mut answers = self.answer(fault, self.inner.read(keys, from)).await;
                if fault == Fault::ReversesAnswers {
                    answers.reverse();
                }
                answers
            }
            Err(errors) => errors,
        }
    }

    async fn write(&self, origin: Origin, mut writes: Vec<Write>) -> Vec<Result<WriteOutcome>> {
        match self.meet_all(writes.len()).await {
            Ok(fault) => {
                for write in &mut writes {
                    match fault {
                        Fault::IgnoresLeases if matches!(write.guard, Guard::Lease(_)) => {
                            write.guard = Guard::Always;
                        }
                        Fault::IgnoresFences => write.fence = None,
                        Fault::KeepsForEver => write.ttl = None,
                        _ => {}
                    }
                }
                self.answer(fault, self.inner.write(origin, writes)).await
            }
            Err(errors) => errors,
        }
    }

    async fn remove(
        &self,
        origin: Origin,
        keys: &[Key],
        fence: Option<FenceAt>,
    ) -> Vec<Result<bool>> {
        match self.meet_all(keys.len()).await {
            Ok(fault) => self.answer(fault, self.inner.remove(origin, keys, fence)).await,
            Err(errors) => errors,
        }
    }

    async fn lease(&self, keys: &[Key], ask: LeaseAsk) -> Vec<Result<Leased>> {
        match self.meet_all(keys.len()).await {
            Ok(Fault::LosesGrants) => {
                self.inner.lease(keys, ask).await;
                std::future::pending().await
            }
            Ok(fault) => self.answer(fault, self.inner.lease(keys, ask)).await,
            Err(errors) => errors,
        }
    }

    async fn release(&self, keys: &[Key], token: LeaseToken) -> Result<()> {
        let fault = self.meet().await?;
        self.answer(fault, self.inner.release(keys, token)).await
    }

    async fn add(&self, key: &Key, by: i64, ttl: Option<Duration>) -> Result<i64> {
        let fault = self.meet().await?;
        self.answer(fault, self.inner.add(key, by, ttl)).await
    }

    async fn epochs(&self, namespace: &str, tags: &[TagId]) -> Result<Epochs> {
        let fault = self.meet().await?;
        self.answer(fault, self.inner.epochs(namespace, tags)).await
    }

    async fn bump(&self, origin: Origin, namespace: &str, what: Bump) -> Result<u64> {
        let fault = self.meet().await?;
        self.answer(fault, self.inner.bump(origin, namespace, what)).await
    }

    async fn ping(&self) -> Result<()> {
        self.meet().await.map(|_| ())
    }
}
