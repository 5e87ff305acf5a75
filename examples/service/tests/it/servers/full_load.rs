//! Processes are told to end while they have all they can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Servers;
use crate::embedded::tasks_are_followed;
use crate::process::{LIMIT, Role, ask};

const CLIENTS: u64 = 8;

/// An instance as a balancer sees it.
#[derive(Clone)]
struct Member {
    address: std::net::SocketAddr,
    ready: Arc<AtomicBool>,
}

impl Member {
    /// Asks it whether it is ready, as long as it can be asked.
    fn of(role: &Role) -> Self {
        let member = Self { address: role.address, ready: Arc::new(AtomicBool::new(true)) };
        let asked = member.clone();
        tokio::spawn(async move {
            while asked.ready.load(Ordering::Acquire) {
                let answer = ask(asked.address, "GET", "/health/ready", "").await;
                asked.ready.store(matches!(answer, Ok((200, _))), Ordering::Release);
                sleep(Duration::from_millis(20)).await;
            }
        });
        member
    }
}

#[derive(Default)]
struct Load {
    ends: AtomicBool,
    accepted: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    fn client(self: &Arc<Self>, number: u64, members: &[Member]) -> JoinHandle<()> {
        let (load, members) = (Arc::clone(self), members.to_vec());
        tokio::spawn(async move {
            for turn in 0.. {
                if load.ends.load(Ordering::Acquire) {
                    return;
                }
                let ready: Vec<_> =
                    members.iter().filter(|it| it.ready.load(Ordering::Acquire)).collect();
                let member = ready[turn % ready.len()];
                let agent = format!("agent_{}", (number + turn as u64) % 50);
                let task = json!({ "agent_id": agent, "goal": "Process data" }).to_string();
                let path = format!("/sessions/load_{number}/tasks");
                let answer = ask(member.address, "POST", &path, &task).await;
                if matches!(answer, Ok((202, _))) {
                    load.accepted.fetch_add(1, Ordering::AcqRel);
                } else {
                    load.failed.fetch_add(1, Ordering::AcqRel);
                    eprintln!("failed: {answer:?}");
                }
            }
        })
    }

    async fn grows_by(&self, more: u64) {
        let wanted = self.accepted.load(Ordering::Acquire) + more;
        let growing = async {
            while self.accepted.load(Ordering::Acquire) < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, growing).await.expect("the load does not go on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_at_full_load_nothing_is_lost_and_nothing_fails() {
    let servers = Servers::start().await;
    let primary = servers.primary();
    let role = |name: &str| servers.role(name);
    let one = Role::start(role("api")).await;
    let (other, session) = tokio::join!(Role::start(role("api")), Role::start(role("session")));
    let (worker, second) = tokio::join!(Role::start(role("worker")), Role::start(role("worker")));
    tasks_are_followed(&one, &session).await;

    let load = Arc::new(Load::default());
    let members = [Member::of(&one), Member::of(&other)];
    let clients: Vec<_> = (0..CLIENTS).map(|number| load.client(number, &members)).collect();
    load.grows_by(200).await;

    worker.signal("-TERM");
    let (status, said) = worker.ended().await;
    assert!(status.success() && said.ends_with("nothing left"), "worker: {status}: {said}");
    load.grows_by(100).await;
    one.signal("-TERM");
    let (status, said) = one.ended().await;
    assert!(status.success() && said.ends_with("nothing left"), "api: {status}: {said}");
    load.grows_by(100).await;

    load.ends.store(true, Ordering::Release);
    for client in clients {
        client.await.unwrap();
    }
    let accepted = load.accepted.load(Ordering::Acquire);
    assert_eq!(load.failed.load(Ordering::Acquire), 0, "of {accepted}");
    let of_load = "FROM tasks WHERE session LIKE 'load%'";
    let done = async {
        let sql = format!("SELECT count(*) {of_load} AND state = 'done'");
        while primary.value(&sql).await.unwrap() != accepted.to_string() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, done).await.expect("accepted tasks are not done");
    let stored = primary.value(&format!("SELECT count(*) {of_load}")).await.unwrap();
    assert_eq!(stored, accepted.to_string());
    println!(
        "FIGURE app: {accepted} tasks accepted and done, 0 failed, through the end of an api and a worker"
    );

    for role in [other, session, second] {
        role.signal("-TERM");
        let (status, said) = role.ended().await;
        assert!(status.success(), "{status}: {said}");
    }
}
