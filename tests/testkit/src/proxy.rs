//! A TCP proxy that breaks connections in the ways networks do.
//!
//! It stands in front of anything that speaks TCP. What is changed takes effect at once, on live connections too.
//!
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use std::time::Duration;
//! use resonant_testkit::{FaultProxy, PostgresCluster};
//!
//! let pg = PostgresCluster::builder().start().await?;
//! let proxy = FaultProxy::start(pg.primary().address()).await?;
//! let url = pg.primary().url_through(&proxy);      // the code under test connects here
//!
//! proxy.delay(Duration::from_millis(20)).await?;   // 40 ms more per round trip
//! proxy.black_hole().await?;                       // nothing arrives any more, and nobody is told
//! proxy.heal().await?;                             // what was held arrives now
//! proxy.cut().await?;                              // every connection is reset
//! assert!(proxy.stats().round_trips > 0);
//! # Ok(()) }
//! ```
//!
//! A network does not lose bytes of a TCP connection: it delays them until the sender gives up. So a blocked direction
//! *holds* bytes, and healing lets them go, as retransmission would. The proxy works on a thread of its own and can be shared
//! by tests with runtimes of their own.

mod accept;
mod connection;
mod faults;
mod lane;
mod pace;
mod stats;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use self::faults::{Accept, Direction, Faults, LaneFaults};
use self::stats::Counters;
pub use self::stats::ProxyStats;
use crate::background;
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::wait::{ANSWER, Wait};

/// A TCP proxy in front of one address. See the [module](self).
///
/// A cheap handle: clones are the same proxy. It ends, and resets its connections, with the last of them.
#[derive(Clone, Debug)]
pub struct FaultProxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    task: AbortHandle,
    port: Port,
}

/// What the proxy's tasks share with its handles.
#[derive(Debug)]
struct Core {
    address: SocketAddr,
    /// The setting in force and its number.
    faults: watch::Sender<(u64, Faults)>,
    /// The number of the last setting the listener has acted on, or why it could not.
    accepted: watch::Sender<Result<u64, String>>,
    /// Connections with a number below this are to be reset.
    cut_below: watch::Sender<u64>,
    upstream: watch::Sender<SocketAddr>,
    counters: Counters,
}

impl FaultProxy {
    /// Starts a proxy in front of an address.
    ///
    /// # Errors
    /// `Io` when it cannot listen.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let port = Port::claim()?;
        let core = Arc::new(Core {
            address: (Ipv4Addr::LOCALHOST, port.number()).into(),
            faults: watch::Sender::new((1, Faults::default())),
            accepted: watch::Sender::new(Ok(0)),
            cut_below: watch::Sender::new(0),
            upstream: watch::Sender::new(upstream),
            counters: Counters::default(),
        });
        let task = background::handle()?.spawn(accept::run(Arc::clone(&core))).abort_handle();
        let proxy = Self { inner: Arc::new(Inner { core, task, port }) };
        proxy.in_force(1).await?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.inner.core.address
    }

    /// The port of [`address`](Self::address).
    pub fn port(&self) -> u16 {
        self.inner.port.number()
    }

    /// Where new connections are taken to.
    pub fn upstream(&self) -> SocketAddr {
        *self.inner.core.upstream.borrow()
    }

    /// Takes new connections elsewhere from now on; live ones stay where they are.
    pub fn retarget(&self, upstream: SocketAddr) {
        self.inner.core.upstream.send_replace(upstream);
    }

    /// What is in force.
    pub fn faults(&self) -> Faults {
        self.inner.core.faults.borrow().1.clone()
    }

    /// Puts a whole set of faults in force, instead of those that are.
    ///
    /// # Errors
    /// `Io` when it cannot listen again after it refused.
    pub async fn apply(&self, faults: Faults) -> Result<()> {
        self.change(|current| *current = faults).await
    }

    /// Ends every fault. Held bytes go on their way; half-open connections are reset.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply), as with all that follow.
    pub async fn heal(&self) -> Result<()> {
        self.apply(Faults::default()).await
    }

    /// Delays bytes by this much in each direction.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn delay(&self, delay: Duration) -> Result<()> {
        self.change(|faults| faults.both(|lane| lane.delay = delay)).await
    }

    /// Adds a delay of up to this much at random in each direction; the order of bytes stays.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn jitter(&self, jitter: Duration) -> Result<()> {
        self.change(|faults| faults.both(|lane| lane.jitter = jitter)).await
    }

    /// Lets so many bytes a second through, per connection and direction; at least 1.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn bandwidth(&self, bytes_per_second: u64) -> Result<()> {
        self.change(|faults| {
            faults.both(|lane| lane.bytes_per_second = Some(bytes_per_second.max(1)))
        })
        .await
    }

    /// Resets each connection after so many more bytes in one direction; what came before arrives.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn cut_after(&self, direction: Direction, bytes: u64) -> Result<()> {
        self.change(|faults| faults.lane_mut(direction).cut_after = Some(bytes)).await
    }

    /// Holds everything in both directions. New connections are accepted, as a frozen host's kernel would, and hear nothing.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn black_hole(&self) -> Result<()> {
        self.change(|faults| faults.both(|lane| lane.blocked = true)).await
    }

    /// Lets bytes through in one direction only.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn one_way(&self, open: Direction) -> Result<()> {
        self.change(|faults| {
            faults.lane_mut(open).blocked = false;
            faults.lane_mut(open.other()).blocked = true;
        })
        .await
    }

    /// Closes the server's side of every connection and tells the client nothing: it believes it is connected. New
    /// connections are like that from the start.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn half_open(&self) -> Result<()> {
        self.change(|faults| faults.half_open = true).await
    }

    /// Refuses new connections; live ones go on.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn refuse(&self) -> Result<()> {
        self.change(|faults| faults.accept = Accept::Refuse).await
    }

    /// Lets new connections hang before they are made, as when a host is switched off; live ones go on. On systems other than
    /// Linux the kernel may accept them all the same; then nothing answers.
    ///
    /// # Errors
    /// See [`apply`](Self::apply).
    pub async fn hang_connects(&self) -> Result<()> {
        self.change(|faults| faults.accept = Accept::Hang).await
    }

    /// Resets every live connection, and returns when that is done. New ones are welcome.
    ///
    /// # Errors
    /// `TimedOut` when one is still there after 30 seconds.
    pub async fn cut(&self) -> Result<()> {
        let core = &self.inner.core;
        let below = core.counters.next_number();
        core.cut_below.send_modify(|cut| *cut = below.max(*cut));
        let mut wait = Wait::new("cutting connections", ANSWER);
        while core.counters.has_below(below) {
            wait.pause("connections still there").await?;
        }
        Ok(())
    }

    /// What has passed so far.
    pub fn stats(&self) -> ProxyStats {
        self.inner.core.counters.snapshot()
    }

    /// Waits until the counters satisfy a condition.
    ///
    /// # Errors
    /// `TimedOut` after 30 seconds.
    pub async fn until(&self, mut condition: impl FnMut(&ProxyStats) -> bool) -> Result<()> {
        let mut wait = Wait::new("the proxy's counters reaching a state", ANSWER);
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return Ok(());
            }
            wait.pause(format!("{stats:?}")).await?;
        }
    }

    async fn change(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut number = 0;
        self.inner.core.faults.send_modify(|(current, faults)| {
            change(faults);
            *current += 1;
            number = *current;
        });
        self.in_force(number).await
    }

    /// Waits until the listener has acted on a setting.
    async fn in_force(&self, number: u64) -> Result<()> {
        let mut accepted = self.inner.core.accepted.subscribe();
        let seen = accepted
            .wait_for(|accepted| accepted.as_ref().map_or(true, |seen| *seen >= number))
            .await;
        match seen.map(|seen| seen.clone()) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(why)) => {
                Err(Error::new(ErrorKind::Io, format!("the proxy at {}: {why}", self.address())))
            }
            Err(_) => Err(Error::new(ErrorKind::Io, "the proxy has ended".to_owned())),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}
