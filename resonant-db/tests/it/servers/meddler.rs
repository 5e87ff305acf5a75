//! A man in the middle: changes what is asked, holds back what is answered.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

type Change = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;
type Hold = Arc<dyn Fn(&[u8]) -> Option<BoxFuture<'static, ()>> + Send + Sync>;

/// Stands between a client and a server until it is dropped.
pub(super) struct Meddler {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Meddler {
    /// Hands what is asked to `change`, and each piece of an answer on only after what `hold` says is over.
    pub(super) async fn start(
        to: SocketAddr,
        change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static,
        hold: impl Fn(&[u8]) -> Option<BoxFuture<'static, ()>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (change, hold): (Change, Hold) = (Arc::new(change), Arc::new(hold));
        let task = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((here, _)) = listener.accept().await {
                links.spawn(link(here, to, Arc::clone(&change), Arc::clone(&hold)));
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }

    /// The URL of a server, through here.
    pub(super) fn url(&self, url: &str, of: SocketAddr) -> String {
        let here = self.address.to_string();
        url.replace(&of.to_string(), &here).replace(&format!("localhost:{}", of.port()), &here)
    }
}

async fn link(here: TcpStream, to: SocketAddr, change: Change, hold: Hold) {
    let Ok(there) = TcpStream::connect(to).await else { return };
    let (mut asking, mut answered) = here.into_split();
    let (mut answering, mut asked) = there.into_split();
    let ask = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = asking.read(&mut bytes).await {
            let mut piece = bytes[..read].to_vec();
            change(&mut piece);
            if asked.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = asked.shutdown().await;
    };
    let answer = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = answering.read(&mut bytes).await {
            if let Some(wait) = hold(&bytes[..read]) {
                wait.await;
            }
            if answered.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
        let _ = answered.shutdown().await;
    };
    futures::join!(ask, answer);
}

/// Whether bytes hold a text.
pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Puts a text in the place of another one as long.
pub(super) fn swap(bytes: &mut [u8], old: &str, new: &str) {
    assert_eq!(old.len(), new.len(), "the length stays");
    if let Some(at) = bytes.windows(old.len()).position(|part| part == old.as_bytes()) {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
}
