//! Reading, writing, removing, and times to live.

use std::time::Duration;

use bytes::Bytes;

use super::{Bench, Guard, Key, ReadFrom, STORED, Write, ok, plain, value};

pub(super) async fn an_absent_key_reads_as_none(bench: Bench) {
    assert_eq!(bench.read(&bench.key("never written")).await, None);
}

pub(super) async fn what_is_written_is_read_back(bench: Bench) {
    let key = bench.key("a");
    for bytes in [value("one"), value(""), Bytes::from_static(b"\0\xff no envelope")] {
        assert_eq!(bench.put(&key, &bytes, Guard::Always).await, STORED);
        assert_eq!(bench.read(&key).await, Some(bytes), "what was written last");
    }
}

pub(super) async fn answers_stand_in_the_order_of_the_keys(bench: Bench) {
    let keys: Vec<Key> = (0..50).map(|n| bench.key(&format!("k{n}"))).collect();
    let even = keys.iter().enumerate().filter(|(n, _)| n % 2 == 0);
    let writes = even
        .map(|(n, key)| plain(key, &Bytes::from(n.to_string()), Guard::Always))
        .collect::<Vec<_>>();
    let outcomes = bench.store.write(bench.origin, writes).await;
    assert_eq!(outcomes.len(), 25, "an outcome for each write");
    let mut asked: Vec<Key> = keys.iter().rev().cloned().collect();
    asked.push(keys[0].clone());
    let answers = bench.store.read(&asked, ReadFrom::Primary).await;
    assert_eq!(answers.len(), asked.len(), "an answer for each key, the repeated one too");
    for (answer, n) in answers.into_iter().zip((0..50).rev().chain([0])) {
        let expected = (n % 2 == 0).then(|| Bytes::from(n.to_string()));
        assert_eq!(ok(answer, "read"), expected, "the answer for k{n}");
    }
}

pub(super) async fn nothing_is_asked_and_nothing_answered(bench: Bench) {
    assert!(bench.store.read(&[], ReadFrom::Any).await.is_empty());
    assert!(bench.store.write(bench.origin, Vec::new()).await.is_empty());
    assert!(bench.store.remove(bench.origin, &[], None).await.is_empty());
}

pub(super) async fn a_value_ends_with_its_time_to_live(bench: Bench) {
    let (short, long) = (bench.key("short"), bench.key("long"));
    let write = Write { ttl: Some(bench.short), ..plain(&short, &value("x"), Guard::Always) };
    assert_eq!(bench.write(write).await, STORED);
    assert_eq!(bench.put(&long, &value("y"), Guard::Always).await, STORED);
    assert!(bench.read(&short).await.is_some(), "it is not over yet");
    bench.pass().await;
    assert_eq!(bench.read(&short).await, None, "its time to live is over");
    assert!(!bench.remove(&short, None).await, "what is over was not there");
    assert!(bench.read(&long).await.is_some(), "the other's is not");
}

pub(super) async fn without_a_time_to_live_it_stays(bench: Bench) {
    let key = bench.key("a");
    let write = Write { ttl: None, ..plain(&key, &value("x"), Guard::Always) };
    assert_eq!(bench.write(write).await, STORED);
    bench.pass().await;
    assert!(bench.read(&key).await.is_some(), "nothing ended it");
}

pub(super) async fn a_write_replaces_value_and_life(bench: Bench) {
    let key = bench.key("a");
    let write = Write { ttl: Some(bench.short), ..plain(&key, &value("x"), Guard::Always) };
    assert_eq!(bench.write(write).await, STORED);
    let second = value("y");
    assert_eq!(bench.put(&key, &second, Guard::Always).await, STORED);
    bench.pass().await;
    assert_eq!(bench.read(&key).await, Some(second), "the first write's life is not the second's");
}

pub(super) async fn a_removal_says_whether_there_was_a_value(bench: Bench) {
    let (a, b) = (bench.key("a"), bench.key("b"));
    assert_eq!(bench.put(&a, &value("x"), Guard::Always).await, STORED);
    let answers = bench.store.remove(bench.origin, &[b.clone(), a.clone()], None).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| ok(answer, "remove")).collect();
    assert_eq!(answers, [false, true]);
    assert_eq!(bench.read(&a).await, None);
    assert!(!bench.remove(&a, None).await, "it is gone already");
}

pub(super) async fn odd_names_are_apart(bench: Bench) {
    let space = bench.namespace("n");
    let names = [
        Key::new(space.clone(), ""),
        Key::new(space.clone(), "a:b"),
        Key::new(format!("{space}:a"), "b"),
        Key::new(space.clone(), "{a}:b"),
        Key::new(space.clone(), "}{"),
        Key::new(space.clone(), "%7D{"),
        Key::new(space.clone(), "a b\r\n\t\u{0}é漢🦀"),
        Key::new(space.clone(), "A:B"),
        Key::new(space, "a:b:l"),
    ];
    for (n, name) in names.iter().enumerate() {
        assert_eq!(bench.put(name, &value(&n.to_string()), Guard::Always).await, STORED);
    }
    for (n, name) in names.iter().enumerate() {
        let read = bench.read(name).await.map(|bytes| bytes.slice(23..));
        assert_eq!(read, Some(Bytes::from(n.to_string())), "the name number {n}");
    }
}

pub(super) async fn a_large_value_is_kept_whole(bench: Bench) {
    let key = bench.key("large");
    let large: Bytes = (0..1u32 << 20).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
    assert_eq!(bench.put(&key, &large, Guard::Always).await, STORED);
    assert!(bench.read(&key).await == Some(large), "one mebibyte came back changed");
}

pub(super) async fn the_clock_goes_on_and_the_store_answers(bench: Bench) {
    ok(bench.store.ping().await, "ping");
    let before = bench.store.clock();
    bench.pass().await;
    let passed = Duration::from_millis(bench.store.clock().saturating_sub(before));
    assert!(passed >= bench.short, "the clock went {passed:?} while {:?} passed", bench.short);
}
