//! Epochs: tags and clears.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Bench, ok};
use crate::backend::{Bump, Epochs, TagId};

const A: TagId = TagId(0xA);
const B: TagId = TagId(0xB);

impl Bench {
    async fn epochs(&self, namespace: &str, tags: &[TagId]) -> Epochs {
        let epochs = ok(self.store.epochs(namespace, tags).await, "epochs");
        assert_eq!(epochs.tags.len(), tags.len(), "an epoch for each tag");
        epochs
    }

    async fn bump(&self, namespace: &str, what: Bump) -> u64 {
        ok(self.store.bump(self.origin, namespace, what).await, "bump")
    }
}

pub(super) async fn an_epoch_rises_with_every_bump(bench: Bench) {
    let space = bench.namespace("e");
    let mut last = bench.epochs(&space, &[]).await.latest;
    for what in [Bump::All, Bump::Tags(vec![A]), Bump::Tags(vec![A, B]), Bump::All] {
        let epoch = bench.bump(&space, what).await;
        assert!(epoch > last, "{epoch} follows {last}");
        assert_eq!(bench.epochs(&space, &[]).await.latest, epoch);
        last = epoch;
    }
}

pub(super) async fn a_tag_knows_its_last_bump(bench: Bench) {
    let space = bench.namespace("e");
    let first = bench.bump(&space, Bump::Tags(vec![A, B])).await;
    let second = bench.bump(&space, Bump::Tags(vec![A])).await;
    assert_eq!(bench.epochs(&space, &[B, A]).await.tags, [first, second], "in the order asked");
    assert!(bench.epochs(&space, &[]).await.cleared < first, "a tag's bump clears nothing");
}

pub(super) async fn a_clear_is_noted_for_everything(bench: Bench) {
    let space = bench.namespace("e");
    bench.bump(&space, Bump::Tags(vec![A])).await;
    let cleared = bench.bump(&space, Bump::All).await;
    let epochs = bench.epochs(&space, &[A]).await;
    assert_eq!((epochs.latest, epochs.cleared), (cleared, cleared));
    assert!(epochs.tags[0] <= cleared, "a value loaded after the clear is good");
}

pub(super) async fn namespaces_count_apart(bench: Bench) {
    let (one, other) = (bench.namespace("one"), bench.namespace("other"));
    let before = bench.epochs(&other, &[A]).await;
    bench.bump(&one, Bump::Tags(vec![A])).await;
    bench.bump(&one, Bump::All).await;
    assert_eq!(bench.epochs(&other, &[A]).await, before);
}

pub(super) async fn no_bump_is_lost(bench: Bench) {
    let bench = Arc::new(bench);
    let space = bench.namespace("e");
    let tasks = (0..16).map(|n| {
        let (bench, space) = (Arc::clone(&bench), space.clone());
        tokio::spawn(async move { bench.bump(&space, Bump::Tags(vec![TagId(n)])).await })
    });
    let mut epochs = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await {
            Ok(epoch) => epochs.insert(epoch),
            Err(error) => panic!("{error}"),
        };
    }
    assert_eq!(epochs.len(), 16, "each bump has an epoch of its own");
    let tags: Vec<_> = (0..16).map(TagId).collect();
    let noted: BTreeSet<_> = bench.epochs(&space, &tags).await.tags.into_iter().collect();
    assert_eq!(noted, epochs);
}

pub(super) async fn a_forgotten_tag_is_never_too_low(bench: Bench) {
    let space = bench.namespace("e");
    let epoch = bench.bump(&space, Bump::Tags(vec![A])).await;
    // More tags than a store may want to remember apart.
    for n in 0..200 {
        bench
            .bump(&space, Bump::Tags((n * 100..n * 100 + 100).map(|n| TagId(1000 + n)).collect()))
            .await;
    }
    assert!(bench.epochs(&space, &[A]).await.tags[0] >= epoch, "or old values come back");
}
