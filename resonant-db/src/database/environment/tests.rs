use std::time::Duration;

use resonant_common::backoff::Backoff;
use serde_json::Value;

use super::*;
use crate::backend::Lanes;
use crate::{Database, PoolConfig, PrimaryReads, ReadStrategy, RoutingConfig};

/// Every setting by another value than its default, by the builder.
fn built() -> DatabaseConfig {
    let backoff =
        Backoff { initial: Duration::from_millis(7), max: Duration::from_secs(8), factor: 1.5 };
    let pool = PoolConfig::default()
        .min_size(3)
        .max_size(33)
        .max_idle_time(Duration::from_secs(11))
        .max_lifetime(Duration::from_secs(12))
        .health_check_interval(Duration::from_secs(13))
        .acquire_timeout(Duration::from_millis(1400))
        .connect_timeout(Duration::from_secs(15))
        .health_check_timeout(Duration::from_secs(16))
        .clean_timeout(Duration::from_secs(17))
        .max_parallel_connects(18)
        .connect_backoff(backoff)
        .max_waiting(19)
        .leak_warning_after(Duration::from_secs(20));
    let routing = RoutingConfig::default()
        .primary_reads(PrimaryReads::Included)
        .probe_interval(Duration::from_millis(210))
        .probe_timeout(Duration::from_millis(220))
        .slow_start(Duration::from_secs(23))
        .failover_wait(Duration::from_secs(24))
        .stale_after(Duration::from_secs(25))
        .zone("east")
        .node_zone("a:5432/app", "east")
        .node_zone("b:5432/app", "west");
    Database::builder()
        .name("orders")
        .primary("postgresql://p/app")
        .replicas(["postgresql://a/app", "postgresql://b/app"])
        .read_strategy(ReadStrategy::PeakEwma)
        .routing(routing)
        .pool(pool)
        .lanes(Lanes::Off)
        .statement_timeout(Duration::from_secs(26))
        .instances(27)
        .config()
        .clone()
}

/// The variables that say what a file says.
fn variables(at: &str, value: &Value, vars: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(fields) if at != "RESONANT_DB_ROUTING_ZONES" => {
            for (field, value) in fields {
                variables(&format!("{at}_{}", field.to_uppercase()), value, vars);
            }
            return;
        }
        Value::Object(pairs) => {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            pairs
                .iter()
                .map(|(key, value)| format!("{key}={}", text(value)))
                .collect::<Vec<_>>()
                .join(", ")
        }
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().expect("text")).collect::<Vec<_>>().join(",")
        }
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        other => other.to_string(),
    };
    vars.push((at.into(), text));
}

/// Calls `visit` with each setting that is no group, by its path.
fn leaves(at: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !at.ends_with("zones") => {
            for (field, value) in fields {
                leaves(&format!("{at}/{field}"), value, visit);
            }
        }
        value => visit(at, value),
    }
}

#[test]
fn builder_file_and_environment_give_the_same_value_for_every_setting() -> Result<()> {
    let built = built();
    let file = serde_json::to_value(&built).expect("plain data");
    let defaults =
        DatabaseConfig { pool: Some(PoolConfig::default()), ..DatabaseConfig::default() };
    let defaults = serde_json::to_value(defaults).expect("plain data");
    leaves("", &file, &mut |path, value| {
        assert_ne!(
            defaults.pointer(path),
            Some(value),
            "{path} was not changed: it would not be tested"
        );
    });
    let mut vars = Vec::new();
    variables("RESONANT_DB", &file, &mut vars);
    assert!(vars.len() > 25, "{vars:?}");
    let from_file: DatabaseConfig = serde_json::from_value(file).expect("what was written");
    assert_eq!(from_file, built);
    assert_eq!(DatabaseConfig::from_vars(PREFIX, vars.clone())?, built);
    // One by one, as a service sets them.
    for (name, value) in &vars {
        let one = DatabaseConfig::from_vars(PREFIX, [(name.clone(), value.clone())]);
        match one {
            Ok(one) => assert_ne!(one, DatabaseConfig::default(), "{name} does nothing"),
            // A minimum above the default maximum, for one.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Config, "{name}: {error}"),
        }
    }
    assert_eq!(DatabaseConfig::from_vars(PREFIX, [])?, DatabaseConfig::default());
    Ok(())
}

#[test]
fn nothing_is_null_and_what_is_wrong_is_named() -> Result<()> {
    let one = |name: &str, value: &str| {
        DatabaseConfig::from_vars(PREFIX, [(format!("RESONANT_DB_{name}"), value.to_owned())])
    };
    assert_eq!(one("STATEMENT_TIMEOUT", "none")?.statement_timeout, None);
    assert_eq!(one("STATEMENT_TIMEOUT", "5")?.statement_timeout, Some(Duration::from_secs(5)));
    assert_eq!(one("REPLICAS", "")?.replicas, Vec::<String>::new());
    for (name, value) in [
        ("POOL_MAX_SIZE", "many"),
        ("POOL_MIN_SIZE", "101"),
        ("READ_STRATEGY", "the_nicest"),
        ("ROUTING_ZONES", "a"),
        ("ROUTING_PROBE_INTERVAL", "1ms"),
        ("STATEMENT_TIMEOUT", "soon"),
        ("PRIMRY", "postgresql://app:s3cr3t@p/app"),
    ] {
        let error = one(name, value).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string().to_lowercase();
        assert!(!text.contains("s3cr3t"), "{text}");
        let field = name.trim_start_matches("POOL_").trim_start_matches("ROUTING_").to_lowercase();
        assert!(text.contains(&field), "{text}");
    }
    Ok(())
}
