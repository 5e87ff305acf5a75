//! Which server a lane talks to, while names move and roles change.

use std::time::Duration;

use resonant_db::{Database, PoolConfig, params};
use resonant_testkit::PostgresCluster;
use tokio::time::timeout;

use super::lanes::{BY_KEY, item, lanes};
use super::resolver::Name;
use super::{LIMIT, until};

const ITEMS: &str = "CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL); \
                     INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, 999) AS n; ANALYZE item";
const NEWER: &str = "UPDATE item SET name = 'new ' || id";

/// A database known by a name alone, with two connections.
async fn small(name: &Name) -> Database {
    let pool = PoolConfig::default().min_size(2).max_size(2).acquire_timeout(LIMIT);
    name.database().pool(pool).connect().await.expect("connect")
}

/// Reads by more than there are connections; how many of them saw the old state.
async fn stale(db: &Database) -> usize {
    let reads = futures::future::join_all((0..64).map(|id| item(db, id))).await;
    reads
        .into_iter()
        .filter(|read| !read.as_ref().is_ok_and(|(_, name)| name.starts_with("new")))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primarys_lanes_do_not_open_at_a_standby_its_name_leads_to() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let (primary, standby) = (cluster.primary(), cluster.replica(0));
    primary.sql(ITEMS).await.expect("items");
    cluster.caught_up().await.expect("caught up");
    standby.pause_replay().await.expect("paused");
    primary.sql(NEWER).await.expect("newer");
    let name = Name::of(primary.address());
    let db = small(&name).await;
    name.leads_to(standby.address());
    let asked = name.asked();
    let mut seen = 0;
    until("lanes were to be opened", async || {
        seen += stale(&db).await;
        seen > 0 || name.asked() > asked + 1
    })
    .await;
    for _ in 0..40 {
        seen += stale(&db).await;
    }
    assert_eq!(seen, 0, "a read of the primary's was answered by a standby: {:?}", lanes(&db));
    // And back at the primary they share.
    name.leads_to(primary.address());
    until("reads share at the primary", async || {
        assert_eq!(stale(&db).await, 0);
        lanes(&db).reads > 100
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_leave_the_server_that_the_connections_have_left() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let (old, new) = (cluster.primary(), cluster.replica(0));
    old.sql(ITEMS).await.expect("items");
    cluster.caught_up().await.expect("caught up");
    let name = Name::of(old.address());
    let db = small(&name).await;
    until("reads share", async || {
        stale(&db).await;
        lanes(&db).reads > 100
    })
    .await;
    // The old one lives on, and takes itself for the primary.
    new.promote().await.expect("promoted");
    new.sql(NEWER).await.expect("newer");
    name.leads_to(new.address());
    old.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' \
         AND pid <> pg_backend_pid() AND application_name NOT LIKE '%lane'",
    )
    .await
    .expect("ended");
    until("all reads are answered by the new one", async || stale(&db).await == 0).await;
    for _ in 0..20 {
        assert_eq!(stale(&db).await, 0, "it went back: {:?}", lanes(&db));
    }
    let reads = lanes(&db).reads;
    until("they share there", async || {
        assert_eq!(stale(&db).await, 0);
        lanes(&db).reads > reads + 100
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_of_a_replica_answer_nobody_who_takes_it_for_the_primary() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let (primary, standby) = (cluster.primary(), cluster.replica(0));
    primary.sql(ITEMS).await.expect("items");
    cluster.caught_up().await.expect("caught up");
    let pool = PoolConfig::default().min_size(2).max_size(2).acquire_timeout(LIMIT);
    let db = Database::builder()
        .primary(primary.url())
        .replicas([standby.url()])
        .pool(pool)
        .connect()
        .await
        .expect("connect");
    let of_standby = || db.status().nodes[1].lanes;
    until("reads share at the standby", async || {
        stale(&db).await;
        of_standby().reads > 100
    })
    .await;
    standby.pause_replay().await.expect("paused");
    primary.sql(NEWER).await.expect("newer");
    // Somebody is wrong about who the primary is.
    db.force_primary(&db.status().nodes[1].name).expect("forced");
    let reads = of_standby().reads;
    for _ in 0..10 {
        // None is fresh enough but the primary.
        let fresh = db.read().max_staleness(Duration::ZERO);
        let asked = (0..32_i64).map(async |id| {
            // Who waits for a primary waits for longer: this one does not come.
            let read = async { fresh.query_one_as::<(i64, String)>(BY_KEY, params![id]).await };
            timeout(Duration::from_millis(300), read).await
        });
        for read in futures::future::join_all(asked).await {
            let answered = read.is_ok_and(|read| read.is_ok());
            assert!(!answered, "a standby answered as the primary");
        }
        // The other one is a replica now, and says what is so.
        assert_eq!(stale(&db).await, 0);
    }
    assert_eq!(of_standby().reads, reads);
}
