//! Passwords that change while the program runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resonant_cache::backend::MemoryStore;
use resonant_cache::{CacheConfig, Credentials, DistributedCache, ErrorKind, Result};
use resonant_testkit::Redis;
use tokio::time::Instant;

use super::{builder, by_fred, config, started};

const RULES: &str = "~resonant:* +@read +@write +@scripting +@connection +@fast";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_is_asked_for_and_used() -> Result<()> {
    rotated(|config| config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_is_asked_for_and_used_by_fred() -> Result<()> {
    rotated(by_fred).await
}

async fn rotated(driven: impl FnOnce(CacheConfig) -> CacheConfig) -> Result<()> {
    let redis = started(Redis::builder().login("app", "first", RULES).start().await);
    let config = driven(CacheConfig {
        command_timeout: Duration::from_secs(4),
        ..config(vec![started(redis.url_as("app"))], false)
    });
    // Whatever password the URL has, the provider's counts.
    let password = Arc::new(Mutex::new("first".to_owned()));
    let held = Arc::clone(&password);
    let cache = builder(config)
        .credentials(move || {
            let password = held.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { Ok::<_, std::io::Error>(Credentials::password(password).user("app")) }
        })
        .connect()
        .await?;
    let users = cache.namespace::<u64>("n");
    users.set("7", &1).await?;
    // Rotated: connections with the old one end, and new ones need the new one.
    started(redis.command(["ACL", "SETUSER", "app", "resetpass", ">second-secret"]).await);
    started(redis.command(["CLIENT", "KILL", "USER", "app"]).await);
    let begun = Instant::now();
    while cache.ping().await.is_ok() {
        assert!(begun.elapsed() < super::SOON, "the old password is still good for something");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Err(error) = cache.ping().await else { panic!("the password is not good any more") };
    assert!(!format!("{error:?} {error}").contains("first"), "{error:?}");
    *password.lock().unwrap_or_else(PoisonError::into_inner) = "second-secret".to_owned();
    let begun = Instant::now();
    while users.set("7", &2).await.is_err() || cache.findings()[0].code != "cache.ok" {
        assert!(begun.elapsed() < super::SOON, "{:?}", cache.findings());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("FIGURE the new password was used {:?} after it was given", begun.elapsed());
    assert_eq!(users.get("7").await?.as_deref(), Some(&2));
    Ok(())
}

#[tokio::test]
async fn a_provider_that_fails_is_a_server_that_cannot_be_reached() -> Result<()> {
    let redis = started(Redis::start().await);
    let cache = builder(config(vec![redis.url()], false))
        .credentials(async || Err::<Credentials, _>(std::io::Error::other("the vault is sealed")))
        .build()?;
    let Err(error) = cache.ping().await else { panic!("nobody could log in") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the vault is sealed"), "{error}");
    let shown = format!("{:?}", Credentials::password("hidden").user("app"));
    assert!(shown.contains("app") && !shown.contains("hidden"), "{shown}");
    for builder in [
        DistributedCache::builder(),
        DistributedCache::builder().store(Arc::new(MemoryStore::new(8192))),
    ] {
        let built =
            builder.credentials(async || Ok::<_, std::io::Error>(Credentials::password("x")));
        assert_eq!(built.build().err().map(|error| error.kind()), Some(ErrorKind::Config));
    }
    Ok(())
}
