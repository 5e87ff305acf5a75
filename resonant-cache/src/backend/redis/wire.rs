//! A connection, over TCP or TLS; and one that listens to announcements in RESP3.

use std::io;

use bytes::{Buf, BytesMut};
use redis_protocol::resp3::decode::complete::decode_bytes;
use redis_protocol::resp3::types::BytesFrame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::driver::Settings;
use super::target::{Address, Login};

/// TCP or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connection to a server, over which nothing was said yet.
pub(super) async fn open(address: &Address, settings: &Settings) -> io::Result<Box<dyn Stream>> {
    let socket = TcpStream::connect((address.host.as_str(), address.port)).await?;
    socket.set_nodelay(true)?;
    // An ended connection is reset: what the kernel would still send must not come behind what the next connection says.
    socket.set_zero_linger()?;
    Ok(match &settings.tls {
        None => Box::new(socket),
        #[cfg(feature = "tls")]
        Some(tls) => Box::new(tls.connect(&address.host, socket).await?),
        #[cfg(not(feature = "tls"))]
        Some(never) => match *never {},
    })
}

pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    scan: Scan,
}

impl Wire {
    /// Connects; logs nobody in.
    pub(super) async fn connect(address: &Address, settings: &Settings) -> io::Result<Self> {
        let stream = open(address, settings).await?;
        Ok(Self { stream, buffer: BytesMut::new(), scan: Scan::default() })
    }

    /// Switches to RESP3 and logs in.
    pub(super) async fn hello(&mut self, login: &Login) -> io::Result<BytesFrame> {
        let mut words = vec!["HELLO", "3"];
        if let Some(password) = &login.password {
            words.extend(["AUTH", login.user.as_deref().unwrap_or("default"), password]);
        }
        self.send(&words).await?;
        self.frame().await
    }

    /// Logs in the old way; `None` if nobody is to.
    pub(super) async fn log_in(&mut self, login: &Login) -> io::Result<Option<BytesFrame>> {
        let Some(password) = &login.password else { return Ok(None) };
        let mut words = vec!["AUTH"];
        words.extend(login.user.as_deref());
        words.push(password);
        self.send(&words).await?;
        self.frame().await.map(Some)
    }

    pub(super) async fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.write_all(out.as_bytes()).await?;
        self.stream.flush().await
    }

    /// The next frame. A dropped future loses nothing.
    pub(super) async fn frame(&mut self) -> io::Result<BytesFrame> {
        loop {
            if let Some(frame) = self.scan.next(&mut self.buffer)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Frames within frames; no announcement has more than two.
const MAX_DEPTH: usize = 8;
/// The longest line, and the longest string: what a server sends has its limits too.
const MAX_LINE: usize = 64 << 10;
const MAX_LENGTH: usize = 512 << 20;

/// Finds the end of a frame, going on where it stopped: a frame of a hundred thousand keys arrives in many pieces. What it lets
/// pass is nested little enough to be decoded.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    /// Parts still to come, of the frame and of what lies open in it; none before the frame has begun.
    open: Vec<usize>,
}

impl Scan {
    /// The next frame in `buffer`, taken out of it, or `None` if it is not there in full.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> io::Result<Option<BytesFrame>> {
        let Some(length) = self.frame(buffer)? else {
            return match buffer.len() > MAX_LENGTH + MAX_LINE {
                true => Err(io::Error::other("a frame longer than a server's own limit")),
                false => Ok(None),
            };
        };
        let bytes = buffer.split_to(length).freeze();
        let decoded = decode_bytes(&bytes).map_err(io::Error::other)?;
        let (frame, _) = decoded.ok_or_else(|| io::Error::other("a broken frame"))?;
        Ok(Some(frame))
    }

    fn frame(&mut self, buffer: &[u8]) -> io::Result<Option<usize>> {
        loop {
            let rest = &buffer[self.at..];
            let Some(end) = rest.windows(2).take(MAX_LINE).position(|pair| pair == b"\r\n") else {
                return match rest.len() > MAX_LINE {
                    true => Err(io::Error::other("a line without an end")),
                    false => Ok(None),
                };
            };
            let (kind, line) = match rest[..end].split_first() {
                Some((kind, line)) => (*kind, line),
                None => return Err(io::Error::other("an empty line is no frame")),
            };
            let mut next = self.at + end + 2;
            let mut parts = 0;
            match kind {
                b'*' | b'>' | b'~' => parts = length(line)?.unwrap_or(0),
                b'%' | b'|' => parts = length(line)?.unwrap_or(0).saturating_mul(2),
                b'$' | b'=' | b'!' => match length(line)? {
                    Some(length) if length > MAX_LENGTH => {
                        return Err(io::Error::other("a string that is too long"));
                    }
                    Some(length) => next = next + length + 2,
                    None => {}
                },
                _ => {}
            }
            if buffer.len() < next {
                return Ok(None);
            }
            self.at = next;
            // An attribute is no part by itself; we never ask for any.
            if let Some(open) = self.open.last_mut() {
                *open -= 1;
            }
            if parts > 0 {
                self.open.push(parts);
            }
            while self.open.last() == Some(&0) {
                self.open.pop();
            }
            if self.open.is_empty() {
                return Ok(Some(std::mem::take(&mut self.at)));
            }
            if self.open.len() > MAX_DEPTH {
                return Err(io::Error::other("frames are nested too deeply"));
            }
        }
    }
}

/// `None` for the old protocol's nothing, -1.
fn length(line: &[u8]) -> io::Result<Option<usize>> {
    let mut digits = line;
    if digits.starts_with(b"-") {
        return Ok(None);
    }
    let mut length = 0usize;
    while digits.has_remaining() {
        let digit = digits.get_u8();
        if !digit.is_ascii_digit() {
            return Err(io::Error::other("a length that is no number"));
        }
        length = length.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() -> io::Result<()> {
        let frames: [&[u8]; 6] = [
            b"+OK\r\n",
            b">2\r\n$10\r\ninvalidate\r\n*2\r\n$3\r\na\r\n\r\n$0\r\n\r\n",
            b">2\r\n+invalidate\r\n_\r\n",
            b"%1\r\n$1\r\na\r\n*0\r\n",
            b"*-1\r\n",
            b"$-1\r\n",
        ];
        let all: Vec<u8> = frames.concat();
        for step in [1, 2, 3, 7, all.len()] {
            let (mut scan, mut found, mut buffer) = (Scan::default(), Vec::new(), BytesMut::new());
            for piece in all.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(length) = scan.frame(&buffer)? {
                    found.push(buffer.split_to(length).to_vec());
                }
            }
            assert_eq!(found, frames, "in steps of {step}");
        }
        let deep = "*1\r\n".repeat(100_000);
        let endless = "+".repeat(MAX_LINE + 2);
        for broken in ["$x\r\n", "$999999999999\r\n", &deep, &endless] {
            assert!(Scan::default().frame(broken.as_bytes()).is_err(), "{broken:.20}");
        }
        Ok(())
    }
}
