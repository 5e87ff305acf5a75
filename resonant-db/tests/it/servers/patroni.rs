//! A database that follows Patroni: the real nodes, and a stub of Patroni's REST interface.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::patroni::Patroni;
use resonant_db::{Database, PoolConfig, RoutingConfig, params};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::until;

/// Answers `/cluster` with what a test says; `None` hangs.
#[derive(Clone, Default)]
struct Stub(Arc<Mutex<Option<String>>>);

impl Stub {
    fn says(&self, body: Option<String>) {
        *self.0.lock().expect("no test panics while holding it") = body;
    }

    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let stub = self.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let body = stub.0.lock().expect("no test panics while holding it").clone();
                tokio::spawn(async move {
                    let mut asked = [0; 1024];
                    let length = stream.read(&mut asked).await.expect("a question");
                    assert!(asked[..length].starts_with(b"GET /cluster HTTP/1.0\r\n"));
                    let Some(body) = body else { return sleep(Duration::from_secs(60)).await };
                    let head = "HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6\r\nContent-Type: application/json\r\n\r\n";
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                });
            }
        });
        address
    }
}

fn cluster_of(nodes: &[PgNode], leader: usize, timeline: u32) -> String {
    let member = |(place, node): (usize, &PgNode)| {
        let (role, state) =
            if place == leader { ("leader", "running") } else { ("replica", "streaming") };
        format!(
            r#"{{"name": "pg-{place}", "role": "{role}", "state": "{state}", "host": "127.0.0.1", "port": {}, "timeline": {timeline}}}"#,
            node.port()
        )
    };
    let members: Vec<_> = nodes.iter().enumerate().map(member).collect();
    format!(r#"{{"members": [{}], "scope": "orders"}}"#, members.join(", "))
}

#[tokio::test]
async fn a_failover_that_patroni_tells_of_is_followed_within_a_second() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let nodes = cluster.nodes().to_vec();
    nodes[0].sql("CREATE TABLE t (n bigint)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    // One member answers, one hangs, and one is down.
    let (stub, silent) = (Stub::default(), Stub::default());
    stub.says(Some(cluster_of(&nodes, 0, 1)));
    let (answers, hangs) = (stub.start().await, silent.start().await);
    let down = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("bound")
    };
    let endpoints = [down, hangs, answers].map(|address| format!("http://{address}"));
    let patroni = Patroni::new(endpoints, "postgresql://postgres@any/postgres").expect("addresses");
    // The nodes themselves are asked so rarely that it is Patroni who leads.
    let routing = RoutingConfig::default().probe_interval(Duration::from_secs(600));
    let db = Database::builder()
        .primary(nodes[0].url())
        .routing(routing)
        .pool(PoolConfig::default().min_size(1).max_size(4))
        .connect()
        .await
        .expect("connect");
    db.follow_with(Duration::from_millis(100), move || patroni.topology());
    until("both members are nodes", async || db.status().nodes.len() == 2).await;
    let insert = "INSERT INTO t VALUES (1)";
    db.write().execute(insert, params![]).await.expect("a write");

    nodes[0].kill().await.expect("killed");
    nodes[1].promote().await.expect("promoted");
    stub.says(Some(cluster_of(&nodes, 1, 2)));
    let told = Instant::now();
    until("a write is taken", async || db.write().execute(insert, params![]).await.is_ok()).await;
    let found = told.elapsed();
    println!("FIGURE from Patroni's new answer to the first write: {found:?}");
    assert!(found < Duration::from_secs(5), "{found:?}");
    let primary = db.topology().primary.expect("a primary");
    assert!(primary.contains(&nodes[1].port().to_string()), "{primary}");

    // A member that is cut off tells the old story; nobody listens.
    stub.says(Some(cluster_of(&nodes, 0, 1)));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(db.topology().primary.as_ref(), Some(&primary));
    db.write().execute(insert, params![]).await.expect("still the new one");
    // Nor does it hurt when nobody answers at all.
    stub.says(None);
    sleep(Duration::from_millis(300)).await;
    db.write().execute(insert, params![]).await.expect("the last one holds");
}
