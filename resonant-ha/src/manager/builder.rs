//! How a manager is built.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_common::join::Topology;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::{self, Clock};
use super::meter::Meter;
use super::{FailoverManager, HISTORY, Inner, Shared};
use crate::config::FailoverConfig;
use crate::core::flaw::Flaws;
use crate::core::{Core, Setup};
use crate::error::{Result, config as broken};
use crate::hook::Hook;
use crate::observe::{Observer, ProbeSource, TopologySource, Watch};
use crate::region::{RegionBackend, RegionName};
use crate::voter::Quorum;

/// How a [`FailoverManager`] is built. The names and defaults of the settings are [`FailoverConfig`]'s.
#[derive(Debug, Default)]
pub struct FailoverBuilder {
    name: Option<String>,
    config: FailoverConfig,
    primary: Option<RegionName>,
    secondaries: Vec<RegionName>,
    backends: Vec<(RegionName, Arc<dyn RegionBackend>)>,
    quorum: Option<Quorum>,
    observers: Vec<Arc<dyn Observer>>,
    hooks: Vec<Arc<dyn Hook>>,
    source: Option<Arc<dyn TopologySource>>,
}

impl FailoverBuilder {
    /// The cluster's name: managers of the same name share a lease and a record. Default `resonant`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where writes belong when all is well.
    #[must_use]
    pub fn primary_region(mut self, region: impl Into<RegionName>) -> Self {
        self.primary = Some(region.into());
        self
    }

    /// Where they may go instead, the preferred one first.
    #[must_use]
    pub fn secondary_regions<R: Into<RegionName>>(
        mut self,
        regions: impl IntoIterator<Item = R>,
    ) -> Self {
        self.secondaries = regions.into_iter().map(Into::into).collect();
        self
    }

    /// How often each region is probed. Default 10 s.
    #[must_use]
    pub fn health_check_interval(mut self, interval: Duration) -> Self {
        self.config.health_check_interval = interval;
        self
    }

    /// Failed probes of the primary in a row before it counts as failed. Default 3.
    #[must_use]
    pub fn failover_threshold(mut self, failures: u32) -> Self {
        self.config.failover_threshold = failures;
        self
    }

    /// Whether writes go back to the primary region by themselves. Default yes.
    #[must_use]
    pub fn auto_failback(mut self, auto: bool) -> Self {
        self.config.auto_failback = auto;
        self
    }

    /// For how long the primary region must have been well before they do. Default 300 s.
    #[must_use]
    pub fn failback_delay(mut self, delay: Duration) -> Self {
        self.config.failback_delay = delay;
        self
    }

    /// Whether this manager may promote. Default no: it watches and answers [`plan`](FailoverManager::plan).
    #[must_use]
    pub fn allow_promotion(mut self, allow: bool) -> Self {
        self.config.allow_promotion = allow;
        self
    }

    /// All settings at once; those set before are replaced.
    #[must_use]
    pub fn config(mut self, config: FailoverConfig) -> Self {
        self.config = config;
        self
    }

    /// What is behind a region's name.
    #[must_use]
    pub fn region(self, region: impl Into<RegionName>, backend: impl RegionBackend) -> Self {
        self.regions([(region.into(), Arc::new(backend) as Arc<dyn RegionBackend>)])
    }

    /// What is behind the regions' names.
    #[must_use]
    pub fn regions<R: Into<RegionName>>(
        mut self,
        regions: impl IntoIterator<Item = (R, Arc<dyn RegionBackend>)>,
    ) -> Self {
        self.backends.extend(regions.into_iter().map(|(region, backend)| (region.into(), backend)));
        self
    }

    /// Who says which manager may act. Without it the manager only watches the regions.
    #[must_use]
    pub fn lease_store(mut self, quorum: Quorum) -> Self {
        self.quorum = Some(quorum);
        self
    }

    /// Somebody else to ask whether the primary is heard, before it counts as failed.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Something to run after each event.
    #[must_use]
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Takes the topology from somebody who decides on it already, and never acts: Patroni, DNS, a closure. It is asked
    /// every `poll_interval`. Needs no regions and no lease store.
    #[must_use]
    pub fn observe(mut self, source: impl TopologySource) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Checks the settings and makes the manager; [`start`](FailoverManager::start) starts it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the law that is broken.
    pub fn build(mut self) -> Result<FailoverManager> {
        self.config.validate()?;
        let promotes = self.config.allow_promotion;
        if self.source.is_some() && promotes {
            return Err(broken(
                "a manager that observes a source must not allow promotion: two would decide",
            ));
        }
        if promotes && self.quorum.is_none() {
            return Err(broken(
                "promotion needs a lease_store, so that one manager acts at a time",
            ));
        }
        let regions = self.ordered()?;
        let names: Vec<RegionName> = regions.iter().map(|(region, _)| region.clone()).collect();
        if self.source.is_none() {
            self.check_regions(&names)?;
        }
        let watch = match (&self.source, &self.quorum) {
            (Some(source), _) => Some(Arc::clone(source)),
            (None, None) => {
                Some(Arc::new(ProbeSource::new(regions.clone())) as Arc<dyn TopologySource>)
            }
            (None, Some(_)) => None,
        };
        let name = self.name.unwrap_or_else(|| "resonant".to_owned());
        let config = Arc::new(self.config);
        let fenceable: BTreeSet<RegionName> = regions
            .iter()
            .filter(|(_, backend)| backend.can_fence())
            .map(|(region, _)| region.clone())
            .collect();
        let standbys = regions
            .iter()
            .map(|(region, backend)| backend.standby_name().unwrap_or(region.as_str()).to_owned());
        let standbys = standbys.collect();
        let seed = incarnation();
        let setup = Setup {
            config: Arc::clone(&config),
            owner: format!("{}-{seed:016x}", std::process::id()),
            regions: names.clone(),
            fenceable,
            standbys,
            voters: self.quorum.as_ref().map_or(0, |quorum| quorum.voters().len()),
            observers: self.observers.len(),
            seed,
            flaws: Flaws::default(),
        };
        let nothing = Topology { epoch: 0, primary: None, nodes: Vec::new() };
        let (inputs, receiver) = mpsc::channel(1024);
        let shared = Arc::new(Shared {
            meter: Meter::new(&name, &names),
            name,
            config,
            core: Mutex::new(Core::new(setup)),
            clock: Clock::new(),
            quorum: self.quorum,
            inputs,
            receiver: Mutex::new(Some(receiver)),
            topology: watch::channel(nothing).0,
            events: broadcast::channel(HISTORY).0,
            history: Mutex::new(VecDeque::with_capacity(HISTORY)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let (observers, hooks) = (self.observers, self.hooks);
        let watch = watch.map(Watch::new);
        Ok(FailoverManager { inner: Arc::new(Inner { shared, regions, observers, hooks, watch }) })
    }

    /// The backends in order of preference.
    fn ordered(&mut self) -> Result<Vec<(RegionName, Arc<dyn RegionBackend>)>> {
        let wanted: Vec<RegionName> =
            self.primary.iter().chain(&self.secondaries).cloned().collect();
        let mut ordered = Vec::new();
        for region in wanted {
            let place = self.backends.iter().position(|(name, _)| *name == region);
            match place {
                Some(place) => ordered.push(self.backends.swap_remove(place)),
                None if self.source.is_some() => {}
                None => {
                    return Err(broken(format!(
                        "the region {region} is named twice or nothing is behind it; give it to region() or regions()"
                    )));
                }
            }
        }
        match self.backends.first() {
            Some((region, _)) => Err(broken(format!(
                "the region {region} must be the primary_region or one of the secondary_regions"
            ))),
            None => Ok(ordered),
        }
    }

    fn check_regions(&self, names: &[RegionName]) -> Result<()> {
        if self.primary.is_none() || names.len() < 2 {
            return Err(broken(
                "a primary_region and at least one of secondary_regions are needed",
            ));
        }
        if self.config.synchronous_standbys as usize >= names.len() {
            return Err(broken("synchronous_standbys must be less than the number of regions"));
        }
        let Some(quorum) = &self.quorum else { return Ok(()) };
        let domains: Vec<&str> =
            quorum.voters().iter().filter_map(|voter| voter.domain()).collect();
        let majority = quorum.voters().len() / 2 + 1;
        for domain in &domains {
            let there = domains.iter().filter(|other| other == &domain).count();
            if there >= majority && quorum.voters().len() > 1 {
                return Err(broken(format!(
                    "no region may hold a majority of the voters, and {domain} holds {there} of {}: with it the lease would be lost",
                    quorum.voters().len()
                )));
            }
        }
        if quorum.voters().len() == 1
            && names.iter().any(|name| domains.iter().any(|domain| name == *domain))
        {
            return Err(broken(
                "a single voter must not be in one of the regions that are failed over",
            ));
        }
        Ok(())
    }
}

/// A number no other incarnation has.
fn incarnation() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    use std::hash::{BuildHasher as _, RandomState};
    // Seeded by the operating system.
    RandomState::new().hash_one((
        std::process::id(),
        clock::wall(),
        COUNT.fetch_add(1, Ordering::Relaxed),
    ))
}
