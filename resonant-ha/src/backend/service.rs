//! A region without data of its own: moving it is telling clients.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::http;
use crate::region::{
    CommitsWaitFor, Frozen, Observation, Pledge, Proof, Reach, RegionBackend, RegionTarget, Role,
};

#[derive(Clone)]
enum Probe {
    Http(String),
    Tcp(String),
}

/// A plain service, probed over HTTP or TCP. It keeps no data, so nothing has to be fenced before another region takes
/// over, and the pledge need not outlive anything.
///
/// URLs may hold passwords: its `Debug` shows none.
#[derive(Clone)]
pub struct ServiceRegion {
    url: String,
    probe: Probe,
    activate: Option<Command>,
}

impl ServiceRegion {
    /// A service that is well when `GET` of this `http://` URL answers with 200 to 299. Clients use `url`.
    pub fn http(url: impl Into<String>, probe: impl Into<String>) -> Self {
        Self { url: url.into(), probe: Probe::Http(probe.into()), activate: None }
    }

    /// A service that is well when it accepts a connection at `host:port`. Clients use `url`.
    pub fn tcp(url: impl Into<String>, address: impl Into<String>) -> Self {
        Self { url: url.into(), probe: Probe::Tcp(address.into()), activate: None }
    }

    /// A command to run before the region takes over, such as one that moves a DNS name. It may be run again.
    #[must_use]
    pub fn activate(mut self, command: Command) -> Self {
        self.activate = Some(command);
        self
    }
}

impl fmt::Debug for ServiceRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = http::shown(&self.url);
        f.debug_struct("ServiceRegion").field("url", &url).finish_non_exhaustive()
    }
}

#[async_trait]
impl RegionBackend for ServiceRegion {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn can_fence(&self) -> bool {
        true
    }

    async fn probe(&self, _recent: Duration) -> Result<Observation> {
        let sick = match &self.probe {
            Probe::Tcp(address) => {
                TcpStream::connect(address).await.map_err(|error| {
                    let message = format!("{address} does not accept");
                    Error::new(ErrorKind::Unavailable, "probe", message).with_source(error)
                })?;
                None
            }
            Probe::Http(url) => {
                let status = http::get(url).await?.status;
                (!(200..300).contains(&status)).then(|| format!("it answers {status}"))
            }
        };
        Ok(Observation {
            role: Role::Service,
            sick,
            read_only: false,
            system: 0,
            reach: Reach::default(),
            pledge: Pledge::default(),
            started: 0,
            hears_primary: false,
            commits: CommitsWaitFor::nobody(),
        })
    }

    async fn fence(&self, _order: &Pledge) -> Result<Proof> {
        let by = "a service without data has nothing to fence".to_owned();
        // The manager knows the name.
        Ok(Proof::Attested { region: "".into(), by })
    }

    async fn freeze(&self, _order: &Pledge) -> Result<Frozen> {
        let seen = self.probe(Duration::ZERO).await?;
        Ok(Frozen { role: seen.role, sick: seen.sick, system: seen.system, reach: seen.reach })
    }

    async fn demote(
        &self,
        _order: &Pledge,
        _heir: &dyn RegionBackend,
    ) -> Result<(Reach, Option<Proof>)> {
        Ok((Reach::default(), None))
    }

    async fn promote(&self, _order: &Pledge) -> Result<u32> {
        if let Some(command) = &self.activate {
            command.clone().run("promote", None).await?;
        }
        Ok(0)
    }

    async fn repoint(&self, _order: &Pledge, _primary: &RegionTarget) -> Result<()> {
        Ok(())
    }

    async fn confirm(&self, _order: &Pledge) -> Result<()> {
        Ok(())
    }

    async fn rejoin(&self, _order: &Pledge, _primary: &RegionTarget) -> Result<Option<u64>> {
        Ok(None)
    }
}
