//! nginx with its own file: whether it takes it, and what it does with requests.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::HeaderMap;
use axum::routing::{any, get};
use axum::serve::ListenerExt;
use futures::{SinkExt, StreamExt};
use resonant_testkit::{ErrorKind, Nginx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::deploy::Files;

const CONF: &str = "deploy/nginx/nginx.conf";
const LIMIT: Duration = Duration::from_secs(60);

/// What stands behind nginx: counts what comes, and echoes what it is told by WebSocket.
struct Backend {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    served: JoinHandle<()>,
}

impl Backend {
    async fn start() -> Self {
        let (requests, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counted, opened) = (Arc::clone(&requests), Arc::clone(&connections));
        let listener = listener.tap_io(move |_| {
            opened.fetch_add(1, Ordering::Relaxed);
        });
        let work = get(async move |headers: HeaderMap| {
            counted.fetch_add(1, Ordering::Relaxed);
            // So that there are some at once.
            sleep(Duration::from_millis(5)).await;
            let of =
                |name: &str| headers.get(name).map_or("-", |it| it.to_str().unwrap()).to_owned();
            format!("{} {} {}", of("host"), of("x-forwarded-proto"), of("connection"))
        });
        let echo = any(async |ws: WebSocketUpgrade| {
            ws.on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.recv().await {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            })
        });
        let app = Router::new().route("/work", work).route("/ws", echo);
        let served = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, requests, connections, served }
    }

    fn count(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// The file with addresses in place of names, which nothing resolves here, and a certificate of the test's own.
fn placed(text: &str, api: &[SocketAddr], session: &[SocketAddr], tls: &std::path::Path) -> String {
    let mut text = text
        .replace("listen 80;", "listen {{listen}};")
        .replace("listen 443 ssl", "listen unix:{{dir}}/tls.sock ssl")
        .replace("/etc/nginx/tls", &tls.display().to_string())
        .replace("access_log /dev/stdout timed;", "access_log off;");
    for (name, addresses) in [("api", api), ("session", session)] {
        for (index, address) in addresses.iter().enumerate() {
            text = text.replace(&format!("{name}-{}:8000", index + 1), &address.to_string());
        }
    }
    text
}

fn certificate(folder: &std::path::Path) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    openssl.args(["-days", "1", "-subj", "/CN=localhost", "-keyout", "tls.key", "-out", "tls.crt"]);
    let output = openssl.current_dir(folder).output().expect("openssl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // nginx runs as somebody else when the tests run as root.
    for (path, mode) in [(folder.to_owned(), 0o755), (folder.join("tls.key"), 0o644)] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// The code and the body of an answer over a connection that stays.
async fn ask(stream: &mut TcpStream, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: api.resonantgenesis.xyz\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = timeout(LIMIT, stream.read(&mut part)).await.unwrap().unwrap();
        assert!(length > 0, "nginx closed the connection: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let told = head.to_ascii_lowercase();
        let told = told.split("content-length: ").nth(1).and_then(|it| it.lines().next());
        let told: usize = told.and_then(|it| it.parse().ok()).unwrap();
        if body.len() >= told {
            return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
        }
    }
}

/// Some clients at once, each with a connection of its own; answers that were not 200.
async fn load(nginx: SocketAddr, clients: usize, each: usize) -> usize {
    let clients = (0..clients).map(|_| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(nginx).await.unwrap();
            let mut failed = 0;
            for _ in 0..each {
                let (code, _) = ask(&mut stream, "/work").await;
                failed += usize::from(code != 200);
            }
            failed
        })
    });
    futures::future::join_all(clients).await.into_iter().map(Result::unwrap).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_runs_with_its_file() {
    let files = Files::load();
    let tls = tempfile::tempdir().unwrap();
    certificate(tls.path());
    let mut api = vec![Backend::start().await, Backend::start().await, Backend::start().await];
    let session = [Backend::start().await, Backend::start().await];
    let addresses = |them: &[Backend]| them.iter().map(|it| it.address).collect::<Vec<_>>();
    let text = placed(files.text(CONF), &addresses(&api), &addresses(&session), tls.path());
    let nginx = Nginx::builder().config(text).start().await.unwrap();

    // Spread by least_conn, within a tenth, over connections that are kept.
    assert_eq!(load(nginx.address(), 6, 100).await, 0);
    let counts: Vec<u64> = api.iter().map(Backend::count).collect();
    assert_eq!(counts.iter().sum::<u64>(), 600);
    assert!(counts.iter().all(|count| (180..=220).contains(count)), "{counts:?}");
    let opened: u64 = api.iter().map(|it| it.connections.load(Ordering::Relaxed)).sum();
    assert!(opened <= 60, "{opened} connections for 600 requests");

    // What the service is told of the request; and nothing of an upgrade nobody asked for.
    let mut stream = TcpStream::connect(nginx.address()).await.unwrap();
    let (_, told) = ask(&mut stream, "/work").await;
    assert_eq!(told, "api.resonantgenesis.xyz http -");
    assert_eq!(ask(&mut stream, "/api/v1/metrics").await.0, 404);

    // WebSockets, at the sessions and not at the api.
    let before: Vec<u64> = api.iter().map(|it| it.connections.load(Ordering::Relaxed)).collect();
    for _ in 0..4 {
        let url = format!("ws://{}/ws?session=s1", nginx.address());
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            let echo = timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(echo, Message::text(text));
        }
        socket.close(None).await.unwrap();
    }
    let after: Vec<u64> = api.iter().map(|it| it.connections.load(Ordering::Relaxed)).collect();
    assert_eq!(before, after);
    assert!(session.iter().all(|it| it.connections.load(Ordering::Relaxed) == 2));

    // One that is dead is gone round, and nobody notices.
    let dead = api.remove(1);
    dead.served.abort();
    let _ = dead.served.await;
    let counted: Vec<u64> = api.iter().map(Backend::count).collect();
    assert_eq!(load(nginx.address(), 6, 50).await, 0);
    let more: Vec<u64> = api.iter().zip(counted).map(|(it, then)| it.count() - then).collect();
    assert_eq!(more.iter().sum::<u64>(), 300, "{more:?}");
    assert!(more.iter().all(|count| *count >= 90), "{more:?}");
}

#[tokio::test]
async fn seeded_mistakes_in_the_file_are_refused_by_nginx() {
    let files = Files::load();
    let tls = tempfile::tempdir().unwrap();
    certificate(tls.path());
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    for (from, to) in [
        ("least_conn;", "least_con;"),
        ("keepalive 32;", "keepalive thirty-two;"),
        ("proxy_read_timeout 300s;", "proxy_read_timeout 300sec;"),
        ("http_503;", "http_555;"),
        ("map $http_upgrade", "map $http-upgrade"),
        ("proxy_pass http://resonant_session;", "proxy_pass http://resonant_sessions;"),
    ] {
        let seeded = files.with(CONF, from, to);
        let text = placed(seeded.text(CONF), &[nowhere; 3], &[nowhere; 2], tls.path());
        let started = Nginx::builder().config(text).start().await;
        let error = started.err().unwrap_or_else(|| panic!("{to} is taken"));
        assert_eq!(error.kind(), ErrorKind::Config, "{to}: {error:?}");
    }
}
