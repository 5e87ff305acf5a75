//! Databases of a test's own.

use std::time::Duration;

use resonant_testkit::postgres::TempDatabase;
use resonant_testkit::{ErrorKind, Postgres, PostgresCluster, Result, Template};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::failure;

const SCHEMA: &str =
    "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'Ada')";

#[tokio::test]
async fn tests_do_not_see_each_others_databases() -> Result<()> {
    let (one, two) =
        (Postgres::temp().schema(SCHEMA).await?, Postgres::temp().schema(SCHEMA).await?);
    one.sql("DELETE FROM users").await?;
    assert_eq!(two.value("SELECT name FROM users").await?, "Ada");
    assert_ne!(one.url(), two.url());
    let empty = Postgres::temp().await?;
    assert_eq!(
        failure(empty.sql("SELECT * FROM users").await, ErrorKind::Rejected).code(),
        Some("42P01")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_made_from_one_template() -> Result<()> {
    Postgres::temp().schema(SCHEMA).await?;
    let started = tokio::time::Instant::now();
    let mut making = JoinSet::new();
    for _ in 0..20 {
        making.spawn(async { Postgres::temp().schema(SCHEMA).await });
    }
    let made: Vec<TempDatabase> = making.join_all().await.into_iter().collect::<Result<_>>()?;
    println!("FIGURE 20 databases side by side: {:?}", started.elapsed());
    let alone = tokio::time::Instant::now();
    let last = Postgres::temp().schema(SCHEMA).await?;
    println!("FIGURE one database from a template: {:?}", alone.elapsed());
    for database in made.iter().chain([&last]) {
        assert_eq!(database.value("SELECT count(*) FROM users").await?, "1");
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_database_goes_away_with_its_sessions() -> Result<()> {
    let (watcher, doomed) = (Postgres::temp().await?, Postgres::temp().await?);
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", doomed.name());
    assert_eq!(watcher.value(&there).await?, "1");
    let url = doomed.url();
    drop(doomed);
    while watcher.value(&there).await? != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(url.contains("127.0.0.1"));
    Ok(())
}

#[tokio::test]
async fn a_template_can_be_prepared_by_a_program() -> Result<()> {
    let psql = Postgres::temp().await?; // Only to have a server, whose psql is then in the same folder as any.
    drop(psql);
    let template = Template::prepare(|url| async move {
        let status =
            Command::new("psql").args(["-X", "-q", "-d", &url, "-c", SCHEMA]).status().await?;
        if status.success() { Ok(()) } else { Err(std::io::Error::other("psql failed")) }
    })
    .await?;
    let (one, two) = (template.database().await?, template.database().await?);
    one.sql("DELETE FROM users").await?;
    assert_eq!(two.value("SELECT count(*) FROM users").await?, "1");

    let refused = Template::prepare(|_| async { Err::<(), _>("no such migration") }).await;
    assert_eq!(
        failure(refused, ErrorKind::Rejected).to_string(),
        "preparing a template database failed"
    );
    Ok(())
}

/// Runs the tests above in a process of their own, on a server that it is told of.
#[tokio::test]
async fn a_server_that_somebody_else_runs_will_do_and_is_left_as_it_was() -> Result<()> {
    let pg = PostgresCluster::builder().login("maker", "s3cret/word").start().await?;
    pg.primary().sql("ALTER ROLE maker CREATEDB").await?;
    let url = format!("postgresql://maker:s3cret%2Fword@{}/postgres", pg.primary().address());
    let program = std::env::current_exe().expect("the test binary");
    let output = Command::new(program)
        .args(["--exact", "postgres_temp::tests_do_not_see_each_others_databases"])
        .env("RESONANT_TEST_PG", url)
        .output()
        .await
        .expect("the test binary runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    let left = "SELECT count(*) FILTER (WHERE datname LIKE 'rk%'), count(*) FROM pg_database";
    let rows = pg.primary().sql(left).await?;
    // The template of the schema stays for six hours at most: its process could not drop it.
    assert_eq!((rows[0].get(0), rows[0].get(1)), (Some("1"), Some("4")));
    Ok(())
}
