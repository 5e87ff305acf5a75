//! A name that moves: the database behind it is found again without a change of settings.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::backend::postgres::{Names, Postgres, Resolver};
use resonant_db::{Database, DatabaseBuilder, PoolConfig, params};
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::until;

/// A name that leads where it is told to, and counts who asks.
#[derive(Clone)]
pub(super) struct Name {
    address: Arc<Mutex<SocketAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Name {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self { address: Arc::new(Mutex::new(address)), asked: Arc::default() }
    }

    pub(super) fn leads_to(&self, address: SocketAddr) {
        *self.address.lock().expect("no test panics while holding it") = address;
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// All the settings are this one name, as managed services give it out.
    pub(super) fn database(&self) -> DatabaseBuilder {
        let name = self.clone();
        let resolver = Resolver::new(move |host, _port| {
            name.asked.fetch_add(1, Ordering::Relaxed);
            let address = *name.address.lock().expect("no test panics while holding it");
            async move {
                assert_eq!(host, "primary.example");
                Ok(vec![address])
            }
        });
        Database::builder()
            .primary("postgresql://postgres@primary.example/postgres")
            .backend(Arc::new(Postgres::default().resolver(resolver)))
            .pool(PoolConfig::default().min_size(2).max_size(4))
    }
}

#[tokio::test]
async fn a_name_that_moves_to_the_new_primary_is_followed() {
    for old_lives_on in [false, true] {
        let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
        let nodes = cluster.nodes().to_vec();
        nodes[0].sql("CREATE TABLE t (n bigint)").await.expect("create");
        cluster.caught_up().await.expect("caught up");
        let name = Name::of(nodes[0].address());
        let db = name.database().connect().await.expect("connect");
        let insert = "INSERT INTO t VALUES (1)";
        db.write().execute(insert, params![]).await.expect("a write");
        if old_lives_on {
            nodes[0].freeze().expect("frozen");
        } else {
            nodes[0].kill().await.expect("killed");
        }
        nodes[1].promote().await.expect("promoted");
        name.leads_to(nodes[1].address());
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

/// A port that is the same at two addresses, each of which leads to a node.
async fn same_port(nodes: &[PgNode]) -> ([IpAddr; 2], u16) {
    let addresses = [2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
    loop {
        let first = TcpListener::bind((addresses[0], 0)).await.expect("a port");
        let port = first.local_addr().expect("bound").port();
        let Ok(second) = TcpListener::bind((addresses[1], port)).await else { continue };
        for (listener, node) in [(first, nodes[0].address()), (second, nodes[1].address())] {
            tokio::spawn(async move {
                while let Ok((mut here, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut there = TcpStream::connect(node).await?;
                        copy_bidirectional(&mut here, &mut there).await
                    });
                }
            });
        }
        return (addresses, port);
    }
}

#[tokio::test]
async fn a_name_that_leaves_a_hanging_primary_is_followed_at_once() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let nodes = cluster.nodes().to_vec();
    nodes[0].sql("CREATE TABLE t (n bigint)").await.expect("create");
    cluster.caught_up().await.expect("caught up");
    let (addresses, port) = same_port(&nodes).await;
    let name = Arc::new(Mutex::new(addresses[0]));
    let resolver = {
        let name = Arc::clone(&name);
        Resolver::new(move |_host, port| {
            let address = SocketAddr::new(*name.lock().expect("no test panics"), port);
            async move { Ok(vec![address]) }
        })
    };
    let url = format!("postgresql://postgres@primary.example:{port}/postgres");
    // With the limit of a statement as it is by default.
    let db = Database::builder()
        .primary(&url)
        .backend(Arc::new(Postgres::default().resolver(resolver.clone())))
        .pool(PoolConfig::default().min_size(4).max_size(8))
        .connect()
        .await
        .expect("connect");
    let names = Names::new(&url).expect("a name").resolver(resolver);
    db.follow_with(Duration::from_millis(100), move || names.topology());
    let insert = "INSERT INTO t VALUES (1)";
    db.write().execute(insert, params![]).await.expect("a write");
    nodes[0].freeze().expect("frozen");
    let stuck = {
        let db = db.clone();
        tokio::spawn(async move { db.write().execute(insert, params![]).await })
    };
    nodes[1].promote().await.expect("promoted");
    *name.lock().expect("no test panics") = addresses[1];
    let moved = Instant::now();
    until("a write is taken", async || {
        let written = db.write().execute(insert, params![]);
        tokio::time::timeout(Duration::from_millis(50), written).await.is_ok_and(|w| w.is_ok())
    })
    .await;
    let found = moved.elapsed();
    println!("FIGURE from the move of a hanging primary's name to the first write: {found:?}");
    assert!(found < Duration::from_secs(5), "{found:?}");
    let at: i64 =
        db.write().query_one_as("SELECT inet_server_port()", params![]).await.expect("an answer");
    assert_eq!(at, i64::from(nodes[1].port()));
    stuck.abort();
    nodes[0].thaw().expect("thawed");
}

#[tokio::test]
async fn a_long_statement_is_let_finish_where_the_name_still_leads_or_somebody_answers() {
    let cluster = PostgresCluster::builder().replicas(1).start().await.expect("a cluster");
    let nodes = cluster.nodes().to_vec();
    // Whoever does not get a byte out of a server for half a second takes it for dead, and a machine that is busy may make it
    // so: such a one has to come three times in a row.
    let mut failed = Vec::new();
    while let Err(failure) = long_statements(&nodes).await {
        failed.push(failure);
        assert!(failed.len() < 3, "{failed:?}");
    }
}

/// Runs long statements while their name moves on and while their server hangs; answers which of them was given up.
async fn long_statements(nodes: &[PgNode]) -> Result<(), (&'static str, resonant_db::Error)> {
    let name = Name::of(nodes[0].address());
    let db = name.database().connect().await.expect("connect");
    let long = "SELECT inet_server_port() FROM pg_sleep(2.2)";
    let port = i64::from(nodes[0].port());
    let held = async |what| {
        let at = db.write().query_one_as::<i64>(long, params![]).await;
        at.map(|at| assert_eq!(at, port)).map_err(|error| (what, error))
    };
    held("it is there").await?;
    // The name moves on while both run; the server is not gone for that.
    let moves = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        name.leads_to(nodes[1].address());
    };
    let (one, other, ()) = futures::join!(held("it answers"), held("it answers"), moves);
    one.and(other)?;
    // It hangs where the name leads, which a long statement looks like: nothing is given up before its limit.
    name.leads_to(nodes[0].address());
    let hangs = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        nodes[0].freeze().expect("frozen");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        nodes[0].thaw().expect("thawed");
    };
    let (held, ()) = futures::join!(held("it was held up"), hangs);
    held
}
