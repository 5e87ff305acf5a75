//! Reading what one has written.

use resonant_db::{Database, ErrorKind, Result, TransactionOptions, params};

use super::basics::file;
use super::double::{Cluster, Fails};

#[tokio::test(start_paused = true)]
async fn a_session_reads_only_from_nodes_that_have_its_writes() -> Result<()> {
    let cluster = Cluster::default();
    let db = cluster.database(&["a", "b"]);
    cluster.lag("a", 1);
    let session = db.session();
    assert_eq!(session.token(), None);
    session.write().execute("write", params![]).await?;
    for _ in 0..4 {
        let node: String = session.read().query_one_as("read", params![]).await?;
        assert_eq!(node, "b", "a is behind");
    }
    cluster.lag("b", 1);
    let node: String = session.read().query_one_as("read", params![]).await?;
    assert_eq!(node, "primary", "nobody else has it");
    cluster.lag("a", 0);
    let node: String = session.read().query_one_as("read", params![]).await?;
    assert_eq!(node, "a", "it has caught up");
    // Others are not slowed down.
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(db.read().query_one_as::<String>("read", params![]).await?);
    }
    others.sort();
    assert_eq!(others, ["a", "b"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_token_goes_on_in_another_process() -> Result<()> {
    let cluster = Cluster::default();
    let (one, other) = (cluster.database(&["a"]), cluster.database(&["a"]));
    cluster.lag("a", 1);
    let session = one.session();
    session.transaction(async |tx| tx.execute("write", params![]).await).await?;
    let token = session.token().expect("it has written");
    let node: String = other.session_from(&token)?.read().query_one_as("read", params![]).await?;
    assert_eq!(node, "primary");
    let error = other.session_from("no token").expect_err("no token");
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_position_is_unknown_is_read_from_the_primary() -> Result<()> {
    let cluster = Cluster::default();
    let (db, other) = (cluster.database(&["a"]), cluster.database(&["a"]));
    cluster.lag("a", 1);
    cluster.lose_position("primary", true);
    let session = db.session();
    session.write().execute("write", params![]).await?;
    cluster.lose_position("primary", false);
    // A later write that is known does not make up for it.
    session.write().execute("write", params![]).await?;
    cluster.lag("a", 0);
    let there = other.session_from(&session.token().expect("it has written"))?;
    for session in [session, there] {
        let node: String = session.read().query_one_as("read", params![]).await?;
        assert_eq!(node, "primary");
        let reading = TransactionOptions::default().read_only();
        let node: String = session
            .transaction_with(reading, async |tx| tx.query_one_as("read", params![]).await)
            .await?;
        assert_eq!(node, "primary");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn with_the_primary_down_a_session_reads_nothing_stale() {
    let cluster = Cluster::default();
    let db = cluster.database(&["a"]);
    cluster.lag("a", 1);
    let session = db.session();
    session.write().execute("write", params![]).await.expect("the primary works");
    cluster.fail("primary", (Fails::Running, ErrorKind::Unavailable));
    let error = session.read().query("read", params![]).await.expect_err("nobody has it");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(db.read().query("read", params![]).await.is_ok(), "without a session it is served");
}

#[tokio::test]
async fn two_handles_on_one_file_read_each_others_writes() -> Result<()> {
    let (folder, one) = file().await;
    let other =
        Database::connect(resonant_db::backend::sqlite::url(folder.path().join("test.db"))).await?;
    one.write().batch("CREATE TABLE t (n INTEGER)").await?;
    let session = one.session();
    for n in 1..=200_i64 {
        session.write().execute("INSERT INTO t VALUES ($1)", params![n]).await?;
        let there = other.session_from(&session.token().expect("it has written"))?;
        let reading = TransactionOptions::default().read_only();
        let seen: (i64, i64, i64) = (
            session.read().query_one_as("SELECT max(n) FROM t", params![]).await?,
            there.read().query_one_as("SELECT max(n) FROM t", params![]).await?,
            there
                .transaction_with(reading, async |tx| {
                    tx.query_one_as("SELECT max(n) FROM t", params![]).await
                })
                .await?,
        );
        assert_eq!(seen, (n, n, n));
    }
    let (_elsewhere, stranger) = file().await;
    let foreign = stranger.session_from(&session.token().expect("it has written"))?;
    let error = foreign.read().query("SELECT 1", params![]).await.expect_err("another database");
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}
