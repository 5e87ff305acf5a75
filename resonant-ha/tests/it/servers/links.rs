//! What a network does to the sessions of a region.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resonant_ha::backend::postgres::PostgresRegion;
use resonant_ha::{ErrorKind, Pledge, RegionBackend as _};
use resonant_testkit::postgres::Synchronous;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::stage::{LIMIT, Stage};

#[derive(Debug, Clone, Copy)]
enum Then {
    /// The connection is lost.
    Lose,
    /// Nothing more comes through, and nobody is told.
    Hang,
}

/// A link that, once armed, waits for a client to say these words, and then does that to its connection alone.
struct Trap {
    address: SocketAddr,
    armed: Arc<AtomicBool>,
}

impl Trap {
    async fn start(to: SocketAddr, words: &'static str, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let armed = Arc::new(AtomicBool::new(false));
        let trap = Self { address, armed: Arc::clone(&armed) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, armed) = (TcpStream::connect(to).await, Arc::clone(&armed));
                let Ok(server) = server else { continue };
                tokio::spawn(pass(client, server, armed, words, then));
            }
        });
        trap
    }

    fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    fn has_sprung(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }

    fn region(&self) -> PostgresRegion {
        PostgresRegion::new(format!("postgresql://postgres@{}/postgres", self.address))
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    armed: Arc<AtomicBool>,
    words: &'static str,
    then: Then,
) {
    let ((mut said, mut hears), (mut answers, mut asked)) =
        (client.into_split(), server.into_split());
    let back = tokio::spawn(async move { copy(&mut answers, &mut hears).await });
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = said.read(&mut bytes).await {
        let says = bytes[..read].windows(words.len()).any(|part| part == words.as_bytes());
        if says && armed.swap(false, Ordering::SeqCst) {
            match then {
                Then::Lose => back.abort(),
                Then::Hang => std::future::pending::<()>().await,
            }
            return;
        }
        if asked.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

fn order(epoch: u64) -> Pledge {
    Pledge { epoch, operation: format!("test/{epoch}") }
}

#[tokio::test]
async fn a_kept_session_that_died_is_no_failed_region() {
    let stage = Stage::set(Synchronous::Off).await;
    let link = Trap::start(stage.nodes[0].address(), "pg_advisory_lock", Then::Lose).await;
    let region = link.region();
    region.freeze(&order(1)).await.expect("a session is kept");
    link.arm();
    region.freeze(&order(2)).await.expect("obeyed on a fresh one");
    assert!(link.has_sprung(), "the kept one was not used");
    // And one that is lost while it is fresh is an answer.
    link.arm();
    let fresh = link.region().freeze(&order(3)).await.expect_err("lost");
    assert_eq!(fresh.kind(), ErrorKind::Unavailable);

    let link = Trap::start(stage.nodes[0].address(), "pg_is_in_recovery", Then::Lose).await;
    let (region, recent) = (link.region(), Duration::from_secs(1));
    region.probe(recent).await.expect("a session is kept");
    link.arm();
    region.probe(recent).await.expect("seen on a fresh one");
    assert!(link.has_sprung(), "the kept one was not used");
}

#[tokio::test]
async fn a_server_that_lets_somebody_in_and_hangs_ends_the_order() {
    let stage = Stage::set(Synchronous::Off).await;
    let words = "current_setting('primary_conninfo')";
    let link = Trap::start(stage.nodes[1].address(), words, Then::Hang).await;
    let region = link.region();
    link.arm();
    let frozen = timeout(LIMIT, region.freeze(&order(1))).await.expect("it waits for ever");
    assert_eq!(frozen.expect_err("it hung").kind(), ErrorKind::Unavailable);
    assert!(link.has_sprung());
    // Given again, it is obeyed.
    let frozen = async {
        while region.freeze(&order(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, frozen).await.expect("obeyed");
}
