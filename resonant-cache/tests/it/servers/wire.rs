//! What stands in the servers: for other programs, and for other versions of the same one.

use std::time::Duration;

use resonant_cache::backend::Key;
use resonant_cache::{
    DistributedCache, ErrorKind, Json, Loaded, Namespace, NamespaceConfig, Postcard, Result,
    SetOptions, Written,
};
use resonant_testkit::redis::Reply;
use serde::{Deserialize, Serialize};

use super::{cache, cluster, config, server, started, until_held};

fn own_prefix(nodes: Vec<String>, cluster: bool) -> resonant_cache::CacheConfig {
    let mut config = config(nodes, cluster);
    config.key_prefix = format!("t{:08x}", rand::random::<u32>());
    config.defaults.ttl_jitter = 0.0;
    config
}

fn text(reply: Reply) -> String {
    match reply {
        Reply::Text(text) => text,
        other => panic!("{other:?} is no text"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_values_are_shared_with_any_program() -> Result<()> {
    let config = own_prefix(vec![server().await.url()], false);
    let cache = cache(config.clone()).await;
    let users: Namespace<String> = cache.namespace_builder("user").plain().open_with(Json)?;
    let stored = |key: &str| Key::new("user", key).encode(&config.key_prefix);
    let node = server().await;
    // Ours, as they see it.
    users.set_with("7", &"Ada".to_owned(), SetOptions::new().ttl(Duration::from_secs(600))).await?;
    assert_eq!(text(started(node.command(["GET", &stored("7")]).await)), "\"Ada\"");
    let Reply::Integer(left) = started(node.command(["PTTL", &stored("7")]).await) else {
        panic!("a time to live is a number")
    };
    assert!((1..=600_000).contains(&left), "{left} ms are left");
    // Theirs, as we see it; and what they change leaves this process.
    for value in ["Grace", "Hedy"] {
        started(node.command(["SET", &stored("7"), &format!("\"{value}\"")]).await);
        let begun = tokio::time::Instant::now();
        while users.get("7").await?.as_deref().map(String::as_str) != Some(value) {
            assert!(begun.elapsed() < super::SOON, "{value} was not heard of");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let read = async || {
        let read = started(users.get("7").await);
        assert_eq!(read.as_deref().map(String::as_str), Some("Hedy"));
    };
    until_held(&cache, read).await;
    started(node.command(["SET", &stored("8"), "no JSON"]).await);
    assert_eq!(users.get("8").await?, None, "what does not decode is a miss");
    let loaded =
        users.get_or_load("9", async || Ok::<_, std::io::Error>("Mary".to_owned())).await?;
    assert_eq!(*loaded, "Mary");
    assert_eq!(text(started(node.command(["GET", &stored("9")]).await)), "\"Mary\"");
    users.delete("9").await?;
    assert_eq!(started(node.command(["EXISTS", &stored("9")]).await), Reply::Integer(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_of_a_plain_value_does_not_overwrite_what_others_set_meanwhile() -> Result<()> {
    for (nodes, is_cluster) in [(cluster().await.urls(), true), (vec![server().await.url()], false)]
    {
        let config = own_prefix(nodes, is_cluster);
        let cache = cache(config.clone()).await;
        let users: Namespace<String> = cache.namespace_builder("user").plain().open()?;
        let stored = Key::new("user", "7").encode(&config.key_prefix);
        let (node, users_too) = (
            match is_cluster {
                true => started(cluster().await.owner_of(&stored).await),
                false => (**server().await).clone(),
            },
            users.clone(),
        );
        let load = async move || {
            started(node.command(["SET", &stored, "\"newer\""]).await);
            Ok::<_, std::io::Error>("older".to_owned())
        };
        assert_eq!(*users.get_or_load("7", load).await?, "older", "who asked before gets it");
        assert_eq!(users_too.get("7").await?.as_deref().map(String::as_str), Some("newer"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_without_a_condition_keeps_the_value_of_a_load_out() -> Result<()> {
    // With a plain command, in a script because its life is short, and where the lease outlives what it remembers.
    let long = NamespaceConfig {
        hard_load_timeout: Duration::from_secs(1000),
        ..NamespaceConfig::default()
    };
    for (settings, ttl) in [
        (NamespaceConfig::default(), 600u64),
        (NamespaceConfig::default(), 60),
        (long.clone(), 600),
        (long, 60),
    ] {
        let config = own_prefix(cluster().await.urls(), true);
        let (here, there) = (cache(config.clone()).await, cache(config).await);
        let open = |cache: &DistributedCache| {
            started(cache.namespace_builder::<String>("user").config(settings.clone()).open())
        };
        let (here, there) = (open(&here), open(&there));
        let (mine, key) = (here.clone(), "7");
        let load = async move || {
            let life = SetOptions::new().ttl(Duration::from_secs(ttl));
            assert_eq!(mine.get(key).await.ok(), Some(None), "a mark is no value");
            mine.set_with(key, &"newer".to_owned(), life).await.map(|_| "older".to_owned())
        };
        assert_eq!(*there.get_or_load(key, load).await?, "older");
        let found = there.get(key).await?;
        assert_eq!(found.as_deref().map(String::as_str), Some("newer"), "a life of {ttl} s");
        // And one that nobody disturbs is stored.
        let load = async || Ok::<_, std::io::Error>("loaded".to_owned());
        there.get_or_load("8", load).await?;
        assert_eq!(here.get("8").await?.as_deref().map(String::as_str), Some("loaded"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_plain_values_cannot_say_is_refused() -> Result<()> {
    let cache = DistributedCache::memory(1 << 20);
    let users: Namespace<u64> = cache.namespace_builder("user").plain().open()?;
    let refused = |error: Option<resonant_cache::Error>| {
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Rejected));
    };
    refused(users.set_with("7", &1, SetOptions::new().tag("t")).await.err());
    refused(users.compare_and_set("7", None, &1).await.err());
    refused(users.clear().await.err());
    refused(users.invalidate_tag("t").await.err());
    let tagged = async || Ok::<_, std::io::Error>(Loaded::new(1u64).tag("t"));
    refused(users.get_or_load_with("7", tagged).await.err());
    let stale = |config: &mut NamespaceConfig| config.stale_if_error = Duration::from_secs(1);
    let opened = cache.namespace_builder::<u64>("other").plain().configure(stale).open();
    assert_eq!(opened.err().map(|error| error.kind()), Some(ErrorKind::Config));
    assert_eq!(users.set_with("7", &1, SetOptions::new()).await?, Written::Stored);
    assert_eq!(users.get("7").await?.as_deref(), Some(&1));
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct UserV1 {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct UserV2 {
    name: String,
    #[serde(default)]
    age: Option<u8>,
}

/// Two versions of a program on the same keys at once, as in a rolling deploy: with a type that grew, with another codec, with
/// compression on one side, with another schema. Each reads what it can, misses the rest, and fails nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_of_a_program_share_a_cache_without_an_error() -> Result<()> {
    let config = own_prefix(cluster().await.urls(), true);
    let (old, new) = (cache(config.clone()).await, cache(config).await);
    let v1 = UserV1 { name: "Ada ".repeat(50) };
    let v2 = UserV2 { name: "Grace".into(), age: Some(36) };
    let squeezed = NamespaceConfig { compress_above: Some(64), ..NamespaceConfig::default() };
    let renamed = NamespaceConfig { schema: "2".into(), ..NamespaceConfig::default() };

    // (namespace, whether the new program reads what the old one wrote, and the other way round)
    let pairs: [(&str, Namespace<UserV1>, Namespace<UserV2>, bool); 4] = [
        ("grown", old.namespace("grown"), new.namespace("grown"), true),
        (
            "compressed",
            old.namespace("compressed"),
            new.namespace_builder("compressed").config(squeezed).open()?,
            true,
        ),
        (
            "codec",
            old.namespace("codec"),
            new.namespace_builder("codec").open_with(Postcard)?,
            false,
        ),
        (
            "schema",
            old.namespace("schema"),
            new.namespace_builder("schema").config(renamed).open()?,
            false,
        ),
    ];
    for (name, old, new, alike) in &pairs {
        old.set("a", &v1).await?;
        let found = new.get("a").await?;
        let expected = UserV2 { name: v1.name.clone(), age: None };
        assert_eq!(found.as_deref(), alike.then_some(&expected), "{name}");
        new.set("a", &v2).await?;
        let loads = v1.clone();
        // Whoever cannot read it loads it, and overwrites it.
        let found = old.get_or_load("a", async move || Ok::<_, std::io::Error>(loads)).await;
        let expected = if *alike { UserV1 { name: v2.name.clone() } } else { v1.clone() };
        assert_eq!(*found?, expected, "{name}");
    }
    // Both at once, on the same keys.
    let mut tasks = Vec::new();
    for (_, old, new, _) in pairs {
        let (v1, v2) = (v1.clone(), v2.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..100 {
                let key = format!("k{}", n % 7);
                old.set(&key, &v1).await?;
                old.get(&key).await?;
            }
            Ok::<_, resonant_cache::Error>(())
        }));
        tasks.push(tokio::spawn(async move {
            for n in 0..100 {
                let (key, loaded) = (format!("k{}", n % 7), v2.clone());
                new.get_or_load(&key, async move || Ok::<_, std::io::Error>(loaded)).await?;
                new.delete(&key).await?;
            }
            Ok(())
        }));
    }
    for task in tasks {
        started(started(task.await));
    }
    Ok(())
}
