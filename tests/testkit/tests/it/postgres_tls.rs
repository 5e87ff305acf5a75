//! Logins as in production: SCRAM over TLS with a private authority.

use resonant_testkit::{PgNode, PostgresCluster, Result};
use tokio::process::Command;

/// What psql prints, or its complaint.
async fn psql(node: &PgNode, conninfo: &str, password: &str) -> Result<String, String> {
    let output = Command::new(node.binaries().join("psql"))
        .args([
            "-X",
            "-A",
            "-t",
            "-d",
            conninfo,
            "-c",
            "SELECT current_user || ' ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        ])
        .env("PGPASSWORD", password)
        .output()
        .await
        .expect("psql runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn a_login_needs_its_password_and_the_certificate_is_the_private_authoritys() -> Result<()> {
    let pg = PostgresCluster::builder().tls_only().login("app", "s3cret").start().await?;
    let node = pg.primary();
    let ca = node.ca_file().expect("TLS is on").display();
    let base = format!("host=127.0.0.1 port={} user=app dbname=postgres", node.port());
    let verified = format!("{base} sslmode=verify-full sslrootcert={ca}");

    assert_eq!(psql(&node, &verified, "s3cret").await.as_deref(), Ok("app true"));
    let wrong = psql(&node, &verified, "guess").await.expect_err("a wrong password");
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let plain =
        psql(&node, &format!("{base} sslmode=disable"), "s3cret").await.expect_err("no TLS");
    assert!(plain.contains("rejects connection"), "{plain}");
    let stranger = format!("{base} sslmode=verify-full sslrootcert=/dev/null");
    assert!(psql(&node, &stranger, "s3cret").await.is_err(), "an authority that is not trusted");

    let scram = node
        .value("SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'app'")
        .await?;
    assert_eq!(scram, "t");
    assert!(node.url_as("app")?.contains("app:s3cret@"));
    Ok(())
}

#[tokio::test]
async fn a_url_carries_any_name_and_password() -> Result<()> {
    let (name, password) = ("it's \"odd\"", "s3/cr:e@t#?%41'");
    let pg = PostgresCluster::builder().login(name, password).start().await?;
    let node = pg.primary();
    let url = node.url_as(name)?;
    assert_eq!(psql(&node, &url, "").await.as_deref(), Ok("it's \"odd\" false"));
    Ok(())
}
