//! Rolling restarts behind a real nginx: ready goes red first, listeners close later, nobody's request fails.
//!
//! nginx's open source has no active checks, so a small loop does what a balancer or Kubernetes does: it asks each instance
//! whether it is ready and takes those that are not out of the upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use resonant_health::{HealthChecker, HealthConfig};
use resonant_testkit::Nginx;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const DRAIN: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);

const HTTP: &str = "
    upstream app { zone app 64k; {{members}} }
    server { listen {{listen}}; location / { proxy_pass http://app; proxy_next_upstream off; } }";

struct Instance {
    address: SocketAddr,
    health: HealthChecker,
    served: JoinHandle<Instant>,
}

impl Instance {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = HealthConfig { drain_delay: DRAIN, ..HealthConfig::default() };
        let health = HealthChecker::with_config(config).unwrap();
        let health = health.check("self", async || Ok::<(), std::io::Error>(()));
        health.start().unwrap();
        health.run_all().await;
        // An answer that takes a while, so that there is always one under way.
        let work = get(async || {
            sleep(Duration::from_millis(20)).await;
            "done"
        });
        let app = Router::new().route("/", work).merge(health.router());
        let draining = health.clone();
        let shutdown = async move {
            // Told to end, a service drains and then closes its listener.
            let mut changes = draining.subscribe();
            let _ = changes.wait_for(|report| report.is_draining()).await;
            draining.drain().await;
        };
        let served = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(shutdown).await.unwrap();
            Instant::now()
        });
        Self { address, health, served }
    }
}

/// The code of an answer, and 0 where there was none.
async fn ask(address: SocketAddr, path: &str) -> u16 {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.split(' ').nth(1).and_then(|code| code.parse().ok()))
    };
    match timeout(LIMIT, asked).await {
        Ok(Ok(Some(code))) => code,
        _ => 0,
    }
}

/// Tells nginx who is ready.
async fn balance(nginx: &Nginx, instances: &[SocketAddr]) {
    let mut members = String::new();
    for address in instances {
        if ask(*address, "/health/ready").await == 200 {
            members.push_str(&format!("server {address}; "));
        }
    }
    nginx.set("members", &members).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rolling_restarts_behind_nginx_fail_no_request() {
    let mut one = Instance::start().await;
    let mut other = Instance::start().await;
    let members = format!("server {}; server {};", one.address, other.address);
    let nginx = Nginx::builder().http(HTTP).value("members", members).start().await.unwrap();

    let (ends, failed, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (ends, failed, answered) = (ends.clone(), failed.clone(), answered.clone());
            let address = nginx.address();
            tokio::spawn(async move {
                while !ends.load(Ordering::Relaxed) {
                    let counter = if ask(address, "/").await == 200 { &answered } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for _ in 0..10 {
        let next = Instance::start().await;
        let told = Instant::now();
        one.health.begin_drain();
        // Red at once, and live stays green; the listener is still open.
        assert_eq!(ask(one.address, "/health/ready").await, 503);
        assert_eq!(ask(one.address, "/health/live").await, 200);
        balance(&nginx, &[one.address, other.address, next.address]).await;
        assert!(told.elapsed() < DRAIN, "the machine is too slow for this test's delay");
        let closed = timeout(LIMIT, one.served).await.unwrap().unwrap();
        assert!(closed - told >= DRAIN, "{:?}", closed - told);
        assert_eq!(ask(one.address, "/health/live").await, 0, "the listener is closed");
        one = std::mem::replace(&mut other, next);
    }

    ends.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (failed, answered) = (failed.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    assert_eq!(failed, 0, "of {}", failed + answered);
    assert!(answered > 100, "{answered}");
    one.served.abort();
    other.served.abort();
}
