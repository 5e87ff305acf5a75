//! nginx with a rendered configuration: balancing over what lives, reloads, and its own end.

use std::net::SocketAddr;

use resonant_testkit::{ErrorKind, FaultProxy, Nginx, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{HANG, SOON, failure};

/// A web server that answers everything with its name.
async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
                    name.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// The status line's code and the body.
async fn get(nginx: &Nginx) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(nginx.address()).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an answer")?;
    let code = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
    Ok((code, body))
}

const HTTP: &str = "
    upstream app { zone app 64k; {{members}} }
    server {
        listen {{listen}};
        location / { proxy_pass http://app; proxy_connect_timeout 300ms; proxy_next_upstream error timeout; }
    }";

#[tokio::test]
async fn requests_go_round_what_is_dead_and_a_reload_moves_them() -> Result<()> {
    let (one, two) = (backend("one").await, backend("two").await);
    let proxy = FaultProxy::start(one).await?;
    let members = format!("server {}; server {two};", proxy.address());
    let nginx = Nginx::builder().http(HTTP).value("members", members).start().await?;
    assert!(nginx.url().starts_with("http://127.0.0.1:"));
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(get(&nginx).await.expect("an answer").1);
    }
    assert!(bodies.contains(&"one".to_owned()) && bodies.contains(&"two".to_owned()), "{bodies:?}");

    proxy.refuse().await?;
    for _ in 0..4 {
        assert_eq!(get(&nginx).await.expect("an answer"), ("200".into(), "two".into()));
    }

    let error = failure(nginx.set("members", "server nonsense;;").await, ErrorKind::Config);
    assert!(error.log().is_some_and(|log| log.contains("nginx.conf")), "{error:?}");
    nginx.set("members", &format!("server {one};")).await?;
    for _ in 0..4 {
        assert_eq!(get(&nginx).await.expect("an answer").1, "one", "at once");
    }

    // A connection that was there before keeps its worker, which keeps no others.
    let mut before = TcpStream::connect(nginx.address()).await.expect("a connection");
    before.write_all(b"GET / HTTP/1.0\r\n").await.expect("half a request");
    nginx.reload("server { listen {{listen}}; return 204; }").await?;
    assert_eq!(get(&nginx).await.expect("an answer").0, "204", "at once");
    before.write_all(b"\r\n").await.expect("the other half");
    let mut answer = String::new();
    timeout(SOON, before.read_to_string(&mut answer)).await.expect("an answer").expect("one");
    assert!(answer.ends_with("one"), "by the configuration it came under: {answer}");
    nginx.reload(HTTP).await?;

    nginx.freeze()?;
    assert!(timeout(HANG, get(&nginx)).await.is_err(), "frozen with its workers");
    nginx.thaw()?;
    nginx.kill().await?;
    get(&nginx).await.expect_err("nobody listens: the workers are dead too");
    nginx.start().await?;
    assert_eq!(get(&nginx).await.expect("an answer").1, "one");
    nginx.stop().await?;
    assert!(!nginx.is_running());
    Ok(())
}

#[tokio::test]
async fn a_bad_configuration_is_refused_in_nginxs_own_words() {
    let error = failure(Nginx::builder().http("serve {}").start().await, ErrorKind::Config);
    assert!(
        error.log().is_some_and(|log| log.contains("unknown directive \"serve\"")),
        "{error:?}"
    );
    failure(Nginx::builder().start().await, ErrorKind::Config);
    let whole = "events {} http { server { listen {{listen}}; return 204; } }";
    let nginx = Nginx::builder().config(whole).start().await.expect("a whole file will do");
    assert_eq!(get(&nginx).await.expect("an answer").0, "204");
}
