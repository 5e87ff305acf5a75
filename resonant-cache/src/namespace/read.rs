//! Reading without a loader.

use std::sync::Arc;

use tracing::Instrument as _;

use super::Namespace;
use super::kit::{Held, Kit, Verdict};
use crate::backend::ReadFrom;
use crate::error::Result;
use crate::freshness::Freshness;
use crate::key::LocalKey;
use crate::l1::Entry;
use crate::metrics::{How, Op};
use crate::options::{Served, Tier, Versioned};

impl<V: Send + Sync + 'static> Namespace<V> {
    /// The value under `key`, if there is one and it is fresh.
    ///
    /// # Errors
    ///
    /// `KeyTooLong`, `Overloaded` (too many namespaces), `Closed`; `Unavailable` and `TimedOut` from the store.
    pub async fn get(&self, key: &str) -> Result<Option<Arc<V>>> {
        if let Some(Held { entry, verdict: Verdict::Fresh }) = self.kit.look(key) {
            self.kit.count_local(Op::Get, &entry, false);
            if let Some(value) = self.kit.value(entry) {
                return Ok(value);
            }
        }
        self.kit.get_shared(key).await
    }

    /// What is known under `key` and may be served: also a negative entry, and a stale value within the namespace's
    /// windows. Starts no load.
    ///
    /// # Errors
    ///
    /// As [`get`](Namespace::get).
    pub async fn get_entry(&self, key: &str) -> Result<Option<Served<V>>> {
        if let Some(Held { entry, verdict }) = self.kit.look(key) {
            let stale = verdict != Verdict::Fresh;
            self.kit.count_local(Op::Get, &entry, stale);
            return self.kit.serve(entry, Tier::Local, stale).map(Some);
        }
        let key = self.kit.admit(key, "get")?;
        match self.kit.read_shared(&key, "get_entry").await? {
            Some((entry, freshness)) => {
                self.kit.serve(entry, Tier::Shared, freshness != Freshness::Fresh).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The value under `key` with its version, from the store's primary, for
    /// [`compare_and_set`](Namespace::compare_and_set).
    ///
    /// # Errors
    ///
    /// As [`get`](Namespace::get).
    pub async fn get_versioned(&self, key: &str) -> Result<Versioned<V>> {
        let key = self.kit.admit(key, "get_versioned")?;
        let call = self.kit.call("get_versioned", 1);
        let fetch = self.kit.fetch(std::slice::from_ref(&key), ReadFrom::Primary);
        let found = fetch.instrument(call.span()).await;
        let found = found.into_iter().next().unwrap_or_else(|| Ok(Default::default()));
        call.note(&found);
        let found = found?;
        let value = match found.entry {
            Some((entry, Freshness::Fresh)) => self.kit.serve(entry, Tier::Shared, false)?.value,
            _ => None,
        };
        Ok(Versioned { value, version: found.version })
    }

    /// Whether there is a fresh value under `key`.
    ///
    /// # Errors
    ///
    /// As [`get`](Namespace::get).
    pub async fn contains(&self, key: &str) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    /// The values under `keys`, in their order, each with a status of its own. The store is asked in chunks of
    /// `max_batch`, for those this process does not hold.
    pub async fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Vec<Result<Option<Arc<V>>>> {
        let mut answers: Vec<_> = keys.iter().map(|_| Ok(None)).collect();
        let mut missing: Vec<(usize, LocalKey)> = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let key = key.as_ref();
            if let Some(Held { entry, verdict: Verdict::Fresh }) = self.kit.look(key) {
                self.kit.count_local(Op::Get, &entry, false);
                if let Some(value) = self.kit.value(entry) {
                    answers[index] = Ok(value);
                    continue;
                }
            }
            match self.kit.admit(key, "get_many") {
                Ok(key) => missing.push((index, key)),
                Err(error) => answers[index] = Err(error),
            }
        }
        for chunk in missing.chunks(self.kit.core.config.max_batch) {
            let keys: Vec<_> = chunk.iter().map(|(_, key)| key.clone()).collect();
            let found = self.kit.read_shared_many(&keys, "get_many").await;
            for ((index, _), found) in chunk.iter().zip(found) {
                answers[*index] = found.and_then(|found| self.kit.fresh_value(found));
            }
        }
        answers
    }
}

impl<V: Send + Sync + 'static> Kit<V> {
    async fn get_shared(&self, key: &str) -> Result<Option<Arc<V>>> {
        let key = self.admit(key, "get")?;
        let found = self.read_shared(&key, "get").await?;
        self.fresh_value(found)
    }

    fn fresh_value(&self, found: Option<(Entry, Freshness)>) -> Result<Option<Arc<V>>> {
        match found {
            Some((entry, Freshness::Fresh)) => Ok(self.serve(entry, Tier::Shared, false)?.value),
            _ => Ok(None),
        }
    }

    async fn read_shared(
        &self,
        key: &LocalKey,
        call: &'static str,
    ) -> Result<Option<(Entry, Freshness)>> {
        let found = self.read_shared_many(std::slice::from_ref(key), call).await;
        found.into_iter().next().unwrap_or(Ok(None))
    }

    /// Reads the shared tier and keeps what is fresh here, unless it changed meanwhile.
    async fn read_shared_many(
        &self,
        keys: &[LocalKey],
        call: &'static str,
    ) -> Vec<Result<Option<(Entry, Freshness)>>> {
        let call = self.call(call, keys.len());
        let readings: Vec<_> = keys.iter().map(|key| self.core.local.begin(key.clone())).collect();
        let found = self.fetch(keys, ReadFrom::Any).instrument(call.span()).await;
        if let Some(error) = found.iter().find_map(|found| found.as_ref().err()) {
            call.failed(error);
        }
        let mut filled = false;
        let answers = found
            .into_iter()
            .zip(&readings)
            .map(|(found, reading)| {
                let found = found.inspect_err(|_| self.core.metrics.count(Op::Get, How::Error))?;
                if let Some((entry, freshness)) = &found.entry
                    && *freshness == Freshness::Fresh
                {
                    reading.fill(entry.clone());
                    filled = true;
                }
                let how = found_as(&found.entry);
                self.core.metrics.count(Op::Get, how);
                if keys.len() == 1 {
                    call.ended(how);
                }
                Ok(found.entry)
            })
            .collect();
        if filled {
            self.core.note_size();
        }
        answers
    }

    pub(crate) fn count_local(&self, op: Op, entry: &Entry, stale: bool) {
        let how = match (&entry.value, stale) {
            (None, _) => How::Negative,
            (Some(_), true) => How::Stale,
            (Some(_), false) => How::HitLocal,
        };
        self.core.metrics.count(op, how);
    }

    /// The value of an entry held here; `None` if it is another type's, which makes it a miss.
    #[inline]
    fn value(&self, entry: Entry) -> Option<Option<Arc<V>>> {
        match entry.value {
            None => Some(None),
            Some(value) => value.downcast::<V>().ok().map(Some),
        }
    }
}

fn found_as(found: &Option<(Entry, Freshness)>) -> How {
    match found {
        None => How::Miss,
        Some((entry, _)) if entry.value.is_none() => How::Negative,
        Some((_, Freshness::Fresh)) => How::HitShared,
        Some(_) => How::Stale,
    }
}
