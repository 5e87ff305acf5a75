//! A role of the service as a process, and a client of it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No wait is longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn service(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_service"));
    command.current_dir(folder).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env_remove("DATABASE_URL").env("RESONANT__HEALTH__DRAIN_DELAY", "500ms");
    command
}

pub(crate) struct Role {
    child: Child,
    printed: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
}

impl Role {
    pub(crate) async fn start(mut command: Command) -> Self {
        command.args(["--listen", "127.0.0.1:0"]);
        let mut child = command.spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(LIMIT, printed.next_line()).await.unwrap().unwrap();
        let line = line.expect("the service ended instead of listening");
        let address = line.strip_prefix("listening on http://").expect(&line).parse().unwrap();
        let role = Self { child, printed, address };
        timeout(LIMIT, async {
            while !matches!(role.get("/health/ready").await, Ok((200, _))) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("it does not become ready");
        role
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().expect("it has ended").to_string();
        let sent = std::process::Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, and what it said last.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let reading = async {
            while let Ok(Some(line)) = self.printed.next_line().await {
                said = line;
            }
        };
        timeout(LIMIT, reading).await.expect("it does not end");
        (timeout(LIMIT, self.child.wait()).await.unwrap().unwrap(), said)
    }

    pub(crate) async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        ask(self.address, "GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> std::io::Result<(u16, Value)> {
        let (code, answer) = ask(self.address, "POST", path, &body.to_string()).await?;
        Ok((code, serde_json::from_str(&answer).unwrap_or_default()))
    }

    /// Everything a session is told, until the service closes it.
    pub(crate) async fn watch(&self, session: &str) -> Vec<Value> {
        hear(self.connect(session).await).await
    }

    /// A session's WebSocket.
    pub(crate) async fn connect(&self, session: &str) -> Socket {
        let url = format!("ws://{}/ws?session={session}", self.address);
        tokio_tungstenite::connect_async(url).await.unwrap().0
    }
}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Everything the service says until it closes a session.
pub(crate) async fn hear(mut socket: Socket) -> Vec<Value> {
    let mut told = Vec::new();
    let listening = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Ok(text) = message.to_text()
                && let Ok(value) = serde_json::from_str(text)
            {
                told.push(value);
            }
        }
    };
    timeout(LIMIT, listening).await.expect("the session does not end");
    told
}

/// The code and the body of an answer; an error is a request that failed.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| std::io::Error::other("no answer"))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((code, body.to_owned()))
    };
    timeout(LIMIT, asked).await.unwrap_or_else(|_| Err(std::io::Error::other("no answer in time")))
}
