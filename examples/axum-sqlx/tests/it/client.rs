//! As much of an HTTP client as a browser is to this service: one connection, cookies kept.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

pub(crate) struct Client {
    stream: BufStream<TcpStream>,
    pub(crate) cookie: Option<String>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the service listens");
        stream.set_nodelay(true).expect("an option");
        Self { stream: BufStream::new(stream), cookie: None }
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> (u16, String) {
        self.send("POST", path, body).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> (u16, String) {
        self.send("GET", path, "").await
    }

    async fn send(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let cookie = match &self.cookie {
            Some(cookie) => format!("cookie: other=1; {cookie}\r\n"),
            None => String::new(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: notes\r\n{cookie}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.expect("sent");
        self.stream.flush().await.expect("sent");
        let status = self.line().await;
        let status = status.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut length = 0;
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().expect("a number"),
                "set-cookie" => {
                    let (pair, _) = value.split_once(';').expect("attributes");
                    self.cookie = Some(pair.to_owned());
                }
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("a body");
        (status, String::from_utf8(body).expect("text"))
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("an answer");
        line.trim_end().to_owned()
    }
}
