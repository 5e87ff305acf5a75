//! The shape of traces, and what they cost where nobody looks.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use resonant_cache::{ErrorKind, Result};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Instrument, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{Source, cache_with, exact, settle};

/// A span, as a tracing system would show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) parent: Option<&'static str>,
    pub(crate) follows: Vec<&'static str>,
    pub(crate) fields: BTreeMap<&'static str, String>,
    id: u64,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

/// Writes spans down, of whatever target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Vec<Seen>>>);

impl Watch {
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of several with one number the last, for numbers are used again.
        if let Some(seen) = all.iter_mut().rev().find(|seen| seen.id == id.into_u64()) {
            change(seen);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Watch {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| Some(span.parent()?.name()));
        let name = attributes.metadata().name();
        let mut seen = Seen { name, parent, id: id.into_u64(), ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| values.record(seen));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let Some(name) = context.span(follows).map(|span| span.name()) else { return };
        self.change(id, |seen| seen.follows.push(name));
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Runs `test` on one thread and answers its spans.
pub(crate) fn watched(paused: bool, test: impl AsyncFnOnce(&Watch)) -> Vec<Seen> {
    resonant_common::telemetry::keep_attention();
    let watch = Watch::default();
    let subscriber = tracing_subscriber::registry().with(watch.clone());
    tracing::subscriber::with_default(subscriber, || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        match builder.enable_all().start_paused(paused).build() {
            Ok(runtime) => runtime.block_on(test(&watch)),
            Err(error) => panic!("{error}"),
        }
    });
    watch.take()
}

fn names(seen: &[Seen]) -> Vec<&'static str> {
    seen.iter().map(|seen| seen.name).collect()
}

fn well<T>(outcome: Result<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_load_is_inside_the_call_that_began_it_and_a_hit_makes_no_span() {
    let seen = watched(true, async |watch| {
        let users = cache_with(exact()).namespace::<String>("user");
        let load = async || {
            let query = async { Ok::<_, std::io::Error>("Ada".to_owned()) };
            query.instrument(tracing::info_span!("query")).await
        };
        let request = async { well(users.get_or_load("the-key", load).await) };
        request.instrument(tracing::info_span!("request")).await;
        let loaded = watch.take();
        for _ in 0..100 {
            assert!(well(users.get("the-key").await).is_some());
            assert_eq!(*well(users.get_or_load("the-key", load).await), "Ada");
            assert!(well(users.get_many(&["the-key"]).await.remove(0)).is_some());
        }
        assert_eq!(names(&watch.take()), [""; 0], "a hit costs no span");
        watch.0.lock().unwrap_or_else(PoisonError::into_inner).extend(loaded);
    });
    assert_eq!(names(&seen), ["request", "cache.call", "cache.load", "query"]);
    let parents: Vec<_> = seen.iter().map(|seen| seen.parent).collect();
    assert_eq!(parents, [None, Some("request"), Some("cache.call"), Some("cache.load")]);
    let field = |index: usize, name: &str| seen[index].field(name).map(str::to_owned);
    assert_eq!(field(1, "otel.name").as_deref(), Some("get_or_load"));
    assert_eq!(field(1, "resonant.cache.name").as_deref(), Some("cache"));
    assert_eq!(field(1, "resonant.cache.namespace").as_deref(), Some("user"));
    assert_eq!(field(1, "resonant.cache.result").as_deref(), Some("loaded"));
    assert_eq!(field(2, "resonant.cache.outcome").as_deref(), Some("ok"));
    assert_eq!(field(2, "resonant.cache.loaded").as_deref(), Some("1"));
    let shown = format!("{seen:?}");
    assert!(!shown.contains("the-key") && !shown.contains("Ada"), "{shown}");
}

#[test]
fn who_joins_a_load_follows_from_it_and_a_failure_is_told_by_its_code() {
    let seen = watched(true, async |_| {
        let users = cache_with(exact()).namespace::<String>("user");
        let source = Source::held();
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (users, load) = (users.clone(), source.fails());
                tokio::spawn(async move { users.get_or_load("7", load).await })
            })
            .collect();
        settle().await;
        source.let_through(1);
        for caller in callers {
            let kind = caller.await.map(|loaded| loaded.err().map(|error| error.kind()));
            assert!(matches!(kind, Ok(Some(ErrorKind::Load))));
        }
        assert_eq!(source.asked(), 1);
    });
    let loads = seen.iter().filter(|seen| seen.name == "cache.load").count();
    assert_eq!(loads, 1, "{seen:#?}");
    let calls: Vec<_> = seen.iter().filter(|seen| seen.name == "cache.call").collect();
    let joined = calls.iter().filter(|call| call.follows == ["cache.load"]).count();
    assert_eq!((calls.len(), joined), (3, 2), "{calls:#?}");
    for span in seen.iter().filter(|seen| seen.name.starts_with("cache.")) {
        assert_eq!(span.field("error.type"), Some("cache.load"), "{span:?}");
        assert_eq!(span.field("otel.status_code"), Some("ERROR"), "{span:?}");
    }
}

#[test]
fn every_call_that_leaves_the_process_has_one_span() {
    use resonant_cache::SetOptions;
    let seen = watched(true, async |_| {
        let users = cache_with(exact()).namespace::<u64>("n");
        well(users.get("1").await);
        well(users.get_entry("1").await);
        well(users.set("1", &1).await);
        let version = well(users.get_versioned("1").await).version;
        well(users.compare_and_set("1", version, &2).await);
        for found in users.get_many(&["a", "b"]).await {
            well(found);
        }
        for stored in users.set_many([("a", &1), ("b", &2)], SetOptions::new()).await {
            well(stored);
        }
        let load = async |keys: Vec<String>| {
            Ok::<_, std::io::Error>(keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
        };
        for found in users.get_many_or_load(&["c", "d", "e"], load).await {
            well(found);
        }
        well(users.incr("1", 1).await);
        well(users.counter("1").await);
        well(users.delete("1").await);
        well(users.invalidate_tag("t").await);
        well(users.clear().await);
    });
    let calls: Vec<_> = seen
        .iter()
        .filter(|seen| seen.name == "cache.call")
        .map(|call| {
            let field = |name| call.field(name).unwrap_or("-").to_owned();
            (field("otel.name"), field("resonant.cache.keys"), field("resonant.cache.result"))
        })
        .collect();
    let expected = [
        ("get", "1", "miss"),
        ("get_entry", "1", "miss"),
        ("set", "1", "ok"),
        ("get_versioned", "1", "-"),
        ("compare_and_set", "1", "ok"),
        ("get_many", "2", "-"),
        ("set_many", "2", "-"),
        ("get_many_or_load", "3", "-"),
        ("incr", "1", "ok"),
        ("counter", "1", "ok"),
        ("delete", "1", "ok"),
        ("invalidate_tag", "-", "ok"),
        ("clear", "-", "ok"),
    ];
    let expected = expected.map(|(call, keys, how)| (call.into(), keys.into(), how.into()));
    assert_eq!(calls, expected);
}

#[test]
fn a_hit_allocates_nothing_while_somebody_counts_and_traces() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let seen = metrics::with_local_recorder(&recorder, || {
        watched(false, async |watch| {
            let users = cache_with(exact()).namespace::<String>("user");
            well(users.set("7", &"Ada".to_owned()).await);
            for _ in 0..3 {
                well(users.get("7").await);
            }
            watch.take();
            let mut get = std::pin::pin!(users.get("7"));
            let cost = allocation_counter::measure(|| {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(get.as_mut().poll(&mut context).is_ready());
            });
            assert_eq!(cost.count_total, 0, "{cost:?}");
        })
    });
    assert_eq!(names(&seen), [""; 0]);
}
