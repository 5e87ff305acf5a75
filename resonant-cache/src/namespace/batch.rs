//! Reading with a loader, many keys.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use resonant_common::error::BoxError;
use tracing::Instrument as _;

use super::Namespace;
use super::kit::{Held, Verdict};
use crate::error::Result;
use crate::flight::{Flight, Seat};
use crate::inflight::Entered;
use crate::key::LocalKey;
use crate::l1::Entry;
use crate::load::Loader;
use crate::metrics::Op;
use crate::options::Loaded;

/// A key's place in the answer, and what can be served for it.
struct Wanted {
    key: LocalKey,
    stale: Option<Entry>,
}

/// What a look at the process found for a key.
enum Looked<V> {
    /// Serve it.
    Held(Option<Arc<V>>),
    /// Serve it, and load it anew behind it.
    Stale(Option<Arc<V>>, Wanted),
    Missing(Wanted),
}

struct Boarded {
    wanted: Wanted,
    flight: Flight,
    joined: bool,
}

impl<V: Send + Sync + 'static> Namespace<V> {
    /// The values under `keys`, in their order, each with a status of its own; `None` where there is none. What is
    /// missing is loaded by one call of `load` for all of it, except what somebody else is loading already.
    ///
    /// The loader gets at most `max_batch` keys; more are loaded in several calls. It may be called again for keys
    /// that another process was loading and failed to. Keys missing from its answer have no value, and are remembered
    /// as such for `negative_ttl`. Its answer is any map or list of pairs; values may be given as [`Loaded`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> resonant_cache::Result<()> {
    /// use resonant_cache::DistributedCache;
    ///
    /// let lengths = DistributedCache::memory(1 << 20).namespace::<usize>("length");
    /// let found = lengths
    ///     .get_many_or_load(&["a", "abc"], async |keys: Vec<String>| {
    ///         Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key.clone(), key.len())))
    ///     })
    ///     .await;
    /// assert_eq!(found.into_iter().flatten().flatten().map(|n| *n).collect::<Vec<_>>(), [1, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Per key, those of [`get_or_load`](Namespace::get_or_load) but `NotFound`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, loads under way go on and their values are stored.
    pub async fn get_many_or_load<K, F, Fut, I, T, E>(
        &self,
        keys: &[K],
        load: F,
    ) -> Vec<Result<Option<Arc<V>>>>
    where
        K: AsRef<str>,
        F: FnOnce(Vec<String>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = (String, T)> + Send + 'static,
        T: Into<Loaded<V>>,
        E: Into<BoxError> + Send + 'static,
    {
        let mut found = HashMap::new();
        let (mut wanted, mut behind) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for key in keys.iter().map(AsRef::as_ref).filter(|key| seen.insert(*key)) {
            match self.look_at(key) {
                Ok(Looked::Held(value)) => drop(found.insert(key.to_owned(), Ok(value))),
                Ok(Looked::Stale(value, anew)) => {
                    found.insert(key.to_owned(), Ok(value));
                    behind.push(anew);
                }
                Ok(Looked::Missing(missing)) => wanted.push(missing),
                Err(error) => drop(found.insert(key.to_owned(), Err(error))),
            }
        }
        while !behind.is_empty() {
            let rest = behind.split_off(behind.len().min(self.kit.core.config.max_batch));
            self.depart(std::mem::replace(&mut behind, rest), &load);
        }
        if !wanted.is_empty() {
            let call = self.kit.call("get_many_or_load", wanted.len());
            let loading = async {
                let again = self.load_round(wanted, &load, &mut found, false).await;
                // Loads that were joined and began before an invalidation: those that begin now did not.
                self.load_round(again, &load, &mut found, true).await;
            };
            loading.instrument(call.span()).await;
            if let Some(Err(error)) = found.values().find(|found| found.is_err()) {
                call.failed(error);
            }
        }
        let answer = |key: &K| found.get(key.as_ref()).cloned().unwrap_or(Ok(None));
        keys.iter().map(answer).collect()
    }

    /// What this process holds for a key and may serve, or what to load.
    fn look_at(&self, key: &str) -> Result<Looked<V>> {
        let kit = &self.kit;
        let held = kit.look(key);
        let stale = match &held {
            None | Some(Held { verdict: Verdict::IfError, .. }) => None,
            Some(Held { entry, verdict }) => {
                kit.count_local(Op::GetOrLoad, entry, *verdict != Verdict::Fresh);
                let value = entry.value.clone().map(|value| kit.typed(value)).transpose()?;
                if *verdict != Verdict::Revalidate {
                    return Ok(Looked::Held(value));
                }
                Some(value)
            }
        };
        let key = kit.admit(key, "get_many_or_load")?;
        let wanted = Wanted { key, stale: held.map(|held| held.entry) };
        Ok(match stale {
            Some(value) => Looked::Stale(value, wanted),
            None => Looked::Missing(wanted),
        })
    }

    /// Loads in chunks what is wanted and puts the answers into `found`; answers what is to be loaded once more.
    async fn load_round<F>(
        &self,
        mut wanted: Vec<Wanted>,
        load: &F,
        found: &mut HashMap<String, Result<Option<Arc<V>>>>,
        last: bool,
    ) -> Vec<Wanted>
    where
        Many<F>: Loader<V> + 'static,
        F: Clone,
    {
        let kit = &self.kit;
        let soft = kit.soft_deadline();
        let mut again = Vec::new();
        while !wanted.is_empty() {
            let rest = wanted.split_off(wanted.len().min(kit.core.config.max_batch));
            let boarded = self.depart(std::mem::replace(&mut wanted, rest), load);
            for boarded in boarded {
                let Boarded { wanted: Wanted { key, stale }, mut flight, joined } = match boarded {
                    Ok(boarded) => boarded,
                    Err((key, error)) => {
                        found.insert(key.key.to_string(), Err(error));
                        continue;
                    }
                };
                let landed = flight.wait(stale.clone(), kit.ns.windows(), soft).await;
                if !last && joined && landed.as_ref().is_ok_and(|landed| !kit.stands(landed)) {
                    again.push(Wanted { key, stale });
                    continue;
                }
                kit.report(&landed, None);
                let value = landed.and_then(|landed| {
                    landed.entry.value.map(|value| kit.typed(value)).transpose()
                });
                found.insert(key.key.to_string(), value);
            }
        }
        again
    }

    /// Joins the loads of some keys and starts one for the rest.
    fn depart<F>(
        &self,
        wanted: Vec<Wanted>,
        load: &F,
    ) -> Vec<Result<Boarded, (LocalKey, crate::Error)>>
    where
        Many<F>: Loader<V> + 'static,
        F: Clone,
    {
        let kit = &self.kit;
        let mut seats: Vec<Seat> = Vec::new();
        let boarded: Vec<Result<Boarded, _>> = wanted
            .into_iter()
            .map(|wanted| {
                let mut pilot = None;
                match kit.board(&wanted.key, &mut pilot) {
                    Ok(Entered::Joined(flight)) => Ok(Boarded { wanted, flight, joined: true }),
                    Ok(Entered::Started(flight, ticket)) => {
                        seats.extend(kit.seat(&wanted.key, ticket, pilot, wanted.stale.clone()));
                        Ok(Boarded { wanted, flight, joined: false })
                    }
                    Err(error) => Err((wanted.key, error)),
                }
            })
            .collect();
        if !seats.is_empty() {
            let begun = boarded.iter().flatten().filter(|boarded| !boarded.joined);
            let flights: Vec<_> = begun.map(|boarded| &boarded.flight).collect();
            kit.begin(Box::new(Many(load.clone())), seats, flights);
        }
        boarded
    }
}

/// A loader of many keys.
struct Many<F>(F);

#[async_trait]
impl<V, F, Fut, I, T, E> Loader<V> for Many<F>
where
    V: Send + Sync + 'static,
    F: FnOnce(Vec<String>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<I, E>> + Send + 'static,
    I: IntoIterator<Item = (String, T)> + Send + 'static,
    T: Into<Loaded<V>>,
    E: Into<BoxError> + Send + 'static,
{
    async fn load(&mut self, keys: Vec<String>) -> Result<HashMap<String, Loaded<V>>, BoxError> {
        let load = self.0.clone();
        let loaded = load(keys).await.map_err(Into::into)?;
        Ok(loaded.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}
