//! A node that changes its mind: recovery conflicts, read-only all at once.

use std::time::Duration;

use resonant_db::backend::ErrorExt;
use resonant_db::{Database, ErrorKind, PoolConfig, ReadStrategy, params};
use resonant_testkit::PostgresCluster;

use super::until;

fn small() -> PoolConfig {
    PoolConfig::default().min_size(2).max_size(4)
}

#[tokio::test]
async fn a_recovery_conflict_moves_the_read_to_another_node() {
    let cluster = PostgresCluster::builder()
        .replicas(2)
        .setting("max_standby_streaming_delay", "0")
        .setting("hot_standby_feedback", "off")
        .start()
        .await
        .expect("a cluster");
    let primary = cluster.primary();
    primary
        .sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 20000) AS n")
        .await
        .expect("create");
    cluster.caught_up().await.expect("caught up");
    // Only the first one replays at once; the other must not meet the same conflict.
    let db = Database::builder()
        .primary(primary.url())
        .replicas([0, 1].map(|place| cluster.replica(place).url()))
        .read_strategy(ReadStrategy::RoundRobin)
        .pool(small())
        .connect()
        .await
        .expect("connect");
    let victim = cluster.replica(0);
    cluster.replica(1).pause_replay().await.expect("paused");
    let mut conflicts = 0;
    for round in 0..40 {
        // A snapshot that is held, while the primary removes what it sees.
        let read = "SELECT count(*), inet_server_port(), pg_sleep(0.4)::text FROM t WHERE n > 0";
        let reads = [0, 1].map(|_| db.read().query_one_as::<(i64, i64, String)>(read, params![]));
        let harm = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            primary.sql(&format!("DELETE FROM t WHERE n % 40 = {round}")).await?;
            primary.sql("VACUUM t").await
        };
        let before = victim.value(
            "SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = 'postgres'",
        );
        let before = before.await.expect("count");
        let [one, two] = reads;
        let (one, two, harm) = tokio::join!(one, two, harm);
        harm.expect("deleted");
        one.expect("no conflict reaches the caller");
        two.expect("no conflict reaches the caller");
        let after = victim.value(
            "SELECT confl_snapshot FROM pg_stat_database_conflicts WHERE datname = 'postgres'",
        );
        conflicts += u32::from(after.await.expect("count") != before);
        if conflicts >= 2 {
            break;
        }
    }
    assert!(conflicts >= 2, "the server cancelled statements {conflicts} times");
    assert!(!db.status().nodes[1].ejected, "a conflict does not speak against the node");
}

#[tokio::test]
async fn a_25006_never_sticks() {
    let cluster = PostgresCluster::builder().start().await.expect("a server");
    let primary = cluster.primary();
    primary.sql("CREATE TABLE t (n int)").await.expect("create");
    let db =
        Database::builder().primary(primary.url()).pool(small()).connect().await.expect("connect");
    let insert = async || {
        // A read in between: what a session is told for it must not outlast the server's own switch.
        let one: i64 = db.read().query_one_as("SELECT 1", params![]).await?;
        assert_eq!(one, 1);
        db.write().execute("INSERT INTO t VALUES (1)", params![]).await
    };
    insert().await.expect("a write");
    for _ in 0..3 {
        primary.set("default_transaction_read_only", "on").await.expect("set");
        let mut refused = 0;
        until("writes are refused", async || {
            let writes = futures::future::join_all([insert(), insert(), insert(), insert()]).await;
            for error in writes.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(!error.may_have_applied(), "{error}");
                refused += u32::from(error.sqlstate() == Some("25006"));
            }
            refused >= 4
        })
        .await;
        primary.set("default_transaction_read_only", "off").await.expect("set");
        until("writes go through", async || insert().await.is_ok()).await;
        // From the first one on, all of them: no connection remembers.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for write in futures::future::join_all((0..16).map(|_| insert())).await {
            write.expect("a write");
        }
    }
}
