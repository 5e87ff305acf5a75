//! Changing what is stored.

use resonant_common::join::Position;
use tracing::Instrument as _;

use super::Namespace;
use super::kit::Kit;
use crate::backend::{Bump, FenceAt, Guard, TagId, Version, Write, WriteOutcome};
use crate::error::{Error, ErrorKind, Result};
use crate::key::LocalKey;
use crate::local::Forget;
use crate::metrics::{How, Op};
use crate::options::{SetOptions, Swap, Written};
use crate::trace::Call;

impl<V: Send + Sync + 'static> Namespace<V> {
    /// Stores a value under `key` with the namespace's settings. A load of the key that is under way cannot overwrite
    /// it.
    ///
    /// # Errors
    ///
    /// `KeyTooLong`, `ValueTooLarge`, `Codec`, `Overloaded` (too many namespaces), `Closed`; `Unavailable` and
    /// `TimedOut` from the store.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it was done or not done. Either way this process serves no older value from its own tier.
    pub async fn set(&self, key: &str, value: &V) -> Result<()> {
        self.set_with(key, value, SetOptions::new()).await.map(|_| ())
    }

    /// The same with a time to live, tags or a position of its own.
    ///
    /// # Errors
    ///
    /// As [`set`](Namespace::set); `Rejected` for more than 16 tags or a time to live of zero.
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Namespace::set).
    pub async fn set_with(&self, key: &str, value: &V, options: SetOptions) -> Result<Written> {
        let outcome = self.write(key, value, &options, Guard::Always, "set").await?;
        Ok(match outcome {
            (WriteOutcome::Stored, _) => Written::Stored,
            (WriteOutcome::Refused, _) => Written::Outdated,
        })
    }

    /// Stores many values, each with a status of its own, in their order. The store is called in chunks of
    /// `max_batch`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, each was done or not done; what follows the chunk under way was not.
    pub async fn set_many<'a, K>(
        &self,
        values: impl IntoIterator<Item = (K, &'a V)>,
        options: SetOptions,
    ) -> Vec<Result<Written>>
    where
        K: AsRef<str>,
    {
        let kit = &self.kit;
        let mut answers = Vec::new();
        let mut chunk = Vec::new();
        let call = kit.call("set_many", 0);
        let known = kit.know_epochs().instrument(call.span()).await;
        for (index, (key, value)) in values.into_iter().enumerate() {
            let prepared = kit.admit(key.as_ref(), "set_many").and_then(|key| {
                known.clone().inspect_err(|error| kit.make_up_for(&key, error))?;
                let (write, _) = kit.prepare(&key, value, &options, Guard::Always, "set_many")?;
                Ok((key, write))
            });
            match prepared {
                Ok((key, write)) => {
                    // Replaced when the chunk is sent.
                    answers.push(Ok(Written::Stored));
                    chunk.push((index, key, write));
                }
                Err(error) => answers.push(Err(error)),
            }
            if chunk.len() == kit.core.config.max_batch {
                let send = kit.send(std::mem::take(&mut chunk), &mut answers);
                send.instrument(call.span()).await;
            }
        }
        kit.send(chunk, &mut answers).instrument(call.span()).await;
        call.about(answers.len());
        if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
            call.failed(error);
        }
        answers
    }

    /// Stores a value if what is stored still has the version `expected`; `None` if nothing may be stored.
    ///
    /// Take the version from [`get_versioned`](Namespace::get_versioned) or from the last [`Swap::Stored`].
    ///
    /// # Errors
    ///
    /// As [`set`](Namespace::set).
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Namespace::set).
    pub async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<Version>,
        value: &V,
    ) -> Result<Swap> {
        let guard = expected.map_or(Guard::Absent, Guard::Version);
        let options = SetOptions::new();
        let outcome = self.write(key, value, &options, guard, "compare_and_set").await?;
        Ok(match outcome {
            (WriteOutcome::Stored, version) => Swap::Stored(version),
            (WriteOutcome::Refused, _) => Swap::Conflict,
        })
    }

    async fn write(
        &self,
        key: &str,
        value: &V,
        options: &SetOptions,
        guard: Guard,
        operation: &'static str,
    ) -> Result<(WriteOutcome, Version)> {
        let call = self.kit.call(operation, 1);
        let writing = self.write_in(&call, key, value, options, guard, operation);
        let outcome = writing.instrument(call.span()).await;
        call.note(&outcome);
        outcome
    }

    async fn write_in(
        &self,
        call: &Call,
        key: &str,
        value: &V,
        options: &SetOptions,
        guard: Guard,
        operation: &'static str,
    ) -> Result<(WriteOutcome, Version)> {
        let kit = &self.kit;
        let key = kit.admit(key, operation)?;
        kit.know_epochs().await.inspect_err(|error| {
            if guard == Guard::Always {
                kit.make_up_for(&key, error);
            }
        })?;
        let (write, version) = kit.prepare(&key, value, options, guard, operation)?;
        let forget = Forget { local: &kit.core.local, keys: vec![key] };
        let name = write.key.clone();
        let outcome = first(kit.core.gate.write(vec![write]).await, operation);
        match &outcome {
            Ok(WriteOutcome::Stored) => kit.core.journal.superseded(&name),
            // What is stored now may be older than what the caller has just heard to be over.
            Err(error) if guard == Guard::Always => {
                kit.core.make_up_for_removals([name], None, error);
            }
            _ => {}
        }
        drop(forget);
        let stored = outcome.as_ref().map(|outcome| *outcome == WriteOutcome::Stored);
        // Why it failed is noted by the caller, wherever it failed.
        kit.count(Op::Set, stored, outcome.is_ok().then_some(call));
        outcome.map(|outcome| (outcome, version))
    }

    /// Removes what is stored under `key`, its counter too; answers whether there was a value. A load of the key that
    /// is under way cannot store what it found.
    ///
    /// If the store does not answer, the call fails, and the removal is remembered and made up for when the store answers
    /// again; so it is for every change below, and for a `set`, whose key is then removed.
    ///
    /// # Errors
    ///
    /// `KeyTooLong`, `Overloaded` (too many namespaces), `Closed`; `Unavailable` and `TimedOut` from the store.
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Namespace::set).
    pub async fn delete(&self, key: &str) -> Result<bool> {
        self.remove(key, None, "delete").await
    }

    /// The same for a change that was made at `position` of the database's history: for `position_ttl` nothing that
    /// was read at an earlier position is stored, so that a replica that lags cannot bring the old value back. Fills
    /// say where they were read with [`Loaded::at`](crate::Loaded::at); those that do not say so are not held to it.
    ///
    /// # Errors
    ///
    /// As [`delete`](Namespace::delete).
    ///
    /// # Cancel safety
    ///
    /// As [`set`](Namespace::set).
    pub async fn invalidate_at(&self, key: &str, position: Position) -> Result<bool> {
        let fence = FenceAt { position, ttl: self.kit.ns.config.position_ttl };
        self.remove(key, Some(fence), "invalidate_at").await
    }

    async fn remove(
        &self,
        key: &str,
        fence: Option<FenceAt>,
        operation: &'static str,
    ) -> Result<bool> {
        let kit = &self.kit;
        let key = kit.admit(key, operation)?;
        let call = kit.call(operation, 1);
        let name = kit.ns.stored_key(&key);
        let forget = Forget { local: &kit.core.local, keys: vec![key] };
        let names = [name];
        let removing = kit.core.gate.remove(&names, fence).instrument(call.span());
        let removed = first(removing.await, operation);
        if let Err(error) = &removed {
            kit.core.make_up_for_removals(names, fence, error);
        }
        drop(forget);
        kit.count(Op::Delete, removed.as_ref().map(|_| true), Some(&call));
        removed
    }

    /// Invalidates every value that carries `tag`: one call to the store, however many there are. Their bytes go when
    /// they run out or room is needed.
    ///
    /// # Errors
    ///
    /// `Overloaded` (too many namespaces), `Closed`; `Unavailable` and `TimedOut` from the store.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it was done or not done. Either way this process serves no older value from its own tier.
    pub async fn invalidate_tag(&self, tag: &str) -> Result<()> {
        let tag = TagId::of(tag);
        let epoch = self.bump(Bump::Tags(vec![tag]), "invalidate_tag").await?;
        self.kit.ns.note_tags(&[tag], epoch);
        Ok(())
    }

    /// Invalidates every value of the namespace, in one call to the store. Counters stay.
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Namespace::invalidate_tag).
    ///
    /// # Cancel safety
    ///
    /// As [`invalidate_tag`](Namespace::invalidate_tag).
    pub async fn clear(&self) -> Result<()> {
        let epoch = self.bump(Bump::All, "clear").await?;
        self.kit.ns.note_clear(epoch);
        self.kit.core.local.cleared(self.kit.ns.id());
        Ok(())
    }

    async fn bump(&self, what: Bump, operation: &'static str) -> Result<u64> {
        let kit = &self.kit;
        kit.admit("", operation)?;
        kit.needs_head(true, operation)?;
        let call = kit.call(operation, 0);
        let mut unsure = Unsure { kit, armed: true };
        kit.know_epochs().instrument(call.span()).await.inspect_err(|error| {
            call.failed(error);
            kit.core.make_up_for_bump(kit.ns.name(), what.clone(), error);
        })?;
        let bumping = kit.core.gate.bump(kit.ns.name(), what.clone());
        let epoch = bumping.instrument(call.span()).await;
        if let Err(error) = &epoch {
            kit.core.make_up_for_bump(kit.ns.name(), what, error);
        }
        unsure.armed = epoch.is_err();
        kit.count(Op::Invalidate, epoch.as_ref().map(|_| true), Some(&call));
        epoch
    }
}

impl<V: Send + Sync + 'static> Kit<V> {
    pub(super) async fn know_epochs(&self) -> Result<()> {
        let max_age = self.core.config.unannounced_max_age;
        self.ns.know_epochs(&self.core.gate, max_age).await
    }

    /// Refuses what plain values cannot say.
    pub(crate) fn needs_head(&self, needs: bool, operation: &'static str) -> Result<()> {
        if needs && self.ns.config.plain {
            let message = format!(
                "namespace {:?} is plain: its values carry no version, no tags and no epoch",
                self.ns.name()
            );
            return Err(Error::new(ErrorKind::Rejected, operation, message));
        }
        Ok(())
    }

    /// A value could not be stored: what is stored may be older, and is to go.
    fn make_up_for(&self, key: &LocalKey, error: &Error) {
        self.core.local.changed(key);
        self.core.make_up_for_removals([self.ns.stored_key(key)], None, error);
    }

    fn prepare(
        &self,
        key: &LocalKey,
        value: &V,
        options: &SetOptions,
        guard: Guard,
        operation: &'static str,
    ) -> Result<(Write, Version)> {
        let kept = options.resolve(&self.ns.config, operation)?;
        self.needs_head(
            !kept.tags.is_empty() || matches!(guard, Guard::Absent | Guard::Version(_)),
            operation,
        )?;
        let (sealed, version) = self.seal(Some(value), &kept, self.ns.epoch(), operation)?;
        let write = Write {
            key: self.ns.stored_key(key),
            value: sealed.bytes,
            ttl: self.stored_for(&kept, false),
            guard,
            fence: self.fence(&kept),
        };
        Ok((write, version))
    }

    async fn send(&self, chunk: Vec<(usize, LocalKey, Write)>, answers: &mut [Result<Written>]) {
        if chunk.is_empty() {
            return;
        }
        let (mut indexes, mut keys, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for (index, key, write) in chunk {
            indexes.push(index);
            keys.push(key);
            writes.push(write);
        }
        let forget = Forget { local: &self.core.local, keys };
        let names: Vec<_> = writes.iter().map(|write| write.key.clone()).collect();
        let outcomes = self.core.gate.write(writes).await;
        for (name, outcome) in names.into_iter().zip(&outcomes) {
            match outcome {
                Ok(WriteOutcome::Stored) => self.core.journal.superseded(&name),
                Ok(_) => {}
                Err(error) => self.core.make_up_for_removals([name], None, error),
            }
        }
        drop(forget);
        for (index, outcome) in indexes.into_iter().zip(outcomes) {
            let stored = outcome.as_ref().map(|outcome| *outcome == WriteOutcome::Stored);
            self.count(Op::Set, stored, None);
            answers[index] = outcome.map(|outcome| match outcome {
                WriteOutcome::Stored => Written::Stored,
                WriteOutcome::Refused => Written::Outdated,
            });
        }
    }

    pub(super) fn count(&self, op: Op, outcome: Result<bool, &Error>, call: Option<&Call>) {
        let how = match outcome {
            Ok(true) => How::Ok,
            Ok(false) => How::Refused,
            Err(_) => How::Error,
        };
        self.core.metrics.count(op, how);
        match (call, outcome) {
            (Some(call), Ok(_)) => call.ended(how),
            (Some(call), Err(error)) => call.failed(error),
            (None, _) => {}
        }
    }
}

/// Until the store's answer to a bump is known, nothing of this process can be trusted.
struct Unsure<'a, V> {
    kit: &'a Kit<V>,
    armed: bool,
}

impl<V> Drop for Unsure<'_, V> {
    fn drop(&mut self) {
        if self.armed {
            self.kit.core.local.lost();
        }
    }
}

fn first<T>(answers: Vec<Result<T>>, operation: &'static str) -> Result<T> {
    answers.into_iter().next().unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Unavailable, operation, "the store gave no answer"))
    })
}
