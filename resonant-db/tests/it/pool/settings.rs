//! The settings of a pool.

use resonant_db::ErrorKind;
use resonant_db::pool::PoolConfig;

use super::{secs, sizes};

#[test]
fn the_defaults_are_the_guides() {
    let config = PoolConfig::default();
    assert_eq!((config.min_size, config.max_size), (10, 100));
    assert_eq!(config.max_idle_time, secs(300));
    assert_eq!(config.max_lifetime, secs(3600));
    assert_eq!(config.health_check_interval, secs(30));
    assert!(config.validate().is_ok());
    assert!(
        config.connect_timeout < config.acquire_timeout,
        "a cause is known before callers give up"
    );
}

#[test]
fn files_and_builder_give_the_same_value() {
    let built = PoolConfig::default()
        .min_size(2)
        .max_size(20)
        .max_idle_time(secs(60))
        .acquire_timeout(secs(3));
    for text in [
        r#"{"min_size": 2, "max_size": 20, "max_idle_time": "60s", "acquire_timeout": 3}"#,
        r#"{"min_size": 2, "max_size": 20, "max_idle_time": "1min", "acquire_timeout": "3s"}"#,
    ] {
        let read: PoolConfig = serde_json::from_str(text).expect("good settings");
        assert_eq!(read, built);
    }
    let written = serde_json::to_string(&built).expect("can be written");
    assert_eq!(serde_json::from_str::<PoolConfig>(&written).expect("can be read"), built);
    assert!(
        serde_json::from_str::<PoolConfig>(r#"{"max_sise": 3}"#).is_err(),
        "a typo was swallowed"
    );
}

#[test]
fn a_bad_value_is_refused_by_the_rule_it_breaks() {
    let cases = [
        (sizes(5, 4), "min_size (5) must not exceed max_size (4)"),
        (sizes(0, 0), "max_size must be at least 1"),
        (PoolConfig::default().max_parallel_connects(0), "max_parallel_connects must be"),
        (PoolConfig::default().max_waiting(0), "max_waiting must be"),
        (PoolConfig::default().max_lifetime(secs(0)), "max_lifetime must be longer than nothing"),
        (PoolConfig::default().acquire_timeout(secs(0)), "acquire_timeout must be longer"),
    ];
    for (config, rule) in cases {
        let error = config.validate().expect_err(rule);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(rule), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn endless_times_are_allowed() {
    let forever = std::time::Duration::MAX;
    let config = sizes(1, 1)
        .max_idle_time(forever)
        .max_lifetime(forever)
        .health_check_interval(forever)
        .acquire_timeout(forever)
        .leak_warning_after(forever);
    let (_, pool) = super::warm(config).await;
    tokio::time::sleep(secs(100)).await;
    drop(pool.get().await.expect("idle"));
}
