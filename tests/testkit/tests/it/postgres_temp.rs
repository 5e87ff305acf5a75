//! Databases of a test's own.

use resonant_testkit::postgres::TempDatabase;
use resonant_testkit::{ErrorKind, Postgres, PostgresCluster, Result, Template};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::leftovers;
use crate::support::{becomes, failure, passes_alone};

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
    becomes("going away", "0".to_owned(), async || watcher.value(&there).await).await?;
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

/// A server and the URL of a role that may make databases on it.
async fn somebody_elses() -> Result<(PostgresCluster, String)> {
    let pg = PostgresCluster::builder().login("maker", "s3cret/word").start().await?;
    pg.primary().sql("ALTER ROLE maker CREATEDB").await?;
    let url = pg.primary().url_as("maker")?;
    Ok((pg, url))
}

/// Nothing but what every server has.
async fn left_as_it_was(pg: &PostgresCluster) -> Result<()> {
    let databases = "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database";
    let bare = "postgres,template0,template1".to_owned();
    becomes("going away", bare, async || pg.primary().value(databases).await).await
}

/// Runs a test from above in a process of its own, on a server that it is told of and with no server installed.
#[tokio::test]
async fn a_server_that_somebody_else_runs_will_do_and_is_left_as_it_was() -> Result<()> {
    let (pg, url) = somebody_elses().await?;
    let empty = tempfile::tempdir().expect("a folder");
    let env =
        [("RESONANT_TEST_PG", url.as_ref()), ("RESONANT_SERVERS_ROOT", empty.path().as_os_str())];
    passes_alone("postgres_temp::tests_do_not_see_each_others_databases", &env).await;
    left_as_it_was(&pg).await
}

#[tokio::test]
async fn a_killed_test_leaves_nothing_on_a_server_that_somebody_else_runs() -> Result<()> {
    let (pg, url) = somebody_elses().await?;
    let victim = "postgres_temp::makes_databases_and_waits_to_be_killed";
    let (mut child, _) = leftovers::victim(victim, &[("RESONANT_TEST_PG", url.as_ref())]).await;
    let there =
        pg.primary().value("SELECT count(*) FROM pg_database WHERE datname ~ '^rk_'").await?;
    assert_eq!(there, "3", "a template and two databases");
    child.kill().await.expect("kill -9");
    left_as_it_was(&pg).await
}

#[tokio::test]
#[ignore = "a victim: run by a test above"]
async fn makes_databases_and_waits_to_be_killed() -> Result<()> {
    let _copies = (Postgres::temp().schema(SCHEMA).await?, Postgres::temp().schema(SCHEMA).await?);
    println!("FOLDER /");
    std::future::pending::<()>().await;
    Ok(())
}
