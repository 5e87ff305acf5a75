//! A manager in a process of its own: this very test program, started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_ha::backend::postgres::{PostgresRegion, PostgresVoter};
use resonant_ha::voter::{Quorum, Voter};
use resonant_ha::{FailoverConfig, FailoverManager};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::interval;

use super::super::stage::{REGIONS, settled};
use super::host::RemoteAgent;

/// What the program finds its settings in.
const SETTINGS: &str = "RESONANT_HA_MANAGER";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::servers) struct Settings {
    pub(in crate::servers) config: FailoverConfig,
    /// By region: where this manager reaches the server, and where everybody else does.
    pub(in crate::servers) servers: Vec<(String, String, String)>,
    pub(in crate::servers) voters: Vec<String>,
    pub(in crate::servers) agents: SocketAddr,
}

/// What a manager says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::servers) struct Report {
    pub(in crate::servers) epoch: u64,
    pub(in crate::servers) primary: Option<String>,
    pub(in crate::servers) leads: bool,
    pub(in crate::servers) operates: bool,
    pub(in crate::servers) settled: bool,
    pub(in crate::servers) alarm: bool,
    /// What has been promoted without a proof.
    pub(in crate::servers) unproven: u32,
}

/// A manager, seen from the test.
#[derive(Debug)]
pub(in crate::servers) struct Process {
    child: Child,
    pub(in crate::servers) reports: watch::Receiver<Report>,
    /// The last things it told, for a test that fails.
    pub(in crate::servers) told: Arc<Mutex<Vec<String>>>,
    pub(in crate::servers) stopped: bool,
}

impl Process {
    /// Starts one. It ends with this handle, or with the test process, whichever comes first.
    pub(in crate::servers) fn start(settings: &Settings) -> Self {
        let program = std::env::current_exe().expect("a running test has a path");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.args(["--exact", "servers::fleet::process::a_manager_process"]);
        command.args(["--ignored", "--nocapture", "--test-threads=1"]);
        command.env(SETTINGS, serde_json::to_string(settings).expect("plain data"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the test program starts");
        let lines = child.stdout.take().expect("a pipe");
        let (sender, reports) = watch::channel(Report::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        tokio::spawn(async move {
            let mut lines = BufReader::new(lines).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // The harness talks, too.
                match serde_json::from_str::<Report>(&line) {
                    Ok(report) => drop(sender.send(report)),
                    Err(_) => heard.lock().unwrap().push(line),
                }
            }
        });
        Self { child, reports, told, stopped: false }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(pid.expect("it was not waited for"), signal).expect("it is there");
    }

    pub(in crate::servers) fn stop(&mut self) {
        self.signal(Signal::STOP);
        self.stopped = true;
    }

    pub(in crate::servers) fn go_on(&mut self) {
        self.signal(Signal::CONT);
        self.stopped = false;
    }

    pub(in crate::servers) async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Whether it leads, as far as it has said.
    pub(in crate::servers) fn leads(&self) -> bool {
        !self.stopped && self.reports.borrow().leads
    }
}

/// Not a test by itself: tests start it to have a manager in a process of its own.
#[tokio::test]
#[ignore = "a manager of the tests in kills.rs, which start it as a process"]
async fn a_manager_process() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: Settings = serde_json::from_str(&settings).expect("settings");
    let voters = settings.voters.iter().map(|url| Arc::new(PostgresVoter::new(url.as_str())));
    let voters = voters.map(|voter| voter as Arc<dyn Voter>);
    let mut builder = FailoverManager::builder()
        .primary_region(REGIONS[0])
        .secondary_regions([REGIONS[1], REGIONS[2]])
        .config(settings.config)
        .lease_store(Quorum::new(voters).expect("a quorum"));
    for (number, (url, public, name)) in settings.servers.iter().enumerate() {
        let region = PostgresRegion::new(url.as_str())
            .client_url(public.as_str())
            .replication_url(public.as_str())
            .standby_name(name.as_str())
            .agent(RemoteAgent { address: settings.agents, region: number });
        builder = builder.region(REGIONS[number], region);
    }
    let manager = builder.build().expect("a manager");
    let mut events = manager.events();
    manager.start().await.expect("started");
    let (mut topologies, mut last) = (manager.subscribe(), Report::default());
    let (mut looks, mut unproven) = (interval(Duration::from_millis(50)), 0);
    let mut ends = tokio::io::stdin();
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            changed = topologies.changed() => changed.expect("the manager lives"),
            event = events.recv() => if let Ok(event) = event {
                let mut line = BTreeMap::from([("epoch", event.epoch.to_string())]);
                line.insert("told", format!("{:?}", event.kind));
                println!("{line:?}");
                unproven += u32::from(is_unproven(&event.kind));
            },
            // The test that started it has ended.
            _ = ends.read(&mut nothing) => break,
        }
        let (status, topology) = (manager.status(), topologies.borrow_and_update().clone());
        let report = Report {
            epoch: topology.epoch,
            primary: topology.primary,
            leads: !status.lease_remaining.is_zero(),
            operates: status.operation.is_some(),
            settled: settled(&manager),
            alarm: status.writable_primaries > 1,
            unproven,
        };
        if report != last {
            println!("{}", serde_json::to_string(&report).expect("plain data"));
            last = report;
        }
    }
    manager.close().await;
}

fn is_unproven(kind: &resonant_ha::EventKind) -> bool {
    use resonant_ha::{EventKind, Proof, Step};
    matches!(kind, EventKind::Step { step: Step::Promoting, proof, .. }
        if matches!(proof, None | Some(Proof::Unfenced)))
}
