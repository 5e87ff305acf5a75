//! On real PostgreSQL: a primary and a streaming replica.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use resonant_testkit::{Nginx, PgNode, PostgresCluster};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::client::Client;

const LIMIT: Duration = Duration::from_secs(30);

async fn cluster() -> PostgresCluster {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let table = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)";
    cluster.primary().sql(table).await.expect("a table");
    cluster.caught_up().await.expect("caught up");
    cluster
}

async fn serve(app: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await.expect("served") });
    address
}

/// The service in this process, for what a process of its own adds nothing to.
async fn routed(cluster: &PostgresCluster) -> SocketAddr {
    let [primary, replica] = [0, 1].map(|node| cluster.node(node).url());
    serve(axum_sqlx::routed::app(&primary, &[&replica]).expect("good settings")).await
}

/// How often a statement with this text was run on a node.
async fn scans(node: &PgNode) -> u64 {
    let count =
        "SELECT coalesce(sum(idx_scan), 0)::text FROM pg_stat_user_indexes WHERE relname = 'notes'";
    node.value(count).await.expect("a count").parse().expect("a number")
}

async fn until<F: AsyncFnMut() -> bool>(what: &str, mut reached: F) {
    let deadline = Instant::now() + LIMIT;
    while !reached().await {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_plain_service_works_too() {
    let cluster = cluster().await;
    let address = serve(axum_sqlx::plain::app(&cluster.primary().url()).expect("a URL")).await;
    let mut client = Client::connect(address).await;
    let (status, id) = client.post("/notes", "plain").await;
    assert_eq!(status, 200);
    assert_eq!(client.get(&format!("/notes/{id}")).await, (200, "plain".into()));
    assert_eq!(client.get("/notes/999").await.0, 404);
    assert_eq!(client.cookie, None);
}

#[tokio::test]
async fn reads_go_to_the_replica_and_see_what_their_client_wrote() {
    let cluster = cluster().await;
    let address = routed(&cluster).await;
    let mut writer = Client::connect(address).await;
    let (status, id) = writer.post("/notes", "hello").await;
    assert_eq!(status, 200, "{id}");
    let path = format!("/notes/{id}");
    assert_eq!(writer.get(&path).await, (200, "hello".into()));
    assert!(writer.cookie.as_deref().is_some_and(|cookie| cookie.starts_with("resonant-session=")));

    // Whoever has written nothing is answered by the replica.
    cluster.caught_up().await.expect("caught up");
    let (replica, primary) = (cluster.replica(0), cluster.primary());
    let mut reader = Client::connect(address).await;
    for _ in 0..50 {
        assert_eq!(reader.get(&path).await, (200, "hello".into()));
    }
    until("the replica has answered", async || scans(&replica).await >= 50).await;
    assert!(scans(&primary).await < 5, "the primary answered what the replica was for");

    // While the replica stands still, the writer sees its note and a stranger does not.
    replica.pause_replay().await.expect("paused");
    let (_, id) = writer.post("/notes", "late").await;
    let path = format!("/notes/{id}");
    assert_eq!(writer.get(&path).await, (200, "late".into()));
    assert_eq!(reader.get(&path).await.0, 404, "the replica cannot have it");
    replica.resume_replay().await.expect("resumed");
    until("the replica has it", async || reader.get(&path).await.0 == 200).await;
}

#[tokio::test]
async fn a_lost_replica_and_a_promotion_need_no_restart() {
    let cluster = cluster().await;
    let address = routed(&cluster).await;
    let mut client = Client::connect(address).await;
    let (_, id) = client.post("/notes", "kept").await;
    let path = format!("/notes/{id}");
    cluster.caught_up().await.expect("caught up");
    let mut reader = Client::connect(address).await;
    assert_eq!(reader.get(&path).await.0, 200);

    cluster.replica(0).freeze().expect("frozen");
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    // A read that is under way as it freezes waits for its pool's limit at most; those after it go elsewhere. That is learned from
    // the probes: by failed reads alone it would take five.
    let mut failed = 0;
    while reader.get(&path).await.0 != 200 {
        failed += 1;
        assert!(failed <= 2, "reads still go to the frozen replica");
    }
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(reader.get(&path).await.0, 200, "the primary answers");
        slowest = slowest.max(asked.elapsed());
    }
    println!(
        "FIGURE {:?} after the replica froze the slowest of 20 reads took {slowest:?}",
        start.elapsed()
    );
    cluster.replica(0).thaw().expect("thawed");

    let old = cluster.node(0);
    old.kill().await.expect("killed");
    cluster.node(1).promote().await.expect("promoted");
    let promoted = Instant::now();
    until("a write is taken", async || client.post("/notes", "after").await.0 == 200).await;
    println!("FIGURE from the promotion to the first write: {:?}", promoted.elapsed());
    assert_eq!(client.get(&path).await, (200, "kept".into()));
}

/// The program as a process of its own.
async fn spawn(cluster: &PostgresCluster) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_axum-sqlx"))
        .arg("127.0.0.1:0")
        .env("DATABASE_URL", cluster.node(0).url())
        .env("REPLICA_URLS", cluster.node(1).url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("a line");
    let address = line.rsplit(' ').next().expect("an address").parse().expect("an address");
    (child, address)
}

#[tokio::test]
async fn two_processes_behind_a_proxy_answer_ten_thousand_pairs_without_a_stale_read() {
    const CLIENTS: usize = 16;
    const PAIRS: usize = 10_000;
    let cluster = cluster().await;
    let (_first, first) = spawn(&cluster).await;
    let (_second, second) = spawn(&cluster).await;
    let proxy = Nginx::builder()
        .http(format!(
            "upstream app {{ server {first}; server {second}; keepalive 32; }} \
             server {{ listen {{{{listen}}}}; keepalive_requests 100000; location / {{ \
             proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             add_header answered-by $upstream_addr; }} }}"
        ))
        .start()
        .await
        .expect("nginx");
    let (address, start) = (proxy.address(), Instant::now());
    cluster.replica(0).delay_replay(Duration::from_millis(50)).await.expect("late");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|place| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut stranger = Client::connect(address).await;
                let (mut stale, mut unseen) = (0, 0);
                for turn in 0..PAIRS / CLIENTS {
                    let body = format!("{place}/{turn}");
                    let (status, id) = client.post("/notes", &body).await;
                    assert_eq!(status, 200);
                    let path = format!("/notes/{id}");
                    stale += usize::from(client.get(&path).await != (200, body));
                    if turn % 20 == 0 {
                        unseen += usize::from(stranger.get(&path).await.0 == 404);
                    }
                }
                (stale, unseen)
            })
        })
        .collect();
    let (mut stale, mut unseen) = (0, 0);
    for client in clients {
        let (of_its_own, of_a_stranger) = client.await.expect("no panic");
        (stale, unseen) = (stale + of_its_own, unseen + of_a_stranger);
    }
    println!(
        "FIGURE {PAIRS} pairs through nginx and two processes in {:?}, replica late by 50 ms: {stale} stale; \
         {unseen} of {} reads without a cookie were",
        start.elapsed(),
        CLIENTS * (PAIRS / CLIENTS).div_ceil(20)
    );
    assert_eq!(stale, 0);
    assert!(unseen > 0, "the replica was not late, so this shows nothing");
    let answered =
        cluster.primary().value("SELECT count(*)::text FROM notes").await.expect("count");
    assert_eq!(answered, (PAIRS / CLIENTS * CLIENTS).to_string());
}
