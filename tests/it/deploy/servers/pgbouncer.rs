//! PgBouncer, started with its own file, in front of a PostgreSQL.

use std::time::Duration;

use resonant_db::{Database, DatabaseConfig, PoolConfig};
use resonant_testkit::{ErrorKind, PgBouncer, PostgresCluster};

use crate::deploy::Files;
use crate::deploy::settings::{DEPLOYED, section};

const INI: &str = "deploy/pgbouncer/pgbouncer.ini";

/// The file with an address in place of names, which nothing resolves here.
fn placed(text: &str, server: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let host = line.split_whitespace().find(|word| word.starts_with("host="));
        lines.push(match host {
            Some(host) => line.replace(&format!("{host} port=5432"), server),
            None => line.to_owned(),
        });
    }
    lines
        .join("\n")
        .replace("listen_port = 6432", "listen_port = {{port}}")
        .replace("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1")
        .replace("/etc/pgbouncer/auth/userlist.txt", "{{dir}}/userlist.txt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_runs_with_its_file_and_lets_in_by_scram() {
    let files = Files::load();
    let pg = PostgresCluster::builder().login("resonant", "of the service").start().await.unwrap();
    let pg = pg.primary();
    pg.sql("CREATE DATABASE resonant OWNER resonant").await.unwrap();
    // As docs/deploy.md has the file made.
    let secret = pg.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'resonant'").await;
    let secret = secret.unwrap();
    assert!(secret.starts_with("SCRAM-SHA-256$"), "no secret of SCRAM");

    let server = format!("host={} port={}", pg.address().ip(), pg.port());
    let pooler = PgBouncer::builder()
        .config(placed(files.text(INI), &server))
        .file("userlist.txt", format!("\"resonant\" \"{secret}\"\n"))
        .start()
        .await
        .unwrap();

    // The service's own settings, and the primary and a replica by their names in the file.
    let deployed: DatabaseConfig = section(&files.toml(DEPLOYED), "database");
    let url = |password: &str, database: &str| {
        format!("postgresql://resonant:{password}@{}/{database}", pooler.address())
    };
    for name in ["resonant", "resonant_replica1", "resonant_shard3"] {
        let mut config = deployed.clone();
        config.primary = url("of%20the%20service", name);
        config.replicas = Vec::new();
        let db = Database::from_config(config).connect().await.unwrap();
        let sum: i64 = db
            .read()
            .query_one_as("SELECT 40 + $1::bigint", resonant_db::params![2_i64])
            .await
            .unwrap();
        assert_eq!(sum, 42, "{name}");
        db.write()
            .execute("CREATE TABLE IF NOT EXISTS t (id bigint)", resonant_db::params![])
            .await
            .unwrap();
        db.close(Duration::from_secs(10)).await.unwrap();
    }
    // It came through PgBouncer as the one who asked.
    let mut session = pg.session_in("resonant").await.unwrap();
    let owner =
        session.sql("SELECT tableowner FROM pg_tables WHERE tablename = 't'").await.unwrap();
    assert_eq!(owner[0].get(0), Some("resonant"));

    for (password, database) in [("guessed", "resonant"), ("of%20the%20service", "postgres")] {
        let mut config = deployed.clone();
        config.primary = url(password, database);
        config.replicas = Vec::new();
        let pool = PoolConfig::default().min_size(0).acquire_timeout(Duration::from_secs(2));
        config.pool = Some(pool);
        // It connects when it is first asked for something.
        let asked = match Database::from_config(config).connect().await {
            Ok(db) => db.ping().await,
            Err(error) => Err(error),
        };
        let error = asked.err().unwrap_or_else(|| panic!("{password} is let in to {database}"));
        assert!(!error.to_string().contains(password), "{error}");
    }
}

#[tokio::test]
async fn a_seeded_mistake_in_the_file_stops_pgbouncer() {
    let files = Files::load();
    for (from, to) in [
        ("max_client_conn = 1000", "max_client_connections = 1000"),
        ("pool_mode = transaction", "pool_mode = transactions"),
        ("auth_type = scram-sha-256", "auth_type = scram"),
    ] {
        let seeded = files.with(INI, from, to);
        let text = placed(seeded.text(INI), "host=127.0.0.1 port=1");
        let started = PgBouncer::builder().config(text).file("userlist.txt", "").start().await;
        let error = started.err().unwrap_or_else(|| panic!("{to} is taken"));
        assert_eq!(error.kind(), ErrorKind::Exited, "{to}: {error:?}");
    }
}
