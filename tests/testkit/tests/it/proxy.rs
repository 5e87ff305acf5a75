//! The network's faults, on a server that sends back what it gets and on PostgreSQL.

use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
use std::net::SocketAddr;
use std::time::Duration;

use resonant_testkit::postgres::PgSession;
use resonant_testkit::proxy::Direction::{ToClient, ToServer};
use resonant_testkit::{ErrorKind, FaultProxy, PostgresCluster, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::{HANG, SOON, assert_hangs, becomes, failure, freed};

/// A server that sends back what it gets; it says on the channel when a connection of its own has ended.
async fn echo() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, endings) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = ended.send(());
            });
        }
    });
    (address, endings)
}

async fn pair() -> (FaultProxy, TcpStream) {
    let (address, _) = echo().await;
    let proxy = FaultProxy::start(address).await.unwrap();
    let client = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, client)
}

async fn there_and_back(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    client.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    timeout(SOON, client.read_exact(&mut back)).await.expect("an answer")?;
    Ok(back)
}

#[tokio::test]
async fn without_faults_bytes_pass_and_are_counted() {
    let (proxy, mut client) = pair().await;
    for _ in 0..3 {
        assert_eq!(there_and_back(&mut client, b"hello").await.unwrap(), b"hello");
    }
    let stats = proxy.stats();
    assert_eq!((stats.connections, stats.open, stats.round_trips), (1, 1, 3));
    assert_eq!((stats.bytes_to_server, stats.bytes_to_client), (15, 15));
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "the end is handed on, and back");
    proxy.until(|stats| stats.open == 0).await.unwrap();

    let much: Vec<u8> = (0..8_000_000u32).map(|n| n as u8).collect();
    let (mut from, mut to) = TcpStream::connect(proxy.address()).await.unwrap().into_split();
    let sent = much.clone();
    tokio::spawn(async move { to.write_all(&sent).await });
    let mut back = vec![0; much.len()];
    timeout(SOON, from.read_exact(&mut back)).await.unwrap().unwrap();
    assert!(back == much, "8 MB come back whole");
}

#[tokio::test]
async fn delay_and_jitter_take_effect_on_a_live_connection() {
    let (proxy, mut client) = pair().await;
    there_and_back(&mut client, b"x").await.unwrap();
    proxy.delay(Duration::from_millis(60)).await.unwrap();
    proxy.jitter(Duration::from_millis(10)).await.unwrap();
    let started = Instant::now();
    there_and_back(&mut client, b"x").await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(119),
        "60 ms each way, not {:?}",
        started.elapsed()
    );

    // What is on its way goes on at once when the delay ends.
    proxy.delay(Duration::from_secs(3600)).await.unwrap();
    client.write_all(b"late").await.unwrap();
    let mut back = [0; 4];
    assert!(timeout(HANG, client.read_exact(&mut back)).await.is_err());
    proxy.heal().await.unwrap();
    timeout(SOON, client.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"late");
}

#[tokio::test]
async fn jitter_delays_each_by_another_amount() {
    let (proxy, mut client) = pair().await;
    there_and_back(&mut client, b"x").await.unwrap();
    proxy.jitter(Duration::from_millis(400)).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..6 {
        let started = Instant::now();
        there_and_back(&mut client, b"x").await.unwrap();
        took.push(started.elapsed());
    }
    // The sequence of chance is the same in every run: these take from 0.14 to 0.48 seconds, 1.95 together.
    assert!(took.iter().sum::<Duration>() >= Duration::from_millis(1900), "{took:?}");
    let (least, most) = (took.iter().min().unwrap(), took.iter().max().unwrap());
    assert!(*most - *least >= Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn a_bandwidth_charges_small_requests_for_their_own_bytes_only() {
    let (proxy, mut client) = pair().await;
    proxy.bandwidth(100_000).await.unwrap();
    let started = Instant::now();
    for _ in 0..1000 {
        there_and_back(&mut client, b"x").await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(12), "1000 bytes took {:?}", started.elapsed());
}

#[tokio::test]
async fn bandwidth_is_what_it_is_set_to() {
    let (proxy, mut client) = pair().await;
    proxy.bandwidth(100_000).await.unwrap();
    let started = Instant::now();
    there_and_back(&mut client, &vec![7; 50_000]).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "half a second's worth took {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_cut_after_n_bytes_lets_exactly_those_through() {
    let (proxy, mut client) = pair().await;
    there_and_back(&mut client, b"before").await.unwrap();
    proxy.cut_after(ToClient, 10).await.unwrap();
    client.write_all(&[1; 100]).await.unwrap();
    let mut got = Vec::new();
    let error = timeout(SOON, client.read_to_end(&mut got)).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), got.len()), (ConnectionReset, 10));
    assert_eq!(proxy.stats().bytes_to_client, 16);
}

#[tokio::test]
async fn a_black_hole_holds_bytes_and_healing_lets_them_go() {
    let (proxy, mut client) = pair().await;
    there_and_back(&mut client, b"x").await.unwrap();
    proxy.black_hole().await.unwrap();
    client.write_all(b"held").await.unwrap();
    let mut back = [0; 4];
    assert!(timeout(HANG, client.read_exact(&mut back)).await.is_err());
    let mut newcomer = TcpStream::connect(proxy.address()).await.unwrap();
    newcomer.write_all(b"knock").await.unwrap();
    assert!(timeout(HANG, newcomer.read(&mut back)).await.is_err());
    proxy.heal().await.unwrap();
    timeout(SOON, client.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"held");
    let mut knock = [0; 5];
    timeout(SOON, newcomer.read_exact(&mut knock)).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_way_lets_requests_through_and_no_answers() {
    let (proxy, mut client) = pair().await;
    proxy.one_way(ToServer).await.unwrap();
    client.write_all(b"ask").await.unwrap();
    proxy.until(|stats| stats.bytes_to_server == 3).await.unwrap();
    let mut back = [0; 3];
    assert!(timeout(HANG, client.read_exact(&mut back)).await.is_err());
    assert_eq!(proxy.stats().bytes_to_client, 0);
    proxy.one_way(ToClient).await.unwrap();
    timeout(SOON, client.read_exact(&mut back)).await.unwrap().unwrap();
    client.write_all(b"lost").await.unwrap();
    tokio::time::sleep(HANG).await;
    assert_eq!(proxy.stats().bytes_to_server, 3);
}

#[tokio::test]
async fn half_open_closes_the_servers_side_and_the_client_is_not_told() {
    let (address, mut endings) = echo().await;
    let proxy = FaultProxy::start(address).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    there_and_back(&mut client, b"x").await.unwrap();
    proxy.half_open().await.unwrap();
    timeout(SOON, endings.recv()).await.expect("the server sees the end").unwrap();
    client.write_all(b"anybody?").await.unwrap();
    assert!(timeout(HANG, client.read(&mut [0; 8])).await.is_err(), "the client hears nothing");
    proxy.heal().await.unwrap();
    let told = timeout(SOON, client.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(told.kind(), ConnectionReset);
    there_and_back(&mut TcpStream::connect(proxy.address()).await.unwrap(), b"new").await.unwrap();
}

#[tokio::test]
async fn refused_and_hanging_connects_leave_live_connections_alone() {
    let (proxy, mut client) = pair().await;
    there_and_back(&mut client, b"x").await.unwrap();
    proxy.refuse().await.unwrap();
    assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), ConnectionRefused);
    there_and_back(&mut client, b"still here").await.unwrap();

    proxy.hang_connects().await.unwrap();
    let address = proxy.address();
    let knocking = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await?;
        there_and_back(&mut stream, b"in").await
    });
    let knocking = assert_hangs(knocking).await;
    there_and_back(&mut client, b"still here").await.unwrap();
    proxy.heal().await.unwrap();
    assert_eq!(freed(knocking).await.unwrap(), b"in", "the kernel knocks again, and is let in");
}

#[tokio::test]
async fn cut_resets_all_and_new_connections_may_lead_elsewhere() {
    let (proxy, mut client) = pair().await;
    there_and_back(&mut client, b"x").await.unwrap();
    proxy.cut().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), ConnectionReset);
    assert_eq!(proxy.stats().open, 0);

    let (elsewhere, _) = echo().await;
    proxy.retarget(elsewhere);
    assert_eq!(proxy.upstream(), elsewhere);
    there_and_back(&mut TcpStream::connect(proxy.address()).await.unwrap(), b"x").await.unwrap();
}

#[test]
fn a_proxy_outlives_the_runtime_it_was_made_in_and_ends_with_its_last_handle() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap();
    let proxy = runtime().block_on(FaultProxy::start(upstream)).unwrap();
    runtime().block_on(async {
        let _client = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.until(|stats| stats.open == 1).await.unwrap();
    });
    let address = proxy.address();
    drop(proxy);
    runtime()
        .block_on(becomes("connecting", false, async || {
            Ok(TcpStream::connect(address).await.is_ok())
        }))
        .unwrap();
}

#[tokio::test]
async fn a_database_client_behind_it_hangs_and_is_freed() -> Result<()> {
    let pg = PostgresCluster::builder().start().await?;
    let proxy = FaultProxy::start(pg.primary().address()).await?;
    assert!(pg.primary().url_through(&proxy).contains(&proxy.port().to_string()));
    let mut session = PgSession::connect(proxy.address(), "postgres", "postgres").await?;
    let before = proxy.stats().round_trips;
    session.sql("SELECT 1").await?;
    session.sql("SELECT 1").await?;
    assert_eq!(proxy.stats().round_trips - before, 2);

    proxy.black_hole().await?;
    let stuck = tokio::spawn(async move { (session.value("SELECT 'back'").await, session) });
    let stuck = assert_hangs(stuck).await;
    proxy.heal().await?;
    let (answer, mut session) = freed(stuck).await;
    assert_eq!(answer?, "back");
    proxy.cut().await?;
    failure(session.sql("SELECT 1").await, ErrorKind::Lost);
    Ok(())
}
