//! As much HTTP as a question to Patroni needs.

use std::fmt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Error, ErrorKind, Result};

/// No answer is longer.
const LONGEST: u64 = 1 << 20;

/// Where a member's REST interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host and port.
    authority: String,
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let message = format!("{text:?} {why}; write http://10.0.0.1:8008");
            Error::new(ErrorKind::Config, "patroni", message)
        };
        if text.starts_with("https://") {
            return Err(wrong(
                "wants TLS, which is not spoken here: fetch it and use Patroni::read",
            ));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        match port {
            _ if authority.is_empty() || authority.contains(['/', '@', ' ']) => {
                Err(wrong("is no address"))
            }
            Some(Ok(_)) => Ok(Self { authority: authority.into() }),
            _ => Err(wrong("names no port")),
        }
    }

    pub(super) fn failed(&self, cause: impl fmt::Display) -> Error {
        let message = format!("Patroni at {}: {cause}", self.authority);
        Error::new(ErrorKind::Unavailable, "patroni", message)
    }

    /// The body of the answer.
    pub(super) async fn get(&self, path: &str) -> Result<String> {
        let exchanged = async {
            let mut stream = TcpStream::connect(&self.authority).await?;
            // In this version the answer ends with the connection.
            let request = format!(
                "GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n\r\n",
                self.authority
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(LONGEST).read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = exchanged.await.map_err(|error| self.failed(error))?;
        let answer = String::from_utf8(answer).map_err(|_| self.failed("its answer is no text"))?;
        let broken = || self.failed("its answer is not HTTP");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
        let status = head.split(' ').nth(1).ok_or_else(broken)?;
        match status {
            "200" => Ok(body.to_owned()),
            status => Err(self.failed(format_args!("status {status:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["http://10.0.0.1:8008", "http://patroni:8008/", "[::1]:8008"] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for wrong in
            ["", "http://", "http://host", "https://host:8008", "http://a:b@host:1", "http://h:1/x"]
        {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }
}
