//! A node: a pool for each role it may have, and connections borrowed from them.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::backend::{Access, Backend, Connection, LanesStatus, Survey, Target};
use crate::pool::{ConnectionPool, Manager, PoolConfig, Pooled, Verdict};
use crate::replica_set::{Observation, Pick, Role};
use crate::{Error, ErrorKind, Result};

use super::found::Found;
use super::shared::{Shared, Switch};
use super::verdicts::blames_node;

/// What a node is to its database: how to get connections to it.
pub(super) struct Pools {
    pub(super) target: Target,
    backend: Arc<dyn Backend>,
    pub(super) label: String,
    /// What it was when it was named; a pool made later, for the other role, says so in its name.
    first: Role,
    reads: Slot,
    writes: Slot,
    closed: AtomicBool,
    found: Arc<Found>,
    /// Connections that reads share, where the engine has such.
    shared: Option<Shared>,
    /// A connection to ask what the node is, apart from the pools: a pool that is full must not look like a dead node.
    probe: Mutex<Option<Box<dyn Connection>>>,
}

/// A pool that is made when the node first has its role.
struct Slot {
    wanted: Mutex<PoolConfig>,
    pool: OnceLock<Pool>,
}

type Pool = ConnectionPool<NodeManager>;
pub(super) type Handle = Arc<Pools>;

impl Slot {
    fn new(wanted: PoolConfig) -> Self {
        Self { wanted: Mutex::new(wanted), pool: OnceLock::new() }
    }

    fn wanted(&self) -> PoolConfig {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Pools {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        target: Target,
        first: Role,
        label: String,
        pool: Option<&PoolConfig>,
        lanes: Switch,
        instances: u32,
    ) -> Result<Self> {
        backend.check(&target)?;
        let slot = |access| {
            let config = backend.fit_pool(pool, access);
            config.validate().map(|()| Slot::new(config))
        };
        let (reads, writes) = (slot(Access::ReadOnly)?, slot(Access::ReadWrite)?);
        let shared = backend.sharing(&target).map(|sharing| Shared::new(sharing, lanes));
        Ok(Self {
            shared,
            target,
            backend,
            label,
            first,
            reads,
            writes,
            closed: AtomicBool::new(false),
            found: Arc::new(Found { survey: OnceLock::new(), instances }),
            probe: Mutex::default(),
        })
    }

    fn slot(&self, role: Role) -> (&Slot, Access) {
        match role {
            Role::Primary => (&self.writes, Access::ReadWrite),
            Role::Replica => (&self.reads, Access::ReadOnly),
        }
    }

    /// The pool for a role.
    pub(super) fn pool(&self, role: Role) -> Result<&ConnectionPool<NodeManager>> {
        let (slot, access) = self.slot(role);
        if let Some(pool) = slot.pool.get() {
            return Ok(pool);
        }
        if self.closed.load(Ordering::Acquire) {
            let message = "the database is closed";
            return Err(Error::new(ErrorKind::Closed, "get", message));
        }
        let target = Target { access, ..self.target.clone() };
        let found = Arc::clone(&self.found);
        // One asks what the node is.
        let beside = 1 + self.shared().map_or(0, |shared| shared.sharing().most());
        let most = (slot.wanted().max_size, beside);
        let manager = NodeManager { backend: Arc::clone(&self.backend), target, found, most };
        let name = match role == self.first {
            true => self.label.clone(),
            false => {
                format!("{}/{}", self.label, if role == Role::Primary { "writes" } else { "reads" })
            }
        };
        let made = ConnectionPool::new(name, manager, slot.wanted())?;
        Ok(slot.pool.get_or_init(|| made))
    }

    /// What the node turned out to be, once somebody has connected to it.
    pub(super) fn survey(&self) -> Option<Survey> {
        self.found.survey.get().copied()
    }

    /// The pools there are.
    fn open(&self) -> impl Iterator<Item = &Pool> {
        [&self.reads, &self.writes].into_iter().filter_map(|slot| slot.pool.get())
    }

    /// Connections that reads share, unless that is off.
    pub(super) fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref().filter(|shared| shared.is_on())
    }

    /// Closes the connections that reads share.
    pub(super) fn empty_lanes(&self) {
        if let Some(shared) = &self.shared {
            shared.empty();
        }
    }

    /// Closes the connections that reads share for good, or allows them again.
    pub(super) fn switch_lanes(&self, on: bool) {
        if let Some(shared) = &self.shared {
            shared.switch(on);
        }
    }

    /// The connections that reads share.
    pub(super) fn lanes(&self) -> LanesStatus {
        self.shared.as_ref().map(Shared::status).unwrap_or_default()
    }

    /// The node is something else now: connections for what it was go, those for what it is come.
    pub(super) fn turned(&self, role: Role) {
        self.empty_lanes();
        let other = if role == Role::Primary { Role::Replica } else { Role::Primary };
        let (then, _) = self.slot(other);
        if let Some(pool) = then.pool.get() {
            // Else it would go on trying to open connections the node refuses.
            let _ = pool.resize(0, pool.config().max_size);
            pool.retire(|_| true);
        }
        let wanted = self.slot(role).0.wanted();
        match self.pool(role) {
            Ok(pool) => drop(pool.resize(wanted.min_size, wanted.max_size)),
            Err(error) => {
                tracing::debug!(node = %self.target.name, %error, "no pool for the new role")
            }
        }
    }

    /// Changes the sizes of the node's pools.
    pub(super) fn resize(&self, role: Role, min_size: u32, max_size: u32) -> Result<()> {
        let sized = |config: PoolConfig| config.min_size(min_size).max_size(max_size);
        sized(self.reads.wanted()).validate()?;
        for (slot, of) in [(&self.reads, Role::Replica), (&self.writes, Role::Primary)] {
            let mut wanted = slot.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            *wanted = sized(wanted.clone());
            drop(wanted);
            if let Some(pool) = slot.pool.get() {
                pool.resize(if of == role { min_size } else { 0 }, max_size)?;
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let probe = self.take_probe();
        let pools = futures::future::join_all(self.open().map(|pool| pool.close(deadline)));
        let farewell = async {
            if let Some(probe) = probe {
                let _ = tokio::time::timeout(deadline, probe.close()).await;
            }
            if let Some(shared) = &self.shared {
                let _ = tokio::time::timeout(deadline, shared.close()).await;
            }
        };
        let (closed, ()) = futures::join!(pools, farewell);
        closed.into_iter().collect()
    }

    /// Asks what the node is and how far it is. An error means that it does not answer.
    pub(super) async fn observe(&self) -> Result<Observation> {
        let first = match self.take_probe() {
            Some(kept) => self.ask(kept).await.ok(),
            None => None,
        };
        let asked = match first {
            Some(said) => Ok(said),
            // The kept connection may have been closed for a reason that is none of the node's.
            None => match self.backend.connect(&self.probe_target()).await {
                Ok(fresh) => self.ask(fresh).await,
                Err(error) => Err(error),
            },
        };
        match asked {
            Err(error) if !blames_node(error.kind()) => Ok(Observation::alive()),
            asked => asked,
        }
    }

    fn probe_target(&self) -> Target {
        Target { access: Access::ReadOnly, ..self.target.clone() }
    }

    /// Whether the URL names several servers: then it finds the one for writing by itself when it connects.
    fn names_several(&self) -> bool {
        self.target.name.contains(',')
    }

    async fn ask(&self, mut connection: Box<dyn Connection>) -> Result<Observation> {
        // Dropped in between, the connection goes with it.
        let role = connection.role().await;
        let role = known(&*connection, role)?;
        let position = connection.position().await;
        let position = known(&*connection, position)?;
        if !self.closed.load(Ordering::Acquire) {
            *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        let said = Observation::alive();
        Ok(if self.names_several() { said } else { said.role(role).position(position) })
    }

    fn take_probe(&self) -> Option<Box<dyn Connection>> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a connection says of its node; nothing where the node refuses to say, but works.
fn known<T>(connection: &dyn Connection, said: Result<Option<T>>) -> Result<Option<T>> {
    match said {
        Err(error) if !blames_node(error.kind()) && connection.verdict() == Verdict::Reuse => {
            Ok(None)
        }
        said => said,
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").field("target", &self.target).finish_non_exhaustive()
    }
}

/// How a call at a picked node went.
pub(super) trait Report {
    /// It failed; some errors speak against the node, others show that it works.
    fn note(&self, error: &Error);
}

impl Report for Pick<Handle> {
    fn note(&self, error: &Error) {
        match blames_node(error.kind()) {
            true => self.failed(error),
            false => self.succeeded(),
        }
    }
}

/// Borrows a connection of a picked node in the name of `site`, for what the node was when it was picked; it may do
/// only what `access` says.
pub(super) async fn lease(
    pick: Pick<Handle>,
    access: Access,
    site: &'static Location<'static>,
) -> Result<Lease, (Error, Pick<Handle>)> {
    let borrowed = match pick.pool(pick.role()) {
        Ok(pool) => pool.get_at(site, None).await,
        Err(error) => Err(error),
    };
    match borrowed {
        Ok(connection) => {
            let mut lease = Lease { connection, pick };
            lease.restrict(access);
            Ok(lease)
        }
        Err(error) => Err((error, pick)),
    }
}

/// Borrows a connection of a picked node for a read, if one is idle.
pub(super) fn lease_idle(
    pick: Pick<Handle>,
    site: &'static Location<'static>,
) -> Result<Lease, Pick<Handle>> {
    match pick.pool(pick.role()).ok().and_then(|pool| pool.try_get_at(site)) {
        Some(connection) => Ok(Lease::new(connection, pick)),
        None => Err(pick),
    }
}

/// A borrowed connection. Dropping it gives it back: as it is, or to be cleaned first.
pub(super) struct Lease {
    connection: Borrowed,
    pub(super) pick: Pick<Handle>,
}

/// A connection of a pool that is lent.
pub(super) type Borrowed = Pooled<NodeManager>;

impl Lease {
    /// A connection for a read.
    pub(super) fn new(connection: Borrowed, pick: Pick<Handle>) -> Self {
        let mut lease = Self { connection, pick };
        lease.restrict(Access::ReadOnly);
        lease
    }

    /// Gives the connection back and keeps the node.
    pub(super) fn give_back(self) -> Pick<Handle> {
        self.pick
    }
}

impl Deref for Lease {
    type Target = dyn Connection;

    fn deref(&self) -> &Self::Target {
        &**self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut **self.connection
    }
}

/// Opens a backend's connections for a pool.
pub(super) struct NodeManager {
    backend: Arc<dyn Backend>,
    target: Target,
    found: Arc<Found>,
    /// As many connections the pool may open, and what is opened beside it.
    most: (u32, u32),
}

impl Manager for NodeManager {
    type Connection = Box<dyn Connection>;

    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let mut connection = self.backend.connect(&self.target).await?;
        let declared = self.backend.capabilities();
        self.found.look(&mut *connection, declared, &self.target.name, self.most).await?;
        Ok(connection)
    }

    async fn check(&self, connection: &mut Box<dyn Connection>) -> Result<()> {
        connection.ping().await
    }

    fn verdict(&self, connection: &mut Box<dyn Connection>) -> Verdict {
        (**connection).verdict()
    }

    async fn clean(&self, mut connection: Box<dyn Connection>) -> Option<Box<dyn Connection>> {
        match connection.clean().await {
            Ok(()) => Some(connection),
            Err(error) => {
                tracing::debug!(node = %self.target.name, %error, "a connection could not be cleaned");
                None
            }
        }
    }

    async fn close(&self, connection: Box<dyn Connection>) {
        connection.close().await;
    }
}
