//! PgBouncer: many clients on few connections, a planned switch, and its death.

use resonant_testkit::postgres::PgSession;
use resonant_testkit::{ErrorKind, PgBouncer, PostgresCluster, Result};

use crate::support::{assert_hangs, failure, freed};

#[tokio::test]
async fn clients_wait_through_a_planned_switch_and_lose_their_connection_when_it_dies() -> Result<()>
{
    let pg = PostgresCluster::builder().replicas(1).start().await?;
    let (old, new) = (pg.primary(), pg.replica(0));
    old.sql("CREATE TABLE t (id int)").await?;
    let pooler = PgBouncer::builder()
        .in_front_of(old.address())
        .setting("default_pool_size", "1")
        .setting("query_wait_timeout", "60")
        .start()
        .await?;

    let backend = "SELECT pg_backend_pid()";
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(PgSession::connect(pooler.address(), "postgres", "postgres").await?);
    }
    let mut seen = Vec::new();
    for client in &mut clients {
        seen.push(client.value(backend).await?);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "ten clients on one server connection");

    pooler.pause().await?;
    let mut waiting = clients.remove(0);
    let waiting = tokio::spawn(async move { waiting.sql("INSERT INTO t VALUES (1)").await });
    let waiting = assert_hangs(waiting).await;
    new.caught_up_with(&old).await?;
    old.stop().await?;
    new.promote().await?;
    pooler.retarget(new.address()).await?;
    pooler.resume().await?;
    freed(waiting).await?;
    assert_eq!(
        new.value("SELECT count(*) FROM t").await?,
        "1",
        "written on the new primary, no error seen"
    );

    assert!(!pooler.console("SHOW POOLS").await?.is_empty());
    let mut open = clients.remove(0);
    pooler.kill().await?;
    failure(open.sql("SELECT 1").await, ErrorKind::Lost);
    pooler.start().await?;
    PgSession::connect(pooler.address(), "postgres", "postgres").await?.sql("SELECT 1").await?;

    pooler.freeze()?;
    let address = pooler.address();
    let stuck =
        tokio::spawn(async move { PgSession::connect(address, "postgres", "postgres").await });
    let stuck = assert_hangs(stuck).await;
    pooler.thaw()?;
    freed(stuck).await?;
    failure(PgBouncer::builder().start().await, ErrorKind::Config);
    Ok(())
}
