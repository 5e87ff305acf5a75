//! One connection: made when the network lets it, carried by two lanes, ended by either side, a cut, or the proxy's end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::lane::{self, End};
use super::{Core, Direction, Faults};

/// Why a connection stops being carried.
#[derive(Debug)]
enum Stop {
    /// Both sides have said all they had to say.
    Done,
    /// It is to be reset.
    Reset,
    /// The server's side goes; the client is not told.
    HalfOpen,
}

/// Counts a connection as open until it is dropped, also when its task is aborted.
struct Open<'a> {
    core: &'a Core,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.core.counters.close(self.number);
    }
}

pub(super) async fn run(core: Arc<Core>, client: TcpStream) {
    let open = Open { core: &core, number: core.counters.open() };
    let mut faults = core.faults.subscribe();
    let mut cuts = core.cut_below.subscribe();
    let number = open.number;
    // Reset unless it ends well: also when the proxy is dropped in the middle.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let work = async {
        let reachable =
            faults.wait_for(|(_, faults)| faults.half_open || !faults.to_server.blocked).await;
        let half_open = reachable.map(|current| current.1.half_open).unwrap_or(true);
        if !half_open {
            let upstream = *core.upstream.borrow();
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            let _ = server.set_zero_linger();
            let _ = server.set_nodelay(true);
            let client = Arc::new(client);
            match carry(&core, &client, Arc::new(server), &mut faults).await {
                Stop::Done | Stop::Reset => return,
                Stop::HalfOpen => {
                    pretend(&client, &mut faults).await;
                    return;
                }
            }
        }
        pretend(&client, &mut faults).await;
    };
    tokio::select! {
        () = work => {}
        _ = cuts.wait_for(|below| number < *below) => {}
    }
}

/// Carries bytes both ways until there is a reason to stop. The server's socket is gone on return.
async fn carry(
    core: &Arc<Core>,
    client: &Arc<TcpStream>,
    server: Arc<TcpStream>,
    faults: &mut watch::Receiver<(u64, Faults)>,
) -> Stop {
    let asked = Arc::new(AtomicBool::new(false));
    let mut lanes = JoinSet::new();
    for (direction, from, to) in
        [(Direction::ToServer, client, &server), (Direction::ToClient, &server, client)]
    {
        lanes.spawn(lane::run(
            Arc::clone(core),
            direction,
            Arc::clone(from),
            Arc::clone(to),
            Arc::clone(&asked),
        ));
    }
    let mut finished = 0;
    let stop = loop {
        tokio::select! {
            half_open = faults.wait_for(|(_, faults)| faults.half_open) => match half_open {
                Ok(_) => break Stop::HalfOpen,
                Err(_) => break Stop::Reset,
            },
            ended = lanes.join_next() => match ended {
                Some(Ok(End::Finished)) => {
                    finished += 1;
                    if finished == 2 {
                        break Stop::Done;
                    }
                }
                Some(Ok(End::Reset) | Err(_)) | None => break Stop::Reset,
            },
        }
    };
    lanes.shutdown().await;
    if matches!(stop, Stop::Done | Stop::HalfOpen) {
        lane::close_in_order(&server);
    }
    if matches!(stop, Stop::Done) {
        lane::close_in_order(client);
    }
    stop
}

/// Keeps the client's side alive, swallowing what it sends, until it gives up or the network heals: then the truth, a reset.
async fn pretend(client: &TcpStream, faults: &mut watch::Receiver<(u64, Faults)>) {
    let mut swallowed = [0; 4096];
    let swallow = async {
        loop {
            match lane::read(client, &mut swallowed).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    tokio::select! {
        () = swallow => {}
        _ = faults.wait_for(|(_, faults)| !faults.half_open) => {}
    }
}
