//! The typed middle of a namespace: looking values up in both tiers, and turning them into bytes and back.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resonant_common::duration::after;
use tokio::time::Instant;

use super::NamespaceCore;
use crate::backend::{Announces, FenceAt, Key, ReadFrom};
use crate::cache::Core;
use crate::codec::Codec;
use crate::envelope::{self, Head, Payload, Sealed, TagId, Version};
use crate::epochs::Standing;
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::{Freshness, judge};
use crate::key::{LocalKey, LocalRef};
use crate::l1::{Entry, Value};
use crate::options::{Kept, Served, Tier};
use crate::trace::Call;

pub(crate) struct Kit<V> {
    pub(crate) core: Arc<Core>,
    pub(crate) ns: Arc<NamespaceCore>,
    pub(crate) codec: Arc<dyn Codec<V>>,
    pub(crate) fingerprint: u32,
}

/// What the process holds for a key.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) verdict: Verdict,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Serve it.
    Fresh,
    /// It is stale; serve it, for loading it anew has failed a moment ago.
    Settled,
    /// It is stale; serve it and load it anew.
    Revalidate,
    /// It is stale; load it anew, and serve it if that fails.
    IfError,
}

/// What the shared tier holds for a key.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Of what is stored, whether or not it may be served.
    pub(crate) version: Option<Version>,
    /// What may be served, and how fresh it is; never [`Freshness::Expired`].
    pub(crate) entry: Option<(Entry, Freshness)>,
}

impl<V: Send + Sync + 'static> Kit<V> {
    /// What the process holds for a key and may be served in some way.
    #[inline]
    pub(crate) fn look(&self, key: &str) -> Option<Held> {
        if self.core.local.panel.bypasses_local() {
            return None;
        }
        let entry = self.core.local.l1.get(LocalRef { namespace: self.ns.id(), key })?;
        if self.ns.judge(entry.epoch, entry.tags()) != Standing::Valid {
            return None;
        }
        let Some(settled_until) = entry.settled_until else {
            return Some(Held { entry, verdict: Verdict::Fresh });
        };
        let now = Instant::now();
        let over = entry.fresh_until.is_some_and(|end| end <= now);
        let verdict = if now < settled_until {
            if over { Verdict::Settled } else { Verdict::Fresh }
        } else if !over {
            // Only the store's silence is the reason not to serve it: look there.
            return None;
        } else {
            match judge(entry.fresh_until, entry.value.is_none(), self.ns.windows(), now) {
                Freshness::Fresh => Verdict::Fresh,
                Freshness::Revalidate => Verdict::Revalidate,
                Freshness::IfError => Verdict::IfError,
                Freshness::Expired => return None,
            }
        };
        Some(Held { entry, verdict })
    }

    /// Begins a call, which leaves what the process holds here.
    pub(super) fn call(&self, of: &'static str, keys: usize) -> Call {
        Call::begin(&self.core.config.name, self.ns.name(), of, keys)
    }

    /// Refuses what cannot be asked of the store.
    pub(crate) fn admit(&self, key: &str, operation: &'static str) -> Result<LocalKey> {
        self.core.admit(operation)?;
        if self.ns.surplus {
            let most = self.core.config.max_namespaces;
            let message = format!("more than {most} namespaces are open; raise max_namespaces");
            return Err(Error::new(ErrorKind::Overloaded, operation, message));
        }
        let (length, most) = (self.ns.name().len() + key.len(), self.core.config.max_key_bytes);
        if length > most {
            let message = format!(
                "namespace and key are {length} bytes long, {most} are allowed; shorten or hash the key"
            );
            return Err(Error::new(ErrorKind::KeyTooLong, operation, message));
        }
        Ok(self.ns.local_key(key))
    }

    /// What the shared tier holds for some keys, in their order.
    pub(crate) async fn fetch(&self, keys: &[LocalKey], from: ReadFrom) -> Vec<Result<Found>> {
        let gate = &self.core.gate;
        if self.core.local.panel.bypasses() {
            return keys.iter().map(|_| Ok(Found::default())).collect();
        }
        let known = self.ns.know_epochs(gate, self.core.config.unannounced_max_age).await;
        if let Err(error) = known {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        let names: Vec<Key> = keys.iter().map(|key| self.ns.stored_key(key)).collect();
        let answers = gate.read(&names, from).await;
        let mut opened: Vec<_> =
            answers.into_iter().map(|answer| answer.map(|bytes| self.open(bytes))).collect();
        if self.core.journal.len() > 0 {
            for (opened, name) in opened.iter_mut().zip(&names) {
                // What should have been removed may still be there.
                if let Ok(opened) = opened
                    && self.core.journal.concerns(name)
                {
                    opened.content = None;
                }
            }
        }
        let unknown = self.unknown_tags(&opened);
        if !unknown.is_empty() {
            // Without an answer these values stay unknown, which makes them misses.
            if let Ok(epochs) = self.ns.ask_tags(gate, &unknown).await {
                let answers = unknown.into_iter().zip(epochs.tags).collect();
                self.vouch(&mut opened, &answers, epochs.latest);
            }
        }
        let (now, clock) = (Instant::now(), gate.clock());
        let settle = |opened, key| self.settle(opened, key, now, clock);
        let opened = opened.into_iter().zip(keys);
        opened.map(|(opened, key)| opened.map(|opened| settle(opened, key))).collect()
    }

    fn open(&self, bytes: Option<Bytes>) -> Opened {
        let Some(bytes) = bytes else { return Opened::default() };
        if self.ns.config.plain {
            return Opened {
                version: None,
                content: Some((self.unknown_head(), Payload::plain(bytes))),
            };
        }
        let content =
            envelope::open(&bytes).filter(|(head, _)| head.fingerprint == self.fingerprint);
        Opened { version: envelope::version(&bytes), content }
    }

    /// What is assumed of a value that says nothing of itself: that it is good now.
    fn unknown_head(&self) -> Head {
        Head {
            fingerprint: self.fingerprint,
            version: Version::random(),
            written_at: self.core.gate.clock(),
            fresh_ms: self.ns.config.ttl.map(whole_millis),
            negative: false,
            position: None,
            epoch: self.ns.epoch(),
            tags: Vec::new(),
        }
    }

    fn unknown_tags(&self, opened: &[Result<Opened>]) -> Vec<TagId> {
        let heads = opened
            .iter()
            .filter_map(|opened| opened.as_ref().ok()?.content.as_ref().map(|(head, _)| head));
        let mut unknown: Vec<_> = heads
            .filter(|head| self.ns.judge(head.epoch, &head.tags) == Standing::Unknown)
            .flat_map(|head| head.tags.iter().copied())
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// Values whose tags the store answered for. A value that is good at the store's latest epoch counts as loaded at
    /// that epoch from here on, so that this process need not ask again.
    fn vouch(&self, opened: &mut [Result<Opened>], answers: &HashMap<TagId, u64>, latest: u64) {
        for (head, _) in opened.iter_mut().flatten().filter_map(|opened| opened.content.as_mut()) {
            let answered = |tag| answers.get(tag).is_some_and(|epoch| *epoch <= head.epoch);
            if self.ns.judge(head.epoch, &head.tags) == Standing::Unknown
                && head.tags.iter().all(answered)
            {
                head.epoch = latest;
            }
        }
    }

    fn settle(&self, opened: Opened, key: &LocalKey, now: Instant, clock: u64) -> Found {
        let entry = opened.content.and_then(|(head, payload)| {
            let valid = self.ns.judge(head.epoch, &head.tags) == Standing::Valid;
            if valid { self.revive(&head, payload, key, now, clock) } else { None }
        });
        Found { version: opened.version, entry }
    }

    /// The entry that stored bytes stand for, unless it is over or does not decode.
    fn revive(
        &self,
        head: &Head,
        payload: Payload,
        key: &LocalKey,
        now: Instant,
        clock: u64,
    ) -> Option<(Entry, Freshness)> {
        let age = Duration::from_millis(head.age(clock));
        let fresh_until = match head.fresh_ms {
            None => None,
            // An instant so long ago that it cannot be expressed is over.
            Some(life) => Some(end_of_life(Duration::from_millis(life), age, now)?),
        };
        let freshness = judge(fresh_until, head.negative, self.ns.windows(), now);
        if freshness == Freshness::Expired {
            return None;
        }
        let (value, weight) = if head.negative {
            (None, 0)
        } else {
            let payload = payload.inflate(self.ns.config.max_value_bytes)?;
            let value = self.codec.decode(&payload).ok()?;
            let weight = self.codec.weight(&value, payload.len());
            (Some(Arc::new(value) as Value), weight)
        };
        let entry = Entry {
            value,
            fresh_until,
            settled_until: self.settled(fresh_until, now),
            epoch: head.epoch,
            tags: (!head.tags.is_empty()).then(|| head.tags.clone().into()),
            weight: (weight + key.key.len()) as u64,
            trust: 0,
        };
        Some((entry, freshness))
    }

    /// Until when a value is served from the process alone.
    pub(crate) fn settled(&self, fresh_until: Option<Instant>, now: Instant) -> Option<Instant> {
        if self.core.gate.store().capabilities().announces != Announces::Never {
            return fresh_until;
        }
        let look_again = after(now, self.core.config.unannounced_max_age);
        Some(fresh_until.map_or(look_again, |end| end.min(look_again)))
    }

    /// Bytes for the store.
    pub(crate) fn seal(
        &self,
        value: Option<&V>,
        kept: &Kept,
        epoch: u64,
        operation: &'static str,
    ) -> Result<(Sealed, Version)> {
        let version = Version::random();
        let head = Head {
            fingerprint: self.fingerprint,
            version,
            written_at: self.core.gate.clock(),
            fresh_ms: kept.life.map(whole_millis),
            negative: value.is_none(),
            position: kept.position,
            epoch,
            tags: kept.tags.clone(),
        };
        let encode =
            |out: &mut Vec<u8>| value.map_or(Ok(()), |value| self.codec.encode(value, out));
        let sealed = if self.ns.config.plain {
            Sealed::plain(encode)
        } else {
            head.seal(self.ns.config.compress_above, encode)
        };
        let sealed = sealed.map_err(|source| {
            let message = format!(
                "the codec {:?} could not encode a value of namespace {:?}",
                self.codec.name(),
                self.ns.name()
            );
            Error::new(ErrorKind::Codec, operation, message).with_source(source)
        })?;
        let most = self.ns.config.max_value_bytes;
        if sealed.payload > most {
            let message = format!(
                "the encoded value is {} bytes, max_value_bytes allows {most}",
                sealed.payload
            );
            return Err(Error::new(ErrorKind::ValueTooLarge, operation, message));
        }
        Ok((sealed, version))
    }

    /// For how long the store keeps a value: its life and the longest window after it.
    pub(crate) fn stored_for(&self, kept: &Kept, negative: bool) -> Option<Duration> {
        let after = if negative { Duration::ZERO } else { self.ns.windows().longest() };
        kept.life.map(|life| life.saturating_add(after))
    }

    pub(crate) fn fence(&self, kept: &Kept) -> Option<FenceAt> {
        let ttl = self.ns.config.position_ttl;
        kept.position.map(|position| FenceAt { position, ttl })
    }

    /// An entry as users see it.
    pub(crate) fn serve(&self, entry: Entry, tier: Tier, stale: bool) -> Result<Served<V>> {
        let value = match entry.value {
            None => None,
            Some(value) => Some(self.typed(value)?),
        };
        Ok(Served { value, stale, tier })
    }

    pub(crate) fn typed(&self, value: Arc<dyn Any + Send + Sync>) -> Result<Arc<V>> {
        value.downcast::<V>().map_err(|_| {
            let message = format!(
                "namespace {:?} is used with two types of values at once; give each its own name",
                self.ns.name()
            );
            Error::new(ErrorKind::Rejected, "get", message)
        })
    }
}

#[derive(Debug, Default)]
struct Opened {
    version: Option<Version>,
    content: Option<(Head, Payload)>,
}

fn end_of_life(life: Duration, age: Duration, now: Instant) -> Option<Instant> {
    match life.checked_sub(age) {
        Some(left) => now.checked_add(left),
        None => now.checked_sub(age - life),
    }
}

/// Rounded up, so that a life below a millisecond is not none at all.
fn whole_millis(life: Duration) -> u64 {
    u64::try_from(life.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
