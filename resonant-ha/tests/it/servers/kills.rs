//! Kills of mixed kinds, with managers in processes of their own.

use std::time::Duration;

use resonant_ha::FailoverConfig;
use tokio::time::Instant;

use super::fleet::clients::{Clients, violations};
use super::fleet::{Fleet, SIDE};
use super::stage::until;

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// Every process of the primary is killed.
    Server,
    /// The primary stands still, and goes on once another has taken over.
    ServerStops,
    /// The region with the primary is cut off from all others; clients on its machine write on.
    Partition,
    /// The postmaster is killed alone; what it started goes on for a moment.
    Postmaster,
    /// The primary is killed together with the manager that leads.
    ServerAndLeader,
    /// The primary is killed while the manager that leads stands still, which goes on once another leads.
    ServerWhileLeaderStops,
    /// The manager that leads is killed in the middle of the failover.
    LeaderInFailover,
}

const KINDS: [Kill; 7] = [
    Kill::Server,
    Kill::ServerStops,
    Kill::Partition,
    Kill::ServerAndLeader,
    Kill::Postmaster,
    Kill::ServerWhileLeaderStops,
    Kill::LeaderInFailover,
];

/// From each kill to the first write that a follower had acknowledged by the heir.
#[derive(Debug, Default)]
struct Recoveries {
    /// The primary was killed, and the manager that led went on to lead.
    killed: Vec<Duration>,
    /// The primary stood still or was cut off, which its standbys have to notice, too.
    silent: Vec<Duration>,
    /// Another manager had to take over first.
    leaderless: Vec<Duration>,
}

impl Recoveries {
    fn of(&mut self, kind: Kill, led_from_there: bool) -> &mut Vec<Duration> {
        match kind {
            Kill::Server | Kill::Postmaster => &mut self.killed,
            Kill::Partition if led_from_there => &mut self.leaderless,
            Kill::ServerStops | Kill::Partition => &mut self.silent,
            _ => &mut self.leaderless,
        }
    }

    fn print(&mut self) {
        for (what, all) in [
            ("the primary was killed", &mut self.killed),
            ("the primary stood still or was cut off", &mut self.silent),
            ("the leading manager was lost, too", &mut self.leaderless),
        ] {
            all.sort();
            let at = |share: usize| all.get((all.len() * share).div_ceil(100).max(1) - 1);
            if let (Some(middle), Some(late)) = (at(50), at(99)) {
                println!(
                    "FIGURE from the kill to the first good write where {what}: p50 {middle:?}, p99 {late:?}, of {}",
                    all.len()
                );
            }
        }
    }
}

async fn lose(fleet: &mut Fleet, clients: &Clients, kind: Kill, recoveries: &mut Recoveries) {
    let count = clients.count();
    until("writes flow", async || clients.count() > count + 20).await;
    let ((epoch, primary), leader) = (fleet.told(), fleet.leader().await);
    let moment = Instant::now();
    let old = fleet.nodes[primary].clone();
    println!("{kind:?}: region {primary} in epoch {epoch}, led by {leader}");
    match kind {
        Kill::Server => old.kill().await.expect("killed"),
        Kill::ServerStops => old.freeze().expect("frozen"),
        Kill::Partition => fleet.cut_off(primary).await,
        Kill::Postmaster => old.kill_postmaster().await.expect("killed"),
        Kill::ServerAndLeader => {
            fleet.managers[leader].kill().await;
            old.kill().await.expect("killed");
        }
        Kill::ServerWhileLeaderStops => {
            fleet.managers[leader].stop();
            old.kill().await.expect("killed");
        }
        Kill::LeaderInFailover => {
            old.kill().await.expect("killed");
            let mut reports = fleet.managers[leader].reports.clone();
            let began = reports.wait_for(|report| report.operates || report.epoch > epoch);
            began.await.expect("it lives");
            fleet.managers[leader].kill().await;
        }
    }
    until("another primary is told", async || {
        let (now, heir) = fleet.told();
        now > epoch && heir != primary
    })
    .await;
    until("a write at the heir", async || clients.first_above(epoch).is_some()).await;
    let recovered = clients.first_above(epoch).expect("found").duration_since(moment);
    println!("    a good write after {recovered:?}");
    recoveries.of(kind, leader == primary).push(recovered);
    match kind {
        // It may have been stopped for good by now.
        Kill::ServerStops => drop(old.thaw()),
        Kill::Partition => fleet.heal().await,
        Kill::ServerAndLeader | Kill::LeaderInFailover => fleet.restart(leader),
        Kill::ServerWhileLeaderStops => fleet.managers[leader].go_on(),
        Kill::Server | Kill::Postmaster => {}
    }
    fleet.settle("the old primary follows").await;
}

async fn kill(rounds: usize, config: FailoverConfig) {
    let mut fleet = Fleet::start(config).await;
    let clients = fleet.clients().await;
    let mut recoveries = Recoveries::default();
    for round in 0..rounds {
        lose(&mut fleet, &clients, KINDS[round % KINDS.len()], &mut recoveries).await;
    }
    let acks = clients.finish().await;
    fleet.settle("all is well at the end").await;
    let stored = fleet.stored().await;
    let wrong = violations(&acks, &stored);
    let unproven: u32 = fleet.managers.iter().map(|m| m.reports.borrow().unproven).sum();
    let strangers = acks.iter().filter(|ack| !ack.follows).count();
    println!(
        "FIGURE {rounds} kills: {} writes acknowledged, {strangers} of them to clients that follow nobody; {} epochs; {} lost or acknowledged twice",
        acks.len(),
        fleet.told().0,
        wrong.len()
    );
    recoveries.print();
    assert!(wrong.is_empty(), "{:#?}", &wrong[..wrong.len().min(10)]);
    assert_eq!(unproven, 0, "promotions without a proof");
    assert!(acks.len() > rounds * 20 && fleet.managers.len() == SIDE);
}

/// The fast profile, 250 ms by 3.
fn fast() -> FailoverConfig {
    FailoverConfig {
        allow_promotion: true,
        auto_failback: false,
        synchronous_standbys: 1,
        failover_budget: 10_000,
        ..FailoverConfig::fast()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_mixed_kinds_lose_no_acknowledged_write() {
    // A probe that takes longer on a busy machine is no failure here.
    let config = FailoverConfig {
        health_check_interval: Duration::from_millis(800),
        probe_timeout: Duration::from_millis(750),
        lease_ttl: Duration::from_secs(7),
        lease_guard: Duration::from_millis(500),
        step_timeout: Duration::from_secs(10),
        ..fast()
    };
    kill(10, config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half an hour: scripts/soak ha; RESONANT_HA_KILLS, default 200"]
async fn two_hundred_kills_of_mixed_kinds_lose_no_acknowledged_write() {
    let kills = std::env::var("RESONANT_HA_KILLS").ok().and_then(|text| text.parse().ok());
    kill(kills.unwrap_or(200), fast()).await;
}
