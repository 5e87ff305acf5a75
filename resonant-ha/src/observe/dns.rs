//! The topology by resolving a name again and again: what managed services and many failover tools move.

use std::net::SocketAddr;

use async_trait::async_trait;
use futures::future::BoxFuture;
use resonant_common::error::BoxError;
use resonant_common::join::Node;
use std::sync::Arc;

use super::{Sighting, TopologySource};
use crate::error::{Error, ErrorKind, Result};

type Resolve =
    dyn Fn(String, u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, BoxError>> + Send + Sync;

/// The writer's name is the primary, by the address it resolves to now; the readers' names are the others.
///
/// The URLs of the nodes hold the address instead of the name, so that a follower connects anew when the name moves. Where
/// TLS checks the server's name, that name is no longer in the URL.
#[derive(Clone)]
pub struct DnsSource {
    writer: Endpoint,
    readers: Vec<Endpoint>,
    resolve: Arc<Resolve>,
}

#[derive(Clone)]
struct Endpoint {
    url: String,
    host: String,
    port: u16,
}

impl DnsSource {
    /// A source that resolves the host of this URL, such as `postgresql://app@writer.internal:5432/app`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`]: the URL names no host and port.
    pub fn new(writer: impl Into<String>) -> Result<Self> {
        let resolve = |host: String, port: u16| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let found = tokio::net::lookup_host((host.as_str(), port)).await?;
                Ok(found.collect())
            })
        };
        Ok(Self {
            writer: Endpoint::of(writer.into())?,
            readers: Vec::new(),
            resolve: Arc::new(resolve),
        })
    }

    /// One more node, for reads.
    ///
    /// # Errors
    ///
    /// As [`new`](DnsSource::new).
    pub fn reader(mut self, url: impl Into<String>) -> Result<Self> {
        self.readers.push(Endpoint::of(url.into())?);
        Ok(self)
    }

    /// Resolves in another way than the system does.
    #[must_use]
    pub fn resolve_with<F, Fut, E>(mut self, resolve: F) -> Self
    where
        F: Fn(String, u16) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<SocketAddr>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.resolve = Arc::new(move |host, port| {
            let found = resolve(host, port);
            Box::pin(async move { found.await.map_err(Into::into) })
        });
        self
    }

    async fn node(&self, endpoint: &Endpoint) -> Result<Node> {
        let found = (self.resolve)(endpoint.host.clone(), endpoint.port).await;
        let mut found = found.map_err(|error| {
            let message = format!("{} cannot be resolved", endpoint.host);
            Error::new(ErrorKind::Unavailable, "observe", message).with_source(error)
        })?;
        found.sort_unstable();
        let Some(address) = found.first() else {
            let message = format!("{} resolves to nothing", endpoint.host);
            return Err(Error::new(ErrorKind::Unavailable, "observe", message));
        };
        Ok(Node { name: address.to_string(), url: endpoint.at(address) })
    }
}

impl std::fmt::Debug for DnsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsSource").field("writer", &self.writer.host).finish_non_exhaustive()
    }
}

#[async_trait]
impl TopologySource for DnsSource {
    async fn sight(&self) -> Result<Sighting> {
        let writer = self.node(&self.writer).await?;
        let primary = Some(writer.name.clone());
        let mut nodes = vec![writer];
        for reader in &self.readers {
            // A reader that is gone leaves the topology.
            if let Ok(node) = self.node(reader).await
                && !nodes.contains(&node)
            {
                nodes.push(node);
            }
        }
        Ok(Sighting { primary, nodes, generation: None })
    }
}

impl Endpoint {
    fn of(url: String) -> Result<Self> {
        let parsed = || {
            let rest = url.split_once("://")?.1;
            let authority = rest.split(['/', '?']).next()?;
            let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
            let (host, port) = place.rsplit_once(':')?;
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        };
        match parsed() {
            Some((host, port)) => Ok(Self { host, port, url }),
            None => Err(crate::error::config(
                "a URL to resolve must name host and port: postgresql://user@host:5432/database",
            )),
        }
    }

    fn at(&self, address: &SocketAddr) -> String {
        self.url.replacen(&format!("{}:{}", self.host, self.port), &address.to_string(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_takes_the_place_of_the_name_only() {
        let endpoint = Endpoint::of("postgresql://db:db@db:5432/db".to_owned()).unwrap();
        let at = endpoint.at(&([10, 0, 0, 7], 5432).into());
        assert_eq!(at, "postgresql://db:db@10.0.0.7:5432/db");
        assert!(Endpoint::of("postgresql://db/db".to_owned()).is_err());
        assert!(Endpoint::of("db:5432".to_owned()).is_err());
    }
}
