//! What it costs to listen in on a connection, as every session of ours does.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use resonant_db::backend::postgres::tapped;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::peers::Place;
use super::reads::on_wire;
use crate::Outcome;
use crate::harness::{Case, now};
use crate::report::Report;

const BARE: &str = "tokio-postgres, bare";
const TASKS: usize = 64;

pub(super) fn run(runtime: &Runtime, place: &Place, sql: &str, report: &mut Report) -> Outcome {
    let wires = runtime.block_on(Wires::open(&place.url(), sql))?;
    Case::new("db.tap.vs_bare", "one row, 64 tasks, one connection with a tap", "reads")
        .goal_against(BARE, 0.97)
        .run("tokio-postgres, tapped", || Ok(on_wire(runtime, TASKS, &wires.tapped)))
        .run(BARE, || Ok(on_wire(runtime, TASKS, &wires.bare)))
        .measure(report)?;
    Case::of_time("db.tap.ns_per_message", "the tap, for each message of a read of one row")
        .run("tap", || Ok(runtime.block_on(listening())? - runtime.block_on(not_listening())?))
        .measure(report)
}

pub(super) type Wire = Arc<(Client, Statement)>;

/// The driver on a stream of its own, and on one with a tap.
struct Wires {
    tapped: Wire,
    bare: Wire,
}

impl Wires {
    async fn open(url: &str, sql: &str) -> Outcome<Self> {
        let (tap, bare) = (tapped(stream(url).await?), stream(url).await?);
        Ok(Self { tapped: wire(url, sql, tap).await?, bare: wire(url, sql, bare).await? })
    }
}

async fn stream(url: &str) -> Outcome<TcpStream> {
    let config: Config = url.parse()?;
    let host = match config.get_hosts() {
        [tokio_postgres::config::Host::Tcp(host), ..] => host.as_str(),
        _ => "127.0.0.1",
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn wire<S>(url: &str, sql: &str, stream: S) -> Outcome<Wire>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = url.parse::<Config>()?.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    let statement = client.prepare(sql).await?;
    Ok(Arc::new((client, statement)))
}

/// So many reads of one row at once, each with three messages there and four back, …
const AT_ONCE: usize = 16;
/// … so often in a piece, of so many pieces; the fastest one counts, as others are the machine's.
const TIMES: usize = 100;
const PIECES: usize = 50;

async fn listening() -> Outcome<f64> {
    played(tapped(Recorded::default())).await
}

async fn not_listening() -> Outcome<f64> {
    played(Recorded::default()).await
}

/// Nanoseconds for each message that goes through the stream.
async fn played(stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome<f64> {
    let mut stream = pin!(stream);
    let (mut request, mut answer) = (Vec::new(), [0; 8192]);
    for _ in 0..AT_ONCE {
        message(&mut request, b'B', &[0; 30]);
        message(&mut request, b'E', &[0; 5]);
        message(&mut request, b'S', &[]);
    }
    // The first message of a session has no kind.
    let opening = [0, 0, 0, 8, 0, 3, 0, 0];
    poll_fn(|cx| stream.as_mut().poll_write(cx, &opening)).await?;
    let mut fastest = f64::INFINITY;
    for _ in 0..PIECES {
        let started = now();
        for _ in 0..TIMES {
            poll_fn(|cx| stream.as_mut().poll_write(cx, &request)).await?;
            poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut answer);
                ready!(stream.as_mut().poll_read(cx, &mut buffer))?;
                std::hint::black_box(buffer.filled());
                Poll::Ready(io::Result::Ok(()))
            })
            .await?;
        }
        fastest = fastest.min(started.elapsed().as_secs_f64());
    }
    Ok(fastest * 1e9 / (TIMES * AT_ONCE * 7) as f64)
}

fn message(bytes: &mut Vec<u8>, kind: u8, body: &[u8]) {
    bytes.push(kind);
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
}

/// A server that has answered already: each read of the stream is as many answers as were asked for.
struct Recorded {
    answers: Vec<u8>,
}

impl Default for Recorded {
    fn default() -> Self {
        let mut answers = Vec::new();
        for _ in 0..AT_ONCE {
            message(&mut answers, b'2', &[]);
            message(&mut answers, b'D', &[0; 42]);
            message(&mut answers, b'C', b"SELECT 1\0");
            message(&mut answers, b'Z', b"I");
        }
        Self { answers }
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buffer.put_slice(&self.answers);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
