//! One direction of one connection: a reader that notes when bytes came, a bounded queue, and a writer that hands them on when
//! the faults in force allow it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;
use super::{Core, Direction, Faults, LaneFaults};

const CHUNK: usize = 16 * 1024;

/// Chunks on their way at most; beyond that the sender is slowed down, as by a full window.
const IN_FLIGHT: usize = 64;

/// How a direction ended.
#[derive(Debug)]
pub(super) enum End {
    /// The sender closed, and that was handed on.
    Finished,
    /// It broke, or was to be broken.
    Reset,
}

#[derive(Debug)]
struct Parcel {
    came: Instant,
    /// This parcel's share of the jitter, from 0 to 1.
    luck: f64,
    load: Load,
}

#[derive(Debug)]
enum Load {
    Bytes(Vec<u8>),
    Close,
    Reset,
}

pub(super) async fn run(
    core: Arc<Core>,
    direction: Direction,
    from: Arc<TcpStream>,
    to: Arc<TcpStream>,
    asked: Arc<AtomicBool>,
) -> End {
    let (queue, parcels) = mpsc::channel(IN_FLIGHT);
    let writer = Writer {
        faults: core.faults.subscribe(),
        direction,
        pace: Pace::new(Instant::now()),
        passed: 0,
        cut: None,
    };
    tokio::select! {
        end = writer.run(parcels, &core, &to, &asked) => end,
        never = receive(&from, queue) => match never {},
    }
}

/// Reads until the sender ends, and then waits for the writer to notice.
async fn receive(from: &TcpStream, queue: mpsc::Sender<Parcel>) -> std::convert::Infallible {
    let mut luck = Luck(0x9E37_79B9_7F4A_7C15);
    let mut buffer = vec![0; CHUNK];
    loop {
        let load = match read(from, &mut buffer).await {
            Ok(0) => Load::Close,
            Ok(count) => Load::Bytes(buffer[..count].to_vec()),
            Err(_) => Load::Reset,
        };
        let last = !matches!(load, Load::Bytes(_));
        let sent = queue.send(Parcel { came: Instant::now(), luck: luck.next(), load }).await;
        if last || sent.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Writer {
    faults: watch::Receiver<(u64, Faults)>,
    direction: Direction,
    pace: Pace,
    passed: u64,
    /// The limit in force and the count at which it strikes.
    cut: Option<(u64, u64)>,
}

impl Writer {
    async fn run(
        mut self,
        mut parcels: mpsc::Receiver<Parcel>,
        core: &Core,
        to: &TcpStream,
        asked: &AtomicBool,
    ) -> End {
        while let Some(parcel) = parcels.recv().await {
            let mut rest = match &parcel.load {
                Load::Bytes(bytes) => bytes.as_slice(),
                Load::Close | Load::Reset => &[],
            };
            loop {
                let allowance = self.turn(&parcel, rest.len() as u64).await;
                match &parcel.load {
                    Load::Close => {
                        finish_writing(to);
                        return End::Finished;
                    }
                    Load::Reset => return End::Reset,
                    Load::Bytes(_) => {}
                }
                let (now, later) = rest.split_at(rest.len().min(allowance));
                // Counted first, so that whoever has the answer finds it in the counters.
                core.counters.pass(self.direction, now.len(), asked);
                if write(to, now).await.is_err() {
                    return End::Reset;
                }
                self.passed += now.len() as u64;
                if self.cut.is_some_and(|(_, at)| self.passed >= at) {
                    return End::Reset;
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
        }
        End::Reset
    }

    /// Waits until some of this parcel may go, and says how many bytes. Looks again whenever the faults change.
    async fn turn(&mut self, parcel: &Parcel, rest: u64) -> usize {
        loop {
            let lane = self.faults.borrow_and_update().1.lane(self.direction).clone();
            self.note_cut(&lane);
            let now = Instant::now();
            let due = (parcel.came + lane.delay + lane.jitter.mul_f64(parcel.luck)).max(match lane
                .bytes_per_second
            {
                Some(_) => self.pace.due(),
                None => now,
            });
            if !lane.blocked && due <= now {
                let slice = lane.bytes_per_second.map_or(CHUNK as u64, Pace::slice);
                let left =
                    self.cut.map_or(u64::MAX, |(_, at)| at.saturating_sub(self.passed).max(1));
                let bytes = slice.min(left).min(CHUNK as u64).min(rest);
                if let Some(rate) = lane.bytes_per_second {
                    self.pace.take(now, bytes, rate);
                }
                return bytes as usize;
            }
            tokio::select! {
                changed = self.faults.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = sleep_until(due), if !lane.blocked => {}
            }
        }
    }

    /// A limit counts from when this connection first sees it.
    fn note_cut(&mut self, lane: &LaneFaults) {
        match (lane.cut_after, self.cut) {
            (None, _) => self.cut = None,
            (Some(limit), Some((known, _))) if limit == known => {}
            (Some(limit), _) => self.cut = Some((limit, self.passed + limit)),
        }
    }
}

pub(super) async fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Hands the end of a direction on: the other side reads to the end and may still write.
fn finish_writing(to: &TcpStream) {
    let _ = rustix::net::shutdown(to, rustix::net::Shutdown::Write);
}

/// Lets a socket close with everything written delivered, instead of a reset.
pub(super) fn close_in_order(socket: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, None);
    finish_writing(socket);
}

/// A small generator of chance; the same for every connection, so that runs are alike.
struct Luck(u64);

impl Luck {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
