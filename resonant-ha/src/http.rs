//! As much HTTP/1.1 as a probe needs: one GET per connection, a bounded answer.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::{Error, ErrorKind, Result};

/// How long one of several to ask may take.
pub(crate) const PATIENCE: Duration = Duration::from_millis(800);

/// The longest answer that is read.
const LONGEST: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Gets a plain `http://` URL.
pub(crate) async fn get(url: &str) -> Result<Answer> {
    let bad =
        |what: &str| Error::new(ErrorKind::Unavailable, "get", format!("{what}: {}", shown(url)));
    let rest = url.strip_prefix("http://").ok_or_else(|| bad("not an http:// URL"))?;
    let (place, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let address = if place.contains(':') { place.to_owned() } else { format!("{place}:80") };
    let failed = |error: std::io::Error| bad("the connection failed").with_source(error);
    let mut stream = TcpStream::connect(&address).await.map_err(failed)?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {place}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut bytes = Vec::new();
    stream.take(LONGEST).read_to_end(&mut bytes).await.map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| bad("no HTTP answer"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad("no HTTP answer"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, body })
}

/// The URL without what may be secret in it.
pub(crate) fn shown(url: &str) -> &str {
    let short = url.split(['?', '#']).next().unwrap_or_default();
    match short.rsplit_once('@') {
        Some((_, place)) => place,
        // A password holds one of the marks, or the query does.
        None if url.contains('@') => "…",
        None => short,
    }
}

fn unchunk(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16);
        let Some(chunk) = size.ok().filter(|size| *size > 0).and_then(|size| rest.get(..size))
        else {
            break;
        };
        whole.push_str(chunk);
        text = rest.get(chunk.len() + 2..).unwrap_or_default();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_nonsense_ends_them() {
        assert_eq!(unchunk("4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n"), "Wikipedia");
        assert_eq!(unchunk("ff\r\nshort"), "");
        assert_eq!(shown("http://u:p@host/x?token=1"), "host/x");
        assert_eq!(shown("http://u:p?w@host/x"), "…");
        assert_eq!(shown("http://host/x"), "http://host/x");
    }
}
