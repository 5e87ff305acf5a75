//! Futures that are dropped while their node does not answer: what they leave behind.

use std::future::Future;
use std::time::Duration;

use resonant_db::{Database, ErrorKind, PoolConfig, Result, params, row};

use super::double::Cluster;

/// One connection a node: what a dropped call leaves behind, the next call meets.
fn narrow(cluster: &Cluster) -> Database {
    let pool = PoolConfig::default().min_size(0).max_size(1).max_lifetime(Duration::MAX);
    cluster.builder(&["a"]).pool(pool).connect_lazy().expect("good settings")
}

/// Runs a call until a node is at `step` and does not answer, and drops it there. Answers what had happened.
async fn drop_at<T>(
    cluster: &Cluster,
    step: &str,
    work: impl Future<Output = Result<T>>,
) -> Vec<String> {
    let mut work = std::pin::pin!(work);
    let mut log = Vec::new();
    while log.last().is_none_or(|line| line != step) {
        tokio::select! {
            biased;
            done = &mut work => {
                assert!(done.is_err(), "it ended before {step}");
                unreachable!("it failed before {step}: {log:?}");
            }
            () = tokio::task::yield_now() => {}
        }
        log.extend(cluster.log());
    }
    log
}

/// Nobody holds a connection any more, the next call is served at once, and its connection was cleaned before.
async fn back_in_service(cluster: &Cluster, db: &Database, node: &str) -> Result<()> {
    assert!(db.status().nodes.iter().all(|node| node.in_flight == 0));
    cluster.hang(node, None);
    let seen: String = match node {
        "primary" => db.write().query_one_as("next", params![]).await?,
        _ => db.read().query_one_as("next", params![]).await?,
    };
    assert_eq!(seen, node);
    assert_eq!(cluster.log(), [format!("{node}:clean"), format!("{node}:next")]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_transaction_dropped_at_any_await_is_rolled_back() -> Result<()> {
    let cluster = Cluster::default();
    let db = narrow(&cluster);
    for step in
        ["begin", "one", "SAVEPOINT resonant_1", "two", "RELEASE resonant_1", "many x1", "commit"]
    {
        cluster.hang("primary", step);
        let work = db.transaction(async |tx| {
            tx.execute("one", params![]).await?;
            tx.savepoint(async |tx| tx.query("two", params![]).await).await?;
            tx.execute_many("many", [row![1]]).await
        });
        let log = drop_at(&cluster, &format!("primary:{step}"), work).await;
        assert!(
            !log.contains(&"primary:rollback".into()),
            "no await is added on the way out: {log:?}"
        );
        back_in_service(&cluster, &db, "primary").await?;
        assert_eq!(cluster.commits(), 0, "dropped at {step}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_dropped_is_done_by_the_pool() -> Result<()> {
    let cluster = Cluster::default();
    let db = narrow(&cluster);
    cluster.hang("primary", "rollback");
    let work = db.transaction(async |tx| {
        tx.execute("one", params![]).await?;
        Err::<(), _>(resonant_db::Error::new(ErrorKind::NotFound, "test", "changed my mind"))
    });
    drop_at(&cluster, "primary:rollback", work).await;
    back_in_service(&cluster, &db, "primary").await?;
    assert_eq!(cluster.commits(), 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn any_single_call_may_be_dropped() -> Result<()> {
    let cluster = Cluster::default();
    let db = narrow(&cluster);
    let session = db.session();

    cluster.hang("primary", "slow");
    drop_at(&cluster, "primary:slow", db.write().execute("slow", params![])).await;
    back_in_service(&cluster, &db, "primary").await?;

    cluster.hang("primary", "slow");
    drop_at(&cluster, "primary:slow", db.write().batch("slow")).await;
    back_in_service(&cluster, &db, "primary").await?;

    cluster.hang("primary", "slow");
    drop_at(&cluster, "primary:slow", session.write().query("slow", params![])).await;
    assert_eq!(session.position(), None, "of a dropped write the session knows nothing");
    back_in_service(&cluster, &db, "primary").await?;

    cluster.hang("primary", "ping");
    drop_at(&cluster, "primary:ping", db.ping()).await;
    back_in_service(&cluster, &db, "primary").await?;

    cluster.hang("a", "slow");
    drop_at(&cluster, "a:slow", db.read().query("slow", params![])).await;
    back_in_service(&cluster, &db, "a").await
}

/// Rows for more than one chunk, so that the call is several trips in one transaction.
#[tokio::test(start_paused = true)]
async fn a_bulk_dropped_between_its_chunks_is_rolled_back() -> Result<()> {
    let cluster = Cluster::default();
    let db = narrow(&cluster);
    for step in ["begin", "many x4096", "many x904", "commit"] {
        cluster.hang("primary", step);
        let work = db.write().execute_many("many", (0..5000_i64).map(|n| row![n]));
        drop_at(&cluster, &format!("primary:{step}"), work).await;
        back_in_service(&cluster, &db, "primary").await?;
        assert_eq!(cluster.commits(), 0, "dropped at {step}");
    }
    let done = db.write().execute_many("many", (0..5000_i64).map(|n| row![n])).await?;
    assert_eq!((done, cluster.commits()), (5000, 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_for_a_connection_takes_nobodys_place() -> Result<()> {
    let cluster = Cluster::default();
    let db = narrow(&cluster);
    cluster.hang("primary", "slow");
    let holder = tokio::spawn({
        let db = db.clone();
        async move { db.write().execute("slow", params![]).await }
    });
    cluster.reached("primary:slow").await;
    let limit = Duration::from_millis(50);
    assert!(tokio::time::timeout(limit, db.write().execute("gone", params![])).await.is_err());
    let next = tokio::spawn({
        let db = db.clone();
        async move { db.write().execute("next", params![]).await }
    });
    tokio::task::yield_now().await;
    holder.abort();
    assert_eq!(next.await.expect("no panic")?, 1);
    assert_eq!(cluster.log(), ["primary:clean", "primary:next"]);
    Ok(())
}
