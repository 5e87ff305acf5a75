//! Three regions in memory that keep the contract, and the ways in which they can be made to break it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::RegionBench;
use crate::error::{Error, ErrorKind, Result};
use crate::region::{
    CommitsWaitFor, Frozen, Observation, Pledge, PledgedTo, Proof, Reach, RegionBackend,
    RegionTarget, Role,
};

/// What is wrong with regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionFault {
    /// Nothing: the suite passes.
    None,
    /// Obeys older orders.
    ObeysAnybody,
    /// Looks at the pledge, and obeys a moment later.
    LooksThenObeys,
    /// Does not remember whom it obeyed.
    ForgetsPledges,
    /// A frozen standby goes on receiving.
    GoesOnReceiving,
    /// A primary that is frozen ends its writes.
    EndsWritesTooSoon,
    /// A promoted standby has no epoch row.
    WritesNoRow,
    /// A demoted primary goes on taking writes.
    WritesOn,
    /// A primary counts as demoted before its heir has everything.
    LeavesTooSoon,
    /// Says that it has fenced, and has not.
    FencesInWords,
    /// One that comes back has the pledge of the one it follows.
    TakesOverPledges,
    /// A standby that was frozen receives from nobody afterwards.
    NeverFollows,
    /// Every question fails.
    Down,
}

/// Three regions in memory: a primary and two standbys that have each write at once.
#[derive(Debug, Clone)]
pub struct ModelRegions {
    servers: Arc<Mutex<Vec<Server>>>,
    fault: RegionFault,
}

#[derive(Debug, Clone)]
struct Server {
    primary: bool,
    read_only: bool,
    stopped: bool,
    pledge: Pledge,
    upstream: Option<usize>,
    /// Each write is 0, each epoch row its epoch.
    log: Vec<u64>,
}

impl Default for ModelRegions {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelRegions {
    /// Regions that keep the contract.
    pub fn new() -> Self {
        Self::faulty(RegionFault::None)
    }

    /// Regions with this fault.
    pub fn faulty(fault: RegionFault) -> Self {
        let server = |number| Server {
            primary: number == 0,
            read_only: false,
            stopped: false,
            pledge: Pledge::default(),
            upstream: (number > 0).then_some(0),
            log: vec![0],
        };
        Self { servers: Arc::new(Mutex::new((0..3).map(server).collect())), fault }
    }

    /// What the suite needs of them.
    pub fn bench(&self) -> RegionBench {
        let region = |number| -> Arc<dyn RegionBackend> {
            Arc::new(ModelRegion { regions: self.clone(), number })
        };
        let regions = self.clone();
        RegionBench::new([region(0), region(1), region(2)], move |number| {
            let written = regions.write(number);
            async move { written }
        })
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, number: usize) -> bool {
        let mut servers = self.servers();
        let Some(server) = servers.get_mut(number) else { return false };
        let takes = server.primary && !server.read_only && !server.stopped;
        if takes {
            server.log.push(0);
            stream(&mut servers, number, self.fault == RegionFault::LeavesTooSoon);
        }
        takes
    }
}

/// Standbys that receive from this server have what it has, up to the last write where they lag.
fn stream(servers: &mut [Server], from: usize, lag: bool) {
    let log = servers[from].log.clone();
    let has = log.len() - usize::from(lag);
    for standby in servers.iter_mut().filter(|server| !server.primary && !server.stopped) {
        let parted = !log.starts_with(&standby.log);
        if standby.upstream == Some(from) && !parted {
            standby.log.clone_from(&log[..has.max(standby.log.len())].to_vec());
        }
    }
}

impl Server {
    fn reach(&self) -> Reach {
        let lineage = self.log.iter().copied().max().unwrap_or(0);
        Reach { lineage, timeline: 0, offset: self.log.len() as u64 }
    }

    fn role(&self) -> Role {
        if self.primary { Role::Primary } else { Role::Standby }
    }
}

struct ModelRegion {
    regions: ModelRegions,
    number: usize,
}

impl fmt::Debug for ModelRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelRegion").field(&self.number).finish()
    }
}

impl ModelRegion {
    fn is(&self, fault: RegionFault) -> bool {
        self.regions.fault == fault
    }

    /// Looks at the pledge, takes the order's and obeys, all at once.
    async fn obey<T>(
        &self,
        operation: &'static str,
        order: &Pledge,
        act: impl FnOnce(&mut [Server]) -> Result<T> + Send,
    ) -> Result<T> {
        tokio::task::yield_now().await;
        let admitted = |servers: &[Server]| {
            let server = &servers[self.number];
            if self.is(RegionFault::Down) {
                return Err(Error::new(ErrorKind::Config, operation, "it is down"));
            }
            if !server.pledge.admits(order) && !self.is(RegionFault::ObeysAnybody) {
                return Err(PledgedTo(server.pledge.clone()).refuse(operation));
            }
            Ok(())
        };
        if self.is(RegionFault::LooksThenObeys) {
            admitted(&self.regions.servers())?;
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
        let mut servers = self.regions.servers();
        if !self.is(RegionFault::LooksThenObeys) {
            admitted(&servers)?;
        }
        if !self.is(RegionFault::ForgetsPledges) {
            servers[self.number].pledge = order.clone();
        }
        act(&mut servers)
    }

    fn upstream(target: &RegionTarget) -> Result<usize> {
        let number = target.url.rsplit('/').next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| Error::new(ErrorKind::Failed, "follow", "an unknown region"))
    }
}

#[async_trait]
impl RegionBackend for ModelRegion {
    fn url(&self) -> String {
        format!("model://region/{}", self.number)
    }

    fn can_fence(&self) -> bool {
        true
    }

    async fn probe(&self, _recent: Duration) -> Result<Observation> {
        tokio::task::yield_now().await;
        let servers = self.regions.servers();
        let server = &servers[self.number];
        if server.stopped || self.is(RegionFault::Down) {
            return Err(Error::new(ErrorKind::Unavailable, "probe", "it is down"));
        }
        Ok(Observation {
            role: server.role(),
            sick: None,
            read_only: server.read_only,
            system: 1,
            reach: server.reach(),
            pledge: server.pledge.clone(),
            started: 1,
            hears_primary: server.upstream.is_some_and(|upstream| servers[upstream].primary),
            commits: CommitsWaitFor::nobody(),
        })
    }

    async fn fence(&self, order: &Pledge) -> Result<Proof> {
        let stops = !self.is(RegionFault::FencesInWords);
        self.obey("fence", order, |servers| {
            servers[self.number].stopped |= stops;
            Ok(Proof::Stopped { region: "".into(), by: "the model".to_owned() })
        })
        .await
    }

    async fn freeze(&self, order: &Pledge) -> Result<Frozen> {
        let (receives, ends) =
            (self.is(RegionFault::GoesOnReceiving), self.is(RegionFault::EndsWritesTooSoon));
        self.obey("freeze", order, |servers| {
            let server = &mut servers[self.number];
            if !server.primary && !receives {
                server.upstream = None;
            }
            server.read_only |= server.primary && ends;
            Ok(Frozen { role: server.role(), sick: None, system: 1, reach: server.reach() })
        })
        .await
    }

    async fn demote(
        &self,
        order: &Pledge,
        heir: &dyn RegionBackend,
    ) -> Result<(Reach, Option<Proof>)> {
        let writes_on = self.is(RegionFault::WritesOn);
        let reach = self.obey("demote", order, |servers| {
            let server = &mut servers[self.number];
            if !server.primary {
                return Err(Error::new(ErrorKind::Failed, "demote", "it is a standby"));
            }
            server.read_only = !writes_on;
            Ok(server.reach())
        });
        let reach = reach.await?;
        if !self.is(RegionFault::LeavesTooSoon) {
            let began = tokio::time::Instant::now();
            while heir.probe(Duration::from_secs(1)).await?.reach < reach {
                if began.elapsed() >= super::LIMIT {
                    let message = "the heir does not catch up";
                    return Err(Error::new(ErrorKind::TimedOut, "demote", message));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok((reach, None))
    }

    async fn promote(&self, order: &Pledge) -> Result<u32> {
        let row = (!self.is(RegionFault::WritesNoRow)).then_some(order.epoch);
        self.obey("promote", order, |servers| {
            let server = &mut servers[self.number];
            (server.primary, server.read_only, server.upstream) = (true, false, None);
            let has = server.reach().lineage;
            server.log.extend(row.filter(|epoch| *epoch > has));
            stream(servers, self.number, false);
            Ok(1)
        })
        .await
    }

    async fn repoint(&self, order: &Pledge, primary: &RegionTarget) -> Result<()> {
        let upstream = Self::upstream(primary)?;
        let follows = !self.is(RegionFault::NeverFollows);
        self.obey("repoint", order, |servers| {
            servers[self.number].upstream = Some(upstream).filter(|_| follows);
            stream(servers, upstream, false);
            Ok(())
        })
        .await
    }

    async fn confirm(&self, order: &Pledge) -> Result<()> {
        self.obey("confirm", order, |servers| match servers[self.number].primary {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Failed, "confirm", "it is a standby")),
        })
        .await
    }

    async fn rejoin(&self, order: &Pledge, primary: &RegionTarget) -> Result<Option<u64>> {
        let upstream = Self::upstream(primary)?;
        let takes = self.is(RegionFault::TakesOverPledges);
        self.obey("rejoin", order, |servers| {
            let source = servers[upstream].clone();
            let server = &mut servers[self.number];
            let common = server.log.iter().zip(&source.log).take_while(|(a, b)| a == b).count();
            let lost = server.log.len() - common;
            (server.primary, server.read_only, server.stopped) = (false, false, false);
            server.upstream = Some(upstream);
            server.log = source.log;
            if takes {
                server.pledge = source.pledge;
            }
            Ok(Some(lost as u64))
        })
        .await
    }
}
