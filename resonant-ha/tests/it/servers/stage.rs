//! Three regions, one PostgreSQL server each, and what the tests do with them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::{Database, PoolConfig, RoutingConfig, params};
use resonant_ha::backend::postgres::PostgresRegion;
use resonant_ha::voter::{MemoryVoter, Quorum, Voter};
use resonant_ha::{Event, EventKind, FailoverBuilder, FailoverConfig, FailoverManager};
use resonant_testkit::postgres::Synchronous;
use resonant_testkit::{PgNode, PostgresCluster};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::agent::KitAgent;

pub(super) const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-west-1"];

/// A generous limit: machines are shared.
pub(super) const LIMIT: Duration = Duration::from_secs(150);

/// For how long a write waits for another primary before its client sees an error. The default of 1 s is more than a
/// switchover takes, but not on a machine that runs ten other suites; what has to hold there too is that nothing is lost and
/// that no client sees an error before its own limit.
pub(super) const WAIT: Duration = Duration::from_secs(5);

pub(super) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(LIMIT, waiting).await.is_ok(), "{what}: not within {LIMIT:?}");
}

pub(super) struct Stage {
    pub(super) cluster: PostgresCluster,
    pub(super) nodes: Vec<PgNode>,
    pub(super) voters: Vec<Arc<dyn Voter>>,
}

impl Stage {
    pub(super) async fn set(synchronous: Synchronous) -> Self {
        let cluster = PostgresCluster::builder().replicas(2).synchronous(synchronous);
        let cluster = cluster.start().await.expect("a cluster");
        let nodes = cluster.nodes().to_vec();
        PostgresRegion::new(nodes[0].url()).create_table().await.expect("the table");
        nodes[0].sql("CREATE TABLE t (n bigint PRIMARY KEY)").await.expect("a table");
        cluster.caught_up().await.expect("caught up");
        let voters = (0..3).map(|_| Arc::new(MemoryVoter::new()) as Arc<dyn Voter>).collect();
        Self { cluster, nodes, voters }
    }

    pub(super) fn region(&self, number: usize) -> PostgresRegion {
        let node = &self.nodes[number];
        PostgresRegion::new(node.url()).standby_name(node.name())
    }

    pub(super) fn with_agent(&self, number: usize) -> PostgresRegion {
        let node = self.nodes[number].clone();
        self.region(number).agent(KitAgent::new(&self.cluster, node))
    }

    pub(super) fn builder(&self, config: FailoverConfig) -> FailoverBuilder {
        FailoverManager::builder()
            .primary_region(REGIONS[0])
            .secondary_regions([REGIONS[1], REGIONS[2]])
            .config(config)
            .lease_store(Quorum::new(self.voters.clone()).expect("a quorum"))
    }

    /// What it tells is what a failed test shows.
    pub(super) fn listen(manager: &FailoverManager) {
        let mut events = manager.events();
        let began = Instant::now();
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                println!("{:?} epoch {}: {:?}", began.elapsed(), event.epoch, event.kind);
            }
        });
    }

    pub(super) async fn start(&self, config: FailoverConfig) -> FailoverManager {
        let mut builder = self.builder(config);
        for (number, name) in REGIONS.iter().enumerate() {
            builder = builder.region(*name, self.with_agent(number));
        }
        let manager = builder.build().expect("a manager");
        Self::listen(&manager);
        manager.start().await.expect("started");
        manager
    }

    pub(super) async fn database(&self, manager: &FailoverManager) -> Database {
        let db = Database::builder()
            .primary(self.nodes[0].url())
            .replicas(self.nodes[1..].iter().map(PgNode::url))
            .pool(PoolConfig::default().min_size(1).max_size(8))
            .statement_timeout(Duration::from_secs(3))
            .routing(RoutingConfig::default().failover_wait(WAIT))
            .connect()
            .await
            .expect("a database");
        db.follow(manager.subscribe());
        db
    }

    pub(super) async fn ids(&self, node: usize) -> Vec<i64> {
        let sql = "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM t";
        let text = self.nodes[node].value(sql).await.expect("ids");
        text.split(',').filter_map(|id| id.parse().ok()).collect()
    }
}

/// Slower than the fast profile, for shared machines.
pub(super) fn quick() -> FailoverConfig {
    FailoverConfig {
        health_check_interval: Duration::from_millis(500),
        probe_timeout: Duration::from_millis(450),
        lease_ttl: Duration::from_secs(6),
        lease_guard: Duration::from_millis(200),
        step_timeout: Duration::from_secs(10),
        poll_interval: Duration::from_millis(200),
        auto_failback: false,
        allow_promotion: true,
        synchronous_standbys: 1,
        failover_budget: 100,
        ..FailoverConfig::default()
    }
}

pub(super) fn leads(manager: &FailoverManager, region: usize) -> bool {
    manager.status().primary.is_some_and(|primary| primary == REGIONS[region])
}

/// Everything in its place: the others follow the primary, under its epoch.
pub(super) fn settled(manager: &FailoverManager) -> bool {
    let status = manager.status();
    status.operation.is_none()
        && status.epoch > 0
        && status.regions.iter().filter(|region| region.writable).count() == 1
        && status.regions.iter().all(|region| region.well && region.pledged == status.epoch)
}

pub(super) async fn event(
    manager: &FailoverManager,
    what: &str,
    wanted: impl Fn(&EventKind) -> bool,
) -> Event {
    let mut found = None;
    until(what, async || {
        found = manager.history().into_iter().find(|event| wanted(&event.kind));
        found.is_some()
    })
    .await;
    found.expect("found")
}

/// Writes numbers, one after the other, and remembers those that were acknowledged and when.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<(i64, Instant)>>>,
    failed: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(db: &Database, first: i64, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (written, failed) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let task = {
            let (db, stop) = (db.clone(), Arc::clone(&stop));
            let (written, failed) = (Arc::clone(&written), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut id = first;
                while !stop.load(Ordering::Relaxed) {
                    id += 1;
                    match db.write().execute("INSERT INTO t VALUES ($1)", params![id]).await {
                        Ok(_) => written.lock().unwrap().push((id, Instant::now())),
                        Err(error) => failed.lock().unwrap().push(error.to_string()),
                    }
                    sleep(pause).await;
                }
            })
        };
        Self { stop, written, failed, task }
    }

    pub(super) fn count(&self) -> usize {
        self.written.lock().unwrap().len()
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    /// The longest time between two writes, of which the second came after this moment.
    pub(super) fn longest_gap(&self, after: Instant) -> Duration {
        let written = self.written.lock().unwrap();
        let pairs = written.windows(2).filter(|pair| pair[1].1 > after);
        pairs.map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
    }

    pub(super) async fn finish(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no panic");
        let written = self.written.lock().unwrap();
        written.iter().map(|(id, _)| *id).collect()
    }
}
