//! Three regions as they are run: a server, a voter and a manager in each, every manager a process of its own, and a network
//! between them that can be cut.

pub(super) mod clients;
mod host;
mod process;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resonant_db::{Database, PoolConfig, RoutingConfig};
use resonant_ha::backend::postgres::{PostgresRegion, PostgresVoter};
use resonant_ha::{FailoverConfig, Node, Topology};
use resonant_testkit::postgres::Synchronous;
use resonant_testkit::{FaultProxy, PgNode, PostgresCluster};
use tokio::sync::watch;

use self::clients::Clients;
use self::process::{Process, Settings};
use super::stage::{REGIONS, WAIT, until};

pub(super) const SIDE: usize = 3;

pub(super) struct Fleet {
    // Servers end with their handles.
    _cluster: PostgresCluster,
    _voters: Vec<PostgresCluster>,
    pub(super) nodes: Vec<PgNode>,
    settings: Vec<Settings>,
    pub(super) managers: Vec<Process>,
    /// From one region to another: to its server, to its voter.
    links: BTreeMap<(usize, usize), [FaultProxy; 2]>,
    /// Where clients and standbys reach a server.
    public: Vec<FaultProxy>,
    topologies: Arc<watch::Sender<Topology>>,
}

impl Fleet {
    /// Everything but the clients, with one synchronous standby for each commit.
    pub(super) async fn start(config: FailoverConfig) -> Self {
        let cluster = PostgresCluster::builder().replicas(2).synchronous(Synchronous::Any(1));
        let voters = PostgresCluster::builder().start_shards(SIDE);
        let (cluster, voters) = tokio::join!(cluster.start(), voters);
        let (cluster, voters) = (cluster.expect("a cluster"), voters.expect("voters"));
        let nodes = cluster.nodes().to_vec();
        PostgresRegion::new(nodes[0].url()).create_table().await.expect("the table");
        let table = "CREATE TABLE w (n bigint PRIMARY KEY, epoch bigint NOT NULL)";
        nodes[0].sql(table).await.expect("a table");
        for voter in &voters {
            let voter = PostgresVoter::new(voter.primary().url());
            voter.create_table().await.expect("the voter's table");
        }
        cluster.caught_up().await.expect("caught up");
        let proxy = async |node: &PgNode| FaultProxy::start(node.address()).await.expect("a link");
        let (mut public, mut links) = (Vec::new(), BTreeMap::new());
        for to in 0..SIDE {
            public.push(proxy(&nodes[to]).await);
            for from in (0..SIDE).filter(|from| *from != to) {
                let both = [proxy(&nodes[to]).await, proxy(&voters[to].primary()).await];
                links.insert((from, to), both);
            }
        }
        let agents = host::serve(&cluster).await;
        let settings = |manager: usize| Settings {
            config: config.clone(),
            servers: (0..SIDE)
                .map(|to| {
                    let node = &nodes[to];
                    let link = links.get(&(manager, to));
                    let url = link.map_or_else(|| node.url(), |link| node.url_through(&link[0]));
                    (url, node.url_through(&public[to]), node.name().to_owned())
                })
                .collect(),
            voters: (0..SIDE)
                .map(|to| {
                    let node = voters[to].primary();
                    let link = links.get(&(manager, to));
                    link.map_or_else(|| node.url(), |link| node.url_through(&link[1]))
                })
                .collect(),
            agents,
        };
        let settings: Vec<Settings> = (0..SIDE).map(settings).collect();
        let nothing = Topology { epoch: 0, primary: None, nodes: Vec::new() };
        let mut fleet = Self {
            _cluster: cluster,
            _voters: voters,
            nodes,
            settings,
            managers: Vec::new(),
            links,
            public,
            topologies: Arc::new(watch::channel(nothing).0),
        };
        for manager in 0..SIDE {
            let process = fleet.manager(manager);
            fleet.managers.push(process);
        }
        fleet.settle("the first topology").await;
        fleet
    }

    /// A manager whose topologies reach the clients, as those of one in their own process would.
    fn manager(&self, number: usize) -> Process {
        let process = Process::start(&self.settings[number]);
        let (mut reports, topologies) = (process.reports.clone(), Arc::clone(&self.topologies));
        let nodes: Vec<Node> = (0..SIDE)
            .map(|n| Node { name: REGIONS[n].to_owned(), url: self.public_url(n) })
            .collect();
        tokio::spawn(async move {
            while reports.changed().await.is_ok() {
                let report = reports.borrow_and_update().clone();
                let topology =
                    Topology { epoch: report.epoch, primary: report.primary, nodes: nodes.clone() };
                topologies.send_if_modified(|known| {
                    let newer = topology.supersedes(known);
                    if newer {
                        *known = topology;
                    }
                    newer
                });
            }
        });
        process
    }

    /// In the place of one that was killed.
    pub(super) fn restart(&mut self, number: usize) {
        self.managers[number] = self.manager(number);
    }

    fn public_url(&self, number: usize) -> String {
        self.nodes[number].url_through(&self.public[number])
    }

    pub(super) async fn database(&self) -> Database {
        let db = Database::builder()
            .primary(self.public_url(0))
            .replicas((1..SIDE).map(|number| self.public_url(number)))
            .pool(PoolConfig::default().min_size(1).max_size(8))
            .statement_timeout(Duration::from_secs(3))
            .routing(RoutingConfig::default().failover_wait(WAIT));
        let db = db.connect().await.expect("a database");
        db.follow(self.topologies.subscribe());
        db
    }

    /// What clients are told: the epoch, and the number of its primary.
    pub(super) fn told(&self) -> (u64, usize) {
        let topology = self.topologies.borrow();
        let primary = topology.primary.as_deref();
        let primary = REGIONS.iter().position(|region| primary == Some(region));
        (topology.epoch, primary.unwrap_or(0))
    }

    /// The manager that leads, once one says so.
    pub(super) async fn leader(&self) -> usize {
        let mut leader = None;
        until("a leader", async || {
            leader = (0..SIDE).find(|manager| self.managers[*manager].leads());
            leader.is_some()
        })
        .await;
        leader.expect("found")
    }

    /// Waits until everything is in its place: the leader says that two standbys follow the primary that clients know.
    pub(super) async fn settle(&self, what: &str) {
        until(what, async || {
            self.managers.iter().any(|manager| {
                let report = manager.reports.borrow();
                manager.leads() && report.settled && report.epoch == self.told().0
            })
        })
        .await;
    }

    /// Cuts a region off from everybody outside: its server, its voter and its manager, both ways.
    pub(super) async fn cut_off(&self, region: usize) {
        for ((from, to), both) in &self.links {
            if *from == region || *to == region {
                for link in both {
                    link.black_hole().await.expect("cut off");
                }
            }
        }
        self.public[region].black_hole().await.expect("cut off");
    }

    pub(super) async fn heal(&self) {
        for link in self.links.values().flatten().chain(&self.public) {
            link.heal().await.expect("healed");
        }
    }

    /// What the last primary has, by number, with the epoch it was written in.
    pub(super) async fn stored(&self) -> BTreeMap<i64, i64> {
        let rows = self.nodes[self.told().1].sql("SELECT n, epoch FROM w").await.expect("rows");
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok()).expect("n");
        rows.iter().map(|row| (number(row.get(0)), number(row.get(1)))).collect()
    }

    pub(super) async fn clients(&self) -> Clients {
        Clients::start(&self.database().await, &self.nodes)
    }

    /// What the managers told last, for a test that fails.
    pub(super) fn tell(&self) {
        for (number, manager) in self.managers.iter().enumerate() {
            println!("manager {number}: {:?}", *manager.reports.borrow());
            let told = manager.told.lock().unwrap();
            for line in &told[told.len().saturating_sub(400)..] {
                println!("    {line}");
            }
        }
    }
}

/// A test that fails in the middle shows what the managers told.
impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}
