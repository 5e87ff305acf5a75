//! A service from one file.

mod embedded;
mod ends;
mod mistakes;

use std::net::SocketAddr;

use resonant_sdk::app::{Reader, Settings};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const TOKEN: &str = "a long secret of ada's";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) agent_id: String,
    pub(crate) goal: String,
}

impl Task {
    pub(crate) fn new(agent: u64, goal: u64) -> Self {
        Self { agent_id: format!("agent_{agent}"), goal: goal.to_string() }
    }
}

/// A file of this text, without the environment of whoever runs the tests.
pub(crate) fn file(text: &str) -> Reader {
    Settings::text("resonant.toml", text).vars([])
}

/// The code and the whole of an answer.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((code, answer))
}
