//! A Redis server alone.

use resonant_testkit::redis::{RedisConnection, Reply};
use resonant_testkit::{ErrorKind, FaultProxy, Redis, Result};
use tokio::process::Command;

use crate::support::{HANG, assert_hangs, failure, freed};

#[tokio::test]
async fn a_killed_cache_comes_back_empty_and_a_durable_one_whole() -> Result<()> {
    let (cache, durable) = (Redis::start().await?, Redis::builder().durable().start().await?);
    for server in [&cache, &durable] {
        server.command(["SET", "k", "v"]).await?;
        let mut open = RedisConnection::connect(server.address()).await?;
        server.kill().await?;
        failure(open.command(["GET", "k"]).await, ErrorKind::Lost);
        failure(server.command(["SET", "k", "w"]).await, ErrorKind::Lost);
        server.start().await?;
    }
    assert_eq!(cache.command(["GET", "k"]).await?, Reply::Null);
    assert_eq!(durable.command(["GET", "k"]).await?, Reply::Text("v".into()));
    durable.restart().await?;
    assert_eq!(durable.command(["GET", "k"]).await?, Reply::Text("v".into()));
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_hangs_its_clients_and_a_server_can_throw_them_out() -> Result<()> {
    let redis = Redis::start().await?;
    let mut impatient = RedisConnection::connect(redis.address()).await?.limit(HANG);
    let mut patient = RedisConnection::connect(redis.address()).await?;
    redis.freeze()?;
    failure(impatient.command(["PING"]).await, ErrorKind::TimedOut);
    let stuck =
        assert_hangs(tokio::spawn(async move { (patient.command(["PING"]).await, patient) })).await;
    redis.thaw()?;
    let (answer, mut patient) = freed(stuck).await;
    assert_eq!(answer?, Reply::Text("PONG".into()));
    assert_eq!(redis.close_clients().await?, 2);
    failure(patient.command(["PING"]).await, ErrorKind::Lost);

    let proxy = FaultProxy::start(redis.address()).await?;
    assert_eq!(redis.url_through(&proxy), format!("redis://{}", proxy.address()));
    let mut behind = RedisConnection::connect(proxy.address()).await?;
    for _ in 0..5 {
        behind.command(["PING"]).await?;
    }
    assert_eq!(proxy.stats().round_trips, 5);
    Ok(())
}

#[tokio::test]
async fn tracking_invalidates_unless_it_is_forbidden() -> Result<()> {
    let open = Redis::start().await?;
    let mut reader = RedisConnection::connect(open.address()).await?;
    reader.command(["HELLO", "3"]).await?;
    reader.command(["CLIENT", "TRACKING", "ON"]).await?;
    reader.command(["GET", "k"]).await?;
    open.command(["SET", "k", "v"]).await?;
    let push = reader.next_push().await?;
    assert_eq!(push.items()[0], Reply::Text("invalidate".into()));

    let by_rule = Redis::builder().without_tracking().start().await?;
    let mut reader = RedisConnection::connect(by_rule.address()).await?;
    assert_eq!(
        failure(reader.command(["CLIENT", "TRACKING", "ON"]).await, ErrorKind::Rejected).code(),
        Some("NOPERM")
    );
    reader.command(["CLIENT", "ID"]).await?;

    let by_name = Redis::builder().forbid("CLIENT").start().await?;
    let mut reader = RedisConnection::connect(by_name.address()).await?;
    let refused = failure(reader.command(["CLIENT", "TRACKING", "ON"]).await, ErrorKind::Rejected);
    assert!(refused.to_string().contains("unknown command"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_login_may_do_what_its_rules_say_and_no_more() -> Result<()> {
    let redis = Redis::builder().login("app", "s3cret", "~app:* +@all").start().await?;
    let mut client = RedisConnection::connect(redis.address()).await?;
    assert_eq!(failure(client.command(["PING"]).await, ErrorKind::Rejected).code(), Some("NOAUTH"));
    assert_eq!(
        failure(client.command(["AUTH", "app", "guess"]).await, ErrorKind::Rejected).code(),
        Some("WRONGPASS")
    );
    client.command(["AUTH", "app", "s3cret"]).await?;
    client.command(["SET", "app:1", "v"]).await?;
    assert_eq!(
        failure(client.command(["SET", "other", "v"]).await, ErrorKind::Rejected).code(),
        Some("NOPERM")
    );
    assert_eq!(redis.url_as("app")?, format!("redis://app:s3cret@{}", redis.address()));
    failure(redis.url_as("nobody"), ErrorKind::Config);
    let odd = Redis::builder().login("app", "s3/cr:e@t", "~* +@all").start().await?;
    assert_eq!(odd.url_as("app")?, format!("redis://app:s3%2Fcr%3Ae%40t@{}", odd.address()));
    failure(Redis::builder().login("a b", "c", "+@all").start().await, ErrorKind::Config);
    Ok(())
}

#[tokio::test]
async fn tls_is_spoken_with_the_private_authoritys_certificate() -> Result<()> {
    let redis = Redis::builder().tls().login("app", "s3cret", "~* +@all").start().await?;
    assert!(redis.url_as("app")?.starts_with("rediss://app:s3cret@127.0.0.1:"));
    let ping = async |ca: &str| {
        let address = redis.address().to_string();
        let script = format!(
            "printf 'AUTH app s3cret\\r\\nPING\\r\\nQUIT\\r\\n' | openssl s_client -quiet -verify_return_error -CAfile {ca} -connect {address}"
        );
        let output = Command::new("sh").args(["-c", &script]).output().await.expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).contains("+PONG")
    };
    assert!(ping(&redis.ca_file().expect("TLS is on").display().to_string()).await);
    assert!(!ping("/dev/null").await, "an authority that is not trusted");
    // Without TLS there is nothing to talk to.
    let mut plain = RedisConnection::connect(redis.address()).await?;
    failure(plain.command(["PING"]).await, ErrorKind::Lost);
    Ok(())
}
