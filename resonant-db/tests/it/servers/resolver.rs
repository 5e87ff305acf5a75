//! A name that moves: the database behind it is found again without a change of settings.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::backend::postgres::{Postgres, Resolver};
use resonant_db::{Database, PoolConfig, params};
use resonant_testkit::PostgresCluster;
use tokio::time::Instant;

use super::until;

#[tokio::test]
async fn a_name_that_moves_to_the_new_primary_is_followed() {
    for old_lives_on in [false, true] {
        let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
        let nodes = cluster.nodes().to_vec();
        nodes[0].sql("CREATE TABLE t (n bigint)").await.expect("create");
        cluster.caught_up().await.expect("caught up");
        let name = Arc::new(Mutex::new(nodes[0].address()));
        let resolver = {
            let name = Arc::clone(&name);
            Resolver::new(move |host, _port| {
                let address: SocketAddr = *name.lock().expect("no test panics while holding it");
                async move {
                    assert_eq!(host, "primary.example");
                    Ok(vec![address])
                }
            })
        };
        // All the settings are one name, as managed services give it out.
        let db = Database::builder()
            .primary("postgresql://postgres@primary.example/postgres")
            .backend(Arc::new(Postgres::default().resolver(resolver)))
            .pool(PoolConfig::default().min_size(2).max_size(4))
            .statement_timeout(Duration::from_secs(2))
            .connect()
            .await
            .expect("connect");
        let insert = "INSERT INTO t VALUES (1)";
        db.write().execute(insert, params![]).await.expect("a write");
        if old_lives_on {
            nodes[0].freeze().expect("frozen");
        } else {
            nodes[0].kill().await.expect("killed");
        }
        nodes[1].promote().await.expect("promoted");
        *name.lock().expect("no test panics while holding it") = nodes[1].address();
        let moved = Instant::now();
        until("a write is taken", async || db.write().execute(insert, params![]).await.is_ok())
            .await;
        println!(
            "FIGURE from the move of the name to the first write, the old node {}: {:?}",
            if old_lives_on { "hanging" } else { "dead" },
            moved.elapsed()
        );
        let at: i64 = db
            .write()
            .query_one_as("SELECT inet_server_port()", params![])
            .await
            .expect("an answer");
        assert_eq!(at, i64::from(nodes[1].port()));
        if old_lives_on {
            nodes[0].thaw().expect("thawed");
        }
    }
}
