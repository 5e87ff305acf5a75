//! `sslmode` means what it means in libpq.

use std::time::Duration;

use resonant_db::backend::postgres::Postgres;
use resonant_db::backend::{Access, Backend, Connection, Target};
use resonant_db::pool::Verdict;
use resonant_db::{ErrorKind, Result};
use resonant_testkit::PostgresCluster;

async fn open(url: &str) -> Result<Box<dyn Connection>> {
    let backend = Postgres::from_url(url)?;
    backend.connect(&Target::new(url, Access::ReadWrite, Some(Duration::from_secs(60)))).await
}

async fn encrypted(url: &str) -> Result<bool> {
    let mut connection = open(url).await?;
    let rows =
        connection.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await?;
    rows.first().expect("a row").get(0)
}

#[tokio::test]
async fn every_sslmode_does_what_libpq_says() {
    let cluster =
        PostgresCluster::builder().tls().login("app", "s3cret").start().await.expect("a server");
    let node = cluster.primary();
    let ca = node.ca_file().expect("TLS is on").display().to_string();
    let base =
        format!("postgresql://app:s3cret@localhost:{}/postgres?hostaddr=127.0.0.1", node.port());
    for (mode, expected) in [
        ("", true),
        ("&sslmode=disable", false),
        ("&sslmode=allow", false),
        ("&sslmode=prefer", true),
        ("&sslmode=require", true),
        ("&sslmode=require&channel_binding=require", true),
    ] {
        assert_eq!(encrypted(&format!("{base}{mode}")).await.expect(mode), expected, "{mode}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{base}&sslmode={mode}&sslrootcert={ca}");
        assert!(encrypted(&url).await.expect(mode), "{mode}");
    }
    // Another name than the certificate's.
    let other = base.replace("localhost", "other.example");
    assert!(
        encrypted(&format!("{other}&sslmode=verify-ca&sslrootcert={ca}")).await.expect("any name")
    );
    let error = encrypted(&format!("{other}&sslmode=verify-full&sslrootcert={ca}"))
        .await
        .expect_err("a wrong name");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    // An authority the system does not know.
    for mode in ["verify-ca", "verify-full"] {
        let error =
            encrypted(&format!("{base}&sslmode={mode}")).await.expect_err("a strange authority");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("sslrootcert"), "{error}");
    }
    let error = encrypted(&format!("{base}&sslmode=verify-full&sslrootcert=/no/such/file"))
        .await
        .expect_err("no file");
    assert!(error.to_string().contains("/no/such/file"), "{error}");

    // Requests to cancel travel over TLS too.
    let mut connection =
        open(&format!("{base}&sslmode=verify-full&sslrootcert={ca}")).await.expect("a connection");
    let moment = Duration::from_millis(50);
    tokio::time::timeout(moment, connection.query("SELECT pg_sleep(60)", &[]))
        .await
        .expect_err("it sleeps");
    assert_eq!(connection.verdict(), Verdict::Clean);
    connection.clean().await.expect("stopped");
    connection.query("SELECT 1", &[]).await.expect("goes on");
}

#[tokio::test]
async fn a_server_that_wants_tls_or_has_none_is_met_as_the_mode_says() {
    let (strict, plain) = tokio::join!(
        PostgresCluster::builder().tls_only().login("app", "s3cret").start(),
        PostgresCluster::builder().login("app", "s3cret").start(),
    );
    let (strict, plain) = (strict.expect("a server"), plain.expect("a server"));
    let url = |cluster: &PostgresCluster, mode: &str| {
        format!(
            "postgresql://app:s3cret@127.0.0.1:{}/postgres?sslmode={mode}",
            cluster.primary().port()
        )
    };
    for (mode, expected) in
        [("disable", None), ("allow", Some(true)), ("prefer", Some(true)), ("require", Some(true))]
    {
        match (encrypted(&url(&strict, mode)).await, expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{mode}"),
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Config, "{error}"),
            (found, _) => panic!("{mode}: {found:?}"),
        }
    }
    for (mode, expected) in [
        ("disable", Some(false)),
        ("allow", Some(false)),
        ("prefer", Some(false)),
        ("require", None),
    ] {
        match (encrypted(&url(&plain, mode)).await, expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{mode}"),
            (Err(error), None) => {
                assert_eq!(error.kind(), ErrorKind::Config, "{error}");
                assert!(error.to_string().contains("no TLS"), "{error}");
            }
            (found, _) => panic!("{mode}: {found:?}"),
        }
    }
}
