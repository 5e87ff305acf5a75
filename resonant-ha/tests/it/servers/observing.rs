//! Following those who promote already.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::{Database, PoolConfig, params};
use resonant_ha::observe::{DnsSource, PatroniSource, TopologySource};
use resonant_ha::{EventKind, FailoverConfig, FailoverManager};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::stage::until;

async fn watch(source: impl TopologySource) -> FailoverManager {
    let poll_interval = Duration::from_millis(100);
    let config = FailoverConfig { poll_interval, ..FailoverConfig::default() };
    let manager = FailoverManager::builder().config(config).observe(source).build();
    let manager = manager.expect("a manager");
    manager.start().await.expect("started");
    until("the first topology", async || manager.subscribe().borrow().epoch > 0).await;
    manager
}

async fn database(nodes: &[PgNode], manager: &FailoverManager) -> Database {
    let db = Database::builder()
        .primary(nodes[0].url())
        .replicas([nodes[1].url()])
        .pool(PoolConfig::default().min_size(1).max_size(4))
        .connect()
        .await
        .expect("a database");
    db.follow(manager.subscribe());
    db
}

async fn cluster() -> (PostgresCluster, Vec<PgNode>) {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let nodes = cluster.nodes().to_vec();
    nodes[0].sql("CREATE TABLE t (n bigint)").await.expect("a table");
    cluster.caught_up().await.expect("caught up");
    (cluster, nodes)
}

/// After `flip` the next write has to land on the second node.
async fn assert_follows(
    db: &Database,
    manager: &FailoverManager,
    nodes: &[PgNode],
    flip: impl Fn(),
) {
    let write = async |n: i64| db.write().execute("INSERT INTO t VALUES ($1)", params![n]).await;
    write(1).await.expect("a write");
    let epoch = manager.subscribe().borrow().epoch;
    // Both take writes now; only the source says whose turn it is.
    nodes[0].freeze().expect("frozen");
    nodes[1].promote().await.expect("promoted");
    flip();
    let flipped = Instant::now();
    until("it is followed", async || manager.subscribe().borrow().epoch > epoch).await;
    write(2).await.expect("a write");
    println!("FIGURE from the flip to a write on the new primary: {:?}", flipped.elapsed());
    assert_eq!(nodes[1].value("SELECT count(*) FROM t WHERE n = 2").await.expect("n"), "1");
    let told =
        manager.history().into_iter().any(|event| matches!(event.kind, EventKind::Observed { .. }));
    assert!(told && !manager.config().allow_promotion);
    nodes[0].thaw().expect("thawed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_follows_patroni_and_an_old_member_is_not_believed() {
    let (_cluster, nodes) = cluster().await;
    let answer = |leader: usize, timeline: u32| {
        let member = |node: &PgNode| {
            let role = if node.index() == leader { "leader" } else { "replica" };
            format!(
                r#"{{"name":"{}","role":"{role}","state":"running","api_url":"x","host":"127.0.0.1","port":{},"timeline":{timeline}}}"#,
                node.name(),
                node.port()
            )
        };
        let members: Vec<String> = nodes.iter().map(member).collect();
        format!(r#"{{"members":[{}],"scope":"demo"}}"#, members.join(","))
    };
    let body = Arc::new(Mutex::new(answer(0, 1)));
    let mut urls = Vec::new();
    // The second member never hears of anything.
    for stale in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        urls.push(format!("http://{}", listener.local_addr().expect("an address")));
        let (body, old) = (Arc::clone(&body), answer(0, 1));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..read].starts_with(b"GET /cluster HTTP/1.1"));
                let text = if stale { old.clone() } else { body.lock().unwrap().clone() };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                let _ = stream.write_all((head + &text).as_bytes()).await;
            }
        });
    }
    let source = PatroniSource::new(urls, "postgresql://postgres@{host}:{port}/postgres");
    let manager = watch(source.expect("a source")).await;
    let db = database(&nodes, &manager).await;
    let flip = || *body.lock().unwrap() = answer(1, 2);
    assert_follows(&db, &manager, &nodes, flip).await;
    assert_eq!(manager.subscribe().borrow().primary.as_deref(), Some("p1"));
    manager.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_follows_a_name_that_moves() {
    let (_cluster, nodes) = cluster().await;
    let port = Arc::new(AtomicU16::new(nodes[0].port()));
    let source = DnsSource::new("postgresql://postgres@writer.internal:5432/postgres");
    let asked = Arc::clone(&port);
    let source = source.expect("a source").resolve_with(move |host, _| {
        assert_eq!(host, "writer.internal");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], asked.load(Ordering::Relaxed)));
        async move { Ok::<_, std::io::Error>(vec![address]) }
    });
    let manager = watch(source).await;
    let db = database(&nodes, &manager).await;
    assert_follows(&db, &manager, &nodes, || port.store(nodes[1].port(), Ordering::Relaxed)).await;
    manager.close().await;
}
