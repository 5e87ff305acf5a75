//! The protocol under a seeded scheduler: managers, voters, regions and clients on a network that loses, delays and cuts,
//! with clocks that drift and processes that stop, crash and come back, and voters that are restored from old states.
//!
//! The managers here are the ones that run in production: the same state machine, told the time and what was heard. One
//! seed is one run; the same seed gives the same run byte for byte. After every event the [laws](Law) are checked.
//!
//! ```
//! use resonant_ha::simulation::Simulation;
//!
//! let simulation = Simulation::default();
//! for seed in 0..20 {
//!     let report = simulation.run(seed);
//!     assert!(report.violation.is_none(), "seed {seed}: {:?}", report.violation);
//! }
//! // A run that failed can be read.
//! assert_eq!(simulation.trace(7), simulation.trace(7));
//! ```
//!
//! # Your own settings
//!
//! [`Simulation::config`] takes the settings you will run with; times stay what they are, so long intervals make long
//! runs. Three regions, three voters and three managers are simulated; the unit of `max_lag` is one write.
//!
//! # What it does not show
//!
//! The servers are models: a log that standbys pull, acknowledgements that wait, a pledge that is kept. That a real
//! server keeps its pledge is the business of its [`RegionBackend`](crate::RegionBackend). Without synchronous standbys
//! no voter is restored from an old state: nothing but the record knows then who was promoted.

mod chaos;
mod laws;
mod power;
mod server;
mod world;

use std::time::Duration;

use self::chaos::Plan;
pub use self::laws::{Law, Violation};
use self::world::World;
use crate::config::FailoverConfig;
pub use crate::core::flaw::Flaw;
use crate::core::flaw::Flaws;
use crate::error::Result;

/// A simulation: settings, and how hard the world is.
#[derive(Debug, Clone)]
pub struct Simulation {
    config: FailoverConfig,
    flaw: Option<Flaw>,
    faults: u32,
    calm: bool,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first law that was broken.
    pub violation: Option<Violation>,
    /// How long the run was, in its own time.
    pub simulated: Duration,
    /// Events that were handled.
    pub events: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Topologies that were published, the first included.
    pub published: u64,
    /// Failovers that began.
    pub failovers: u64,
    /// From the fault to the first write acknowledged by another primary; only of [`Simulation::recovery`].
    pub recovery: Option<Duration>,
    /// A hash over everything that happened.
    pub fingerprint: u64,
}

impl Default for Simulation {
    /// Short intervals, one synchronous standby, promotion allowed.
    fn default() -> Self {
        let config = FailoverConfig {
            health_check_interval: Duration::from_secs(1),
            failover_threshold: 3,
            auto_failback: true,
            failback_delay: Duration::from_secs(8),
            allow_promotion: true,
            probe_timeout: Duration::from_millis(400),
            synchronous_standbys: 1,
            max_lag: 1000,
            lease_ttl: Duration::from_secs(6),
            lease_guard: Duration::from_millis(300),
            step_timeout: Duration::from_secs(3),
            poll_interval: Duration::from_millis(500),
            failover_budget: 3,
            failover_window: Duration::from_secs(60),
            ..FailoverConfig::default()
        };
        Self { config, flaw: None, faults: 8, calm: false }
    }
}

impl Simulation {
    /// A simulation of these settings.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the law they break.
    pub fn config(config: FailoverConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config: FailoverConfig { allow_promotion: true, ..config }, ..Self::default() })
    }

    /// Without synchronous standbys; the old primary is then fenced by power over its host.
    #[must_use]
    pub fn asynchronous(mut self) -> Self {
        self.config.synchronous_standbys = 0;
        self
    }

    /// How many faults a run has. Default 8.
    #[must_use]
    pub fn faults(mut self, faults: u32) -> Self {
        self.faults = faults;
        self
    }

    /// Breaks the protocol on purpose.
    #[must_use]
    pub fn with_flaw(mut self, flaw: Flaw) -> Self {
        self.flaw = Some(flaw);
        self
    }

    /// The settings that are simulated.
    pub fn settings(&self) -> &FailoverConfig {
        &self.config
    }

    /// Runs one seed.
    pub fn run(&self, seed: u64) -> Report {
        World::new(&self.config, seed, self.flaws(), self.plan(), false).run().0
    }

    /// Runs one seed in which nothing happens but that the primary is lost, and measures the recovery.
    pub fn recovery(&self, seed: u64) -> Report {
        let calm = Self { calm: true, ..self.clone() };
        World::new(&calm.config, seed, calm.flaws(), calm.plan(), false).run().0
    }

    /// Everything that happened in the run of this seed, one line each.
    pub fn trace(&self, seed: u64) -> String {
        World::new(&self.config, seed, self.flaws(), self.plan(), true).run().1
    }

    fn flaws(&self) -> Flaws {
        Flaws { flaw: self.flaw }
    }

    fn plan(&self) -> Plan {
        if self.calm { Plan::LosePrimary } else { Plan::Faults(self.faults) }
    }
}
