//! The listener: there, away, or there but deaf.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::{Accept, Core, connection};

const BACKLOG: u32 = 1024;

/// How long the connection that fills a deaf listener's queue may take.
const FILL: Duration = Duration::from_millis(200);

/// How often binding is tried again when the port is busy for a moment.
const BIND_TRIES: u32 = 50;

/// What there is of a listener.
#[derive(Debug)]
enum Door {
    Open(TcpListener),
    Shut,
    /// A listener whose queue is full of our own connections: the kernel drops what others send.
    Deaf {
        _listener: TcpListener,
        _fillers: Vec<TcpStream>,
    },
}

impl Door {
    fn accept(&self) -> Accept {
        match self {
            Self::Open(_) => Accept::Normal,
            Self::Shut => Accept::Refuse,
            Self::Deaf { .. } => Accept::Hang,
        }
    }

    async fn make(accept: Accept, address: SocketAddr) -> io::Result<Self> {
        Ok(match accept {
            Accept::Normal => Self::Open(listen(address, BACKLOG).await?),
            Accept::Refuse => Self::Shut,
            Accept::Hang => {
                let listener = listen(address, 0).await?;
                let mut fillers = Vec::new();
                // Until one does not get in: how many do is the kernel's affair.
                while let Ok(Ok(filler)) =
                    tokio::time::timeout(FILL, TcpStream::connect(address)).await
                {
                    fillers.push(filler);
                    if fillers.len() > 16 {
                        break;
                    }
                }
                Self::Deaf { _listener: listener, _fillers: fillers }
            }
        })
    }
}

/// Runs until the proxy is dropped; its connections end with it.
pub(super) async fn run(core: Arc<Core>) {
    let mut faults = core.faults.subscribe();
    let mut connections = JoinSet::new();
    let mut door = Door::Shut;
    loop {
        let (number, accept) = {
            let current = faults.borrow_and_update();
            (current.0, current.1.accept)
        };
        if door.accept() != accept {
            // The port must be free before it is bound again.
            drop(std::mem::replace(&mut door, Door::Shut));
            match Door::make(accept, core.address).await {
                Ok(made) => door = made,
                Err(error) => {
                    core.accepted
                        .send_modify(|accepted| *accepted = Err(format!("cannot listen: {error}")));
                    return;
                }
            }
        }
        core.accepted.send_modify(|accepted| *accepted = Ok(number));
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return },
            accepted = accept_one(&door) => if let Ok(client) = accepted {
                connections.spawn(connection::run(Arc::clone(&core), client));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept_one(door: &Door) -> io::Result<TcpStream> {
    match door {
        Door::Open(listener) => listener.accept().await.map(|(stream, _)| stream),
        Door::Shut | Door::Deaf { .. } => std::future::pending().await,
    }
}

async fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        let listening = TcpSocket::new_v4().and_then(|socket| {
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(backlog)
        });
        match listening {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => tries += 1,
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
