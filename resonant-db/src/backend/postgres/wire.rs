//! The stream under a session: a socket, with TLS where it is wanted and to be had.
//!
//! The negotiation of TLS is done here and not by the driver, so that the tap can listen above the encryption and all six
//! of libpq's modes are what they are in libpq.

use std::fmt;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::settings::Settings;
#[cfg(feature = "tls")]
use super::tls;

/// The request for TLS: its length and the number that stands for it.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What TLS is to be on one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    None,
    /// If the server has it.
    #[cfg(feature = "tls")]
    Offered,
    #[cfg(feature = "tls")]
    Required,
}

/// A way to a server: what the session took, and what a request to cancel takes again.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) address: Address,
    /// The name the certificate must have.
    #[cfg(feature = "tls")]
    pub(super) host: String,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<tls::Connector>,
}

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum WireFault {
    Io(io::Error),
    #[cfg(feature = "tls")]
    Tls(String),
    /// TLS was required and the server has none.
    #[cfg(feature = "tls")]
    NoTls,
}

impl From<io::Error> for WireFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Route {
    /// Opens a stream. Answers it and whether it is encrypted.
    pub(super) async fn open(
        &self,
        settings: &Settings,
        cover: Cover,
    ) -> Result<(Wire, bool), WireFault> {
        let socket = match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                tune(&stream, settings)?;
                Socket::Tcp(stream)
            }
            #[cfg(unix)]
            // Nobody listens in on a socket of the file system.
            Address::Unix(path) => {
                return Ok((Wire::Plain(Socket::Unix(UnixStream::connect(path).await?)), false));
            }
        };
        self.cover(socket, settings, cover).await
    }

    #[cfg(not(feature = "tls"))]
    async fn cover(
        &self,
        socket: Socket,
        _: &Settings,
        cover: Cover,
    ) -> Result<(Wire, bool), WireFault> {
        match cover {
            Cover::None => Ok((Wire::Plain(socket), false)),
        }
    }

    #[cfg(feature = "tls")]
    async fn cover(
        &self,
        mut socket: Socket,
        settings: &Settings,
        cover: Cover,
    ) -> Result<(Wire, bool), WireFault> {
        let connector = match (&self.tls, cover) {
            (_, Cover::None) | (None, Cover::Offered) => return Ok((Wire::Plain(socket), false)),
            (None, Cover::Required) => return Err(WireFault::NoTls),
            (Some(connector), _) => connector,
        };
        if !settings.ssl_direct {
            socket.write_all(SSL_REQUEST).await?;
            let mut answer = [0];
            socket.read_exact(&mut answer).await?;
            match (answer, cover) {
                ([b'S'], _) => {}
                (_, Cover::Required) => return Err(WireFault::NoTls),
                ([b'N'], _) => return Ok((Wire::Plain(socket), false)),
                _ => {
                    return Err(WireFault::Tls(
                        "the server answered the request for TLS with an error".into(),
                    ));
                }
            }
        }
        let stream = connector.connect(&self.host, socket).await.map_err(WireFault::Tls)?;
        Ok((Wire::Tls(Box::new(stream)), true))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("address", &self.address).finish_non_exhaustive()
    }
}

fn tune(stream: &TcpStream, settings: &Settings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let config = &settings.config;
    if config.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
        #[cfg(any(
            target_os = "linux",
            target_os = "macos",
            target_os = "windows",
            target_os = "freebsd"
        ))]
        {
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
        }
        #[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
        {
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
        }
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(settings.tcp_user_timeout)?;
    Ok(())
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// A stream to a server.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(Socket),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Wire {
    /// What binds a login to this very stream.
    fn binding(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => tls::end_point(stream.get_ref().1),
        }
    }
}

macro_rules! delegate {
    ($type:ident { $($(#[$attribute:meta])* $variant:ident),* }) => {
        impl AsyncRead for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_read(cx, buffer),)*
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_write(cx, bytes),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_flush(cx),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$attribute])* Self::$variant(stream) => Pin::new(stream).poll_shutdown(cx),)*
                }
            }
        }
    };
}

delegate!(Socket {
    Tcp,
    #[cfg(unix)]
    Unix
});
delegate!(Wire {
    Plain,
    #[cfg(feature = "tls")]
    Tls
});

/// Tells the driver that the stream is as it should be: what TLS there is to be is there already.
#[derive(Debug)]
pub(super) struct Ready {
    binding: Option<Vec<u8>>,
}

impl Ready {
    pub(super) fn of(wire: &Wire) -> Self {
        Self { binding: wire.binding() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for Ready {
    type Stream = Bound<S>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Bound<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(Bound { stream, binding: self.binding }))
    }
}

/// A stream with what binds a login to it.
#[derive(Debug)]
pub(super) struct Bound<S> {
    stream: S,
    binding: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Bound<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(end_point) => ChannelBinding::tls_server_end_point(end_point.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A stream whose sending half is not closed: a pooler takes that for somebody who has changed his mind, and drops the
/// request to cancel.
struct HalfOpen<'a>(&'a mut Wire);

impl AsyncRead for HalfOpen<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HalfOpen<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Whether anybody answers at an address, were it with a refusal: only silence for all of the time is none.
pub(super) async fn answers(address: &Address, within: Duration) -> bool {
    let Address::Tcp(address) = address else { return true };
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // SSLRequest: every server and pooler answers it with one byte, whoever asks.
        stream.write_all(SSL_REQUEST).await?;
        stream.read(&mut [0]).await
    };
    // Whoever refuses is there.
    timeout(within, ask).await.is_ok()
}

/// Sends a request to cancel down a stream of its own and waits until the server has closed it: by then the signal is
/// under way, and cannot hit a statement that is sent later.
pub(super) async fn cancel(
    token: &tokio_postgres::CancelToken,
    route: &Route,
    settings: &Settings,
    cover: Cover,
) -> Result<(), WireFault> {
    let (mut wire, _) = route.open(settings, cover).await?;
    let ready = Ready::of(&wire);
    token
        .cancel_query_raw(HalfOpen(&mut wire), ready)
        .await
        .map_err(|error| WireFault::Io(io::Error::other(error.to_string())))?;
    let mut rest = [0; 16];
    while !matches!(wire.read(&mut rest).await, Ok(0) | Err(_)) {}
    Ok(())
}
