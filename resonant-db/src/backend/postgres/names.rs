//! Following the address behind the primary's name.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resonant_common::join::{Node, Topology};
use tokio::time::timeout;
use tokio_postgres::config::Host;

use crate::backend::target::name_of;
use crate::{Error, ErrorKind, Result};

use super::resolver::Resolver;
use super::settings::Settings;

/// How long the question behind which address a name is may take.
const ANSWER: Duration = Duration::from_millis(500);

/// Follows a primary that is known by a name which moves, as managed services give it out: when the name's address
/// changes, new calls go to the new one at once, and those that wait for the old one move on.
///
/// Without it, too, every new connection asks for the name anew, so a primary that died is found again as soon as its name has
/// moved. This is for one that hangs: connections to it are not waited for.
///
/// ```no_run
/// # fn example(db: resonant_db::Database) -> resonant_db::Result<()> {
/// use resonant_db::backend::postgres::Names;
/// use std::time::Duration;
///
/// let names = Names::new("postgresql://app@primary.example/orders")?;
/// db.follow_with(Duration::from_millis(500), move || names.topology());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Names {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Parts {
    url: String,
    host: String,
    port: u16,
    replicas: Vec<String>,
    resolver: Resolver,
}

struct Inner {
    parts: Parts,
    seen: Mutex<Seen>,
}

/// What was seen of the name so far. Pure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// What a plain connection would have found at first.
    first: Option<IpAddr>,
    now: Option<IpAddr>,
    epoch: u64,
}

impl Seen {
    /// Takes what the name means now: as long as the present address is among them, nothing has changed.
    fn take(&mut self, found: &[IpAddr]) {
        let stays = self.now.is_some_and(|now| found.contains(&now));
        if let (false, Some(new)) = (stays, found.first()) {
            self.first.get_or_insert(*new);
            self.now = Some(*new);
            self.epoch += 1;
        }
    }
}

impl Names {
    /// Follows the host of this URL, which is that of the primary.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when it is no URL of one host with a name.
    pub fn new(url: impl Into<String>) -> Result<Self> {
        let url = url.into();
        let settings = Settings::parse(&url, |name| std::env::var(name).ok())?;
        let host = match (settings.config.get_hosts(), settings.config.get_hostaddrs()) {
            ([Host::Tcp(host)], []) => host.clone(),
            _ => {
                let message = format!("{}: a URL of one host with a name is needed", name_of(&url));
                return Err(Error::new(ErrorKind::Config, "names", message));
            }
        };
        let port = settings.port(0);
        let parts = Parts { url, host, port, replicas: Vec::new(), resolver: Resolver::default() };
        Ok(Self::made(parts))
    }

    fn made(parts: Parts) -> Self {
        Self { inner: Arc::new(Inner { parts, seen: Mutex::default() }) }
    }

    /// The replicas' URLs, which stay as they are: a topology that is followed says of all nodes which there are.
    #[must_use]
    pub fn replicas<U: Into<String>>(self, urls: impl IntoIterator<Item = U>) -> Self {
        let replicas = urls.into_iter().map(Into::into).collect();
        Self::made(Parts { replicas, ..self.inner.parts.clone() })
    }

    /// Who knows the addresses, instead of the system.
    #[must_use]
    pub fn resolver(self, resolver: Resolver) -> Self {
        Self::made(Parts { resolver, ..self.inner.parts.clone() })
    }

    /// Asks for the name. The epoch rises when its address is another one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when it has none now, or nobody answers within half a second.
    pub fn topology(&self) -> impl Future<Output = Result<Topology>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let Parts { host, port, resolver, .. } = &inner.parts;
            let failed = |cause: &dyn fmt::Display| {
                let message = format!("the name {host:?} cannot be resolved ({cause})");
                Error::new(ErrorKind::Unavailable, "names", message)
            };
            let found = match timeout(ANSWER, resolver.resolve(host, *port)).await {
                Ok(Ok(found)) if found.is_empty() => return Err(failed(&"it has no address")),
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Err(failed(&error)),
                Err(_) => return Err(failed(&format_args!("no answer within {ANSWER:?}"))),
            };
            let found: Vec<IpAddr> = found.iter().map(|address| address.ip()).collect();
            Ok(inner.take(&found))
        }
    }
}

impl Inner {
    fn take(&self, found: &[IpAddr]) -> Topology {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take(found);
        let Seen { first, now, epoch } = *seen;
        let Parts { url, replicas, .. } = &self.parts;
        let (name, url) = match now.filter(|_| now != first) {
            None => (name_of(url).to_owned(), url.clone()),
            Some(address) => {
                let sign = if url.contains('?') { '&' } else { '?' };
                // The certificate is still that of the name.
                (format!("{} at {address}", name_of(url)), format!("{url}{sign}hostaddr={address}"))
            }
        };
        let mut nodes = vec![Node { name: name.clone(), url }];
        let replica = |url: &String| Node { name: name_of(url).to_owned(), url: url.clone() };
        nodes.extend(replicas.iter().map(replica));
        Topology { epoch, primary: Some(name), nodes }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("host", &self.inner.parts.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(last: [u8; N]) -> [IpAddr; N] {
        last.map(|last| IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn an_address_counts_until_the_name_has_left_it() -> Result<()> {
        let names = Names::new("postgresql://app:s3cr3t@primary.example/orders?sslmode=disable")?
            .replicas(["postgresql://replica/orders"]);
        let take = |found: &[IpAddr]| names.inner.take(found);
        let first = take(&addresses([1, 2]));
        assert_eq!((first.epoch, first.nodes.len()), (1, 2));
        assert!(!first.nodes[0].url.contains("hostaddr"), "a plain connection finds it");
        assert_eq!(take(&addresses([2, 1])).epoch, 1, "it is still one of them");
        let moved = take(&addresses([2]));
        assert_eq!(moved.epoch, 2);
        assert!(moved.nodes[0].url.ends_with("?sslmode=disable&hostaddr=10.0.0.2"));
        assert_eq!(moved.primary.as_deref(), Some("primary.example/orders at 10.0.0.2"));
        assert_eq!(take(&addresses([2])), moved);
        assert!(!format!("{names:?}").contains("s3cr3t"));
        for wrong in ["postgresql://a,b/x", "postgresql:///x?host=/tmp", "nonsense"] {
            assert!(Names::new(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
