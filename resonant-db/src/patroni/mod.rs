//! Following what [Patroni](https://patroni.readthedocs.io) says of its cluster, by its REST interface.
//!
//! ```no_run
//! # fn example(db: resonant_db::Database) -> resonant_db::Result<()> {
//! use resonant_db::patroni::Patroni;
//! use std::time::Duration;
//!
//! let patroni = Patroni::new(
//!     ["http://10.0.0.1:8008", "http://10.0.0.2:8008", "http://10.0.0.3:8008"],
//!     "postgresql://app:secret@patroni/orders",
//! )?;
//! db.follow_with(Duration::from_millis(250), move || patroni.topology());
//! # Ok(()) }
//! ```
//!
//! All the addresses are asked at once and the first good answer is enough, so a member that is down, or hangs, delays
//! nothing. Members become nodes: a new one gets pools of its own, one that has left is asked no more, one with the tag
//! `noloadbalance` answers no reads. The leader takes the writes while it runs.
//!
//! # What is not believed
//!
//! A leader on a lower timeline than one that was seen before: the answer comes from a member that is cut off. Nor a new
//! leader that does not say its timeline: until it does, nobody takes the writes. A leader of a standby cluster takes none.
//!
//! Speaks plain HTTP. Where Patroni's interface wants TLS or a password, fetch `/cluster` yourself and give the text to
//! [`Patroni::read`].

mod cluster;
mod http;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use resonant_common::join::Topology;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Error, ErrorKind, Result};

use self::cluster::{Cluster, View};
use self::http::Endpoint;

/// How long one member may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// How long others are waited for once one has answered, as they may know more.
const OTHERS: Duration = Duration::from_millis(25);

/// Asks Patroni for the topology of its cluster. Clones share what was seen.
#[derive(Clone)]
pub struct Patroni {
    inner: Arc<Inner>,
}

struct Inner {
    endpoints: Vec<Endpoint>,
    url: NodeUrl,
    view: Mutex<View>,
}

impl Patroni {
    /// `endpoints` are the members' REST addresses, such as `http://10.0.0.1:8008`. `url` is how the nodes are connected to:
    /// its host and port are replaced by each member's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is no address, one is none, or `url` names no host.
    pub fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        url: impl Into<String>,
    ) -> Result<Self> {
        let endpoints: Result<Vec<_>> =
            endpoints.into_iter().map(|text| Endpoint::parse(text.as_ref())).collect();
        let endpoints = endpoints?;
        if endpoints.is_empty() {
            let message = "an address of Patroni's REST interface is needed: http://10.0.0.1:8008";
            return Err(Error::new(ErrorKind::Config, "patroni", message));
        }
        let url = NodeUrl::parse(&url.into())?;
        Ok(Self { inner: Arc::new(Inner { endpoints, url, view: Mutex::default() }) })
    }

    /// Asks for the topology. Its epoch rises with each change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when no member answers within half a second, or what they say is older than what was seen
    /// before.
    pub fn topology(&self) -> impl Future<Output = Result<Topology>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let clusters = inner.ask().await?;
            let mut last = None;
            for cluster in clusters {
                match inner.judge(&cluster) {
                    Ok(topology) => return Ok(topology),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| {
                Error::new(ErrorKind::Unavailable, "patroni", "nobody answered")
            }))
        }
    }

    /// The topology that the text of an answer to `/cluster` tells, for those who fetch it themselves.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when it is no such answer, or older than what was seen before.
    pub fn read(&self, body: &str) -> Result<Topology> {
        self.inner.judge(&Cluster::parse(body)?)
    }
}

impl Inner {
    /// What the members say, those first whose leader has the newest history.
    async fn ask(&self) -> Result<Vec<Cluster>> {
        let asked = self.endpoints.iter().map(|endpoint| async move {
            match timeout(ANSWER, endpoint.get("/cluster")).await {
                Ok(Ok(body)) => Cluster::parse(&body),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(endpoint.failed(format_args!("no answer within {ANSWER:?}"))),
            }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut clusters, mut last) = (Vec::new(), None);
        let mut deadline = Instant::now() + ANSWER * 2;
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            match answer {
                Ok(cluster) => {
                    clusters.push(cluster);
                    deadline = deadline.min(Instant::now() + OTHERS);
                }
                Err(error) => last = Some(error),
            }
        }
        clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.timeline()));
        match (clusters.is_empty(), last) {
            (true, Some(error)) => Err(error),
            _ => Ok(clusters),
        }
    }

    fn judge(&self, cluster: &Cluster) -> Result<Topology> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.judge(cluster, |host, port| self.url.with(host, port))
    }
}

impl fmt::Debug for Patroni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patroni").field("endpoints", &self.inner.endpoints).finish_non_exhaustive()
    }
}

/// A URL whose host and port are filled in.
struct NodeUrl {
    before: String,
    after: String,
}

impl NodeUrl {
    fn parse(url: &str) -> Result<Self> {
        let wrong = || {
            let message = "the URL of the nodes must look like postgresql://user@any-host/database";
            Error::new(ErrorKind::Config, "patroni", message)
        };
        let start = url.find("://").ok_or_else(wrong)? + 3;
        let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
        let authority = &url[start..end];
        let user = authority.rfind('@').map_or(0, |at| at + 1);
        if authority.len() == user {
            return Err(wrong());
        }
        Ok(Self { before: url[..start + user].into(), after: url[end..].into() })
    }

    fn with(&self, host: &str, port: u16) -> String {
        let Self { before, after } = self;
        match host.contains(':') && !host.starts_with('[') {
            true => format!("{before}[{host}]:{port}{after}"),
            false => format!("{before}{host}:{port}{after}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_keeps_all_but_host_and_port() -> Result<()> {
        let url = NodeUrl::parse("postgresql://app:p%40ss@any:1/orders?sslmode=require")?;
        let expected = "postgresql://app:p%40ss@10.0.0.1:5433/orders?sslmode=require";
        assert_eq!(url.with("10.0.0.1", 5433), expected);
        let url = NodeUrl::parse("postgresql://any?application_name=x")?;
        assert_eq!(url.with("fe80::1", 5432), "postgresql://[fe80::1]:5432?application_name=x");
        for wrong in ["any", "postgresql://", "postgresql://app@/orders"] {
            assert!(NodeUrl::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Patroni::new(Vec::<&str>::new(), "postgresql://any/x").is_err());
        let patroni = Patroni::new(["http://10.0.0.1:8008"], "postgresql://a:s3cr3t@any/x")?;
        assert!(!format!("{patroni:?}").contains("s3cr3t"));
        Ok(())
    }
}
