//! The routing over handles of a user's own, in the shapes users write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_common::join::{Node, Position, Topology};
use resonant_db::replica_set::{Observation, ReadStrategy, ReplicaSet, Role, RoutingConfig};
use resonant_db::{Error, ErrorKind};
use tokio::time::sleep;

/// A pool of somebody else's driver, and the servers behind it.
#[derive(Debug, Clone)]
struct Pool {
    name: String,
    servers: Arc<Mutex<HashMap<String, Server>>>,
}

#[derive(Debug, Clone, Copy)]
struct Server {
    role: Role,
    timeline: u32,
    offset: u64,
    down: bool,
}

impl Pool {
    fn server(&self) -> std::io::Result<Server> {
        let servers = self.servers.lock().expect("no test panics while holding it");
        let server = servers.get(&self.name).copied().expect("known");
        if server.down { Err(std::io::Error::other("refused")) } else { Ok(server) }
    }

    async fn ask(self) -> std::io::Result<Observation> {
        let Server { role, timeline, offset, .. } = self.server()?;
        let position = Position { system: 1, timeline, offset };
        Ok(Observation::alive().role(role).position(position))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Server)) {
        let mut servers = self.servers.lock().expect("no test panics while holding it");
        change(servers.get_mut(name).expect("known"));
    }
}

fn pools() -> [Pool; 3] {
    let server = |role| Server { role, timeline: 1, offset: 10, down: false };
    let servers = HashMap::from([
        ("p".to_owned(), server(Role::Primary)),
        ("a".to_owned(), server(Role::Replica)),
        ("b".to_owned(), server(Role::Replica)),
    ]);
    let servers = Arc::new(Mutex::new(servers));
    ["p", "a", "b"].map(|name| Pool { name: name.into(), servers: Arc::clone(&servers) })
}

fn set([p, a, b]: [Pool; 3]) -> ReplicaSet<Pool> {
    ReplicaSet::builder()
        .name("orders")
        .primary("p", p)
        .replica("a", a)
        .replica("b", b)
        .read_strategy(ReadStrategy::PeakEwma)
        .probe(|pool: Pool| pool.ask())
        .build()
        .expect("good settings")
}

/// What a handler of a service does: goes on to another node when one fails.
async fn read(set: &ReplicaSet<Pool>) -> Result<String, String> {
    let mut tour = set.tour();
    let mut last = "nobody was asked".to_owned();
    while let Some(node) = tour.next_node() {
        match node.server() {
            Ok(_) => {
                node.succeeded();
                return Ok(node.name().to_owned());
            }
            Err(error) => {
                tour.failed(&node, &error);
                last = error.to_string();
            }
        }
    }
    Err(last)
}

#[tokio::test(start_paused = true)]
async fn any_handle_is_routed_and_fails_over() -> Result<(), Error> {
    let pools = pools();
    let set = set(pools.clone());
    // As a handler does: in a task of its own, with a handle of its own.
    let there = tokio::spawn({
        let set = set.clone();
        async move { read(&set).await }
    });
    assert_ne!(there.await.expect("no panic"), Ok("p".into()));
    assert_eq!(set.write()?.name(), "p");
    sleep(Duration::from_secs(1)).await;
    pools[0].change("a", |server| server.down = true);
    for _ in 0..20 {
        assert_eq!(read(&set).await, Ok("b".into()));
    }
    pools[0].change("p", |server| server.down = true);
    let old = set.write()?;
    old.failed(&"refused");
    pools[0].change("b", |server| (server.role, server.timeline) = (Role::Primary, 2));
    tokio::time::timeout(Duration::from_secs(1), set.left(&old)).await.expect("it moves");
    assert!(!old.is_current());
    assert_eq!(set.write()?.name(), "b");
    pools[0].change("a", |server| (server.down, server.timeline) = (false, 2));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(read(&set).await, Ok("a".into()));
    let states: Vec<_> = set.status().into_iter().map(|node| (node.role, node.ejected)).collect();
    assert_eq!(states, [(Role::Replica, true), (Role::Replica, false), (Role::Primary, false)]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn sessions_read_where_their_writes_are_known_to_be() -> Result<(), Error> {
    let pools = pools();
    let (set, elsewhere) = (set(pools.clone()), set(pools.clone()));
    sleep(Duration::from_secs(1)).await;
    let session = set.session();
    assert_ne!(session.read()?.name(), "p", "it has written nothing");
    let primary = set.write()?;
    pools[0].change("p", |server| server.offset = 20);
    session.wrote(&primary).await;
    let token = session.token().expect("it has written");
    for reader in [session.clone(), elsewhere.session_from(&token)?] {
        for _ in 0..10 {
            assert_eq!(reader.read()?.name(), "p");
        }
    }
    pools[0].change("b", |server| server.offset = 20);
    sleep(Duration::from_secs(1)).await;
    for reader in [session.clone(), elsewhere.session_from(&token)?] {
        for _ in 0..10 {
            assert_eq!(reader.read()?.name(), "b", "a has not come as far");
        }
    }
    // Where nobody says how far it is it is the primary.
    let unknown = set.session();
    pools[0].change("p", |server| server.down = true);
    unknown.wrote(&primary).await;
    assert_eq!(unknown.token().as_deref(), Some("primary"));
    assert_eq!(unknown.read()?.name(), "p");
    assert_eq!(set.session_from("nonsense").expect_err("no token").kind(), ErrorKind::Config);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_learned_how_far_its_write_came_reads_from_the_primary()
-> Result<(), Error> {
    let set = ReplicaSet::builder()
        .primary("p", ())
        .replica("a", ())
        .probe(|()| std::future::pending::<Result<Observation, Error>>())
        .build()?;
    let session = set.session();
    let primary = set.write()?;
    {
        let mut wrote = std::pin::pin!(session.wrote(&primary));
        assert!(futures::poll!(wrote.as_mut()).is_pending());
        // Dropped while the primary is being asked.
    }
    assert_eq!(session.read()?.name(), "p");
    assert_eq!(session.token().as_deref(), Some("primary"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn reads_within_a_bound_go_where_the_age_is_known() -> Result<(), Error> {
    let pools = pools();
    let set = set(pools.clone());
    assert_eq!(set.read_within(Duration::from_secs(9))?.name(), "p", "nothing is known yet");
    sleep(Duration::from_secs(1)).await;
    assert_ne!(set.read_within(Duration::from_millis(500))?.name(), "p");
    for name in ["p", "a"] {
        pools[0].change(name, |server| server.offset = 50);
    }
    sleep(Duration::from_secs(2)).await;
    for _ in 0..10 {
        assert_eq!(set.read_within(Duration::from_millis(500))?.name(), "a");
    }
    // By their own estimate, where there are no positions to compare.
    let lag = |name: &str| Duration::from_secs(if name == "a" { 5 } else { 1 });
    let set = ReplicaSet::builder()
        .primary("p", "p")
        .replica("a", "a")
        .replica("b", "b")
        .probe(move |name: &'static str| async move {
            Ok::<_, Error>(Observation::alive().lag(lag(name)))
        })
        .build()?;
    sleep(Duration::from_secs(1)).await;
    for _ in 0..10 {
        assert_eq!(set.read_within(Duration::from_secs(3))?.name(), "b");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_roles_are_what_was_said_and_topologies_move_them() -> Result<(), Error> {
    let (publish, topologies) =
        tokio::sync::watch::channel(Topology { epoch: 0, primary: None, nodes: Vec::new() });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let turned = Arc::clone(&seen);
    let set = ReplicaSet::builder()
        .primary("p", 0)
        .replica("a", 1)
        .routing(RoutingConfig::default())
        .on_role(move |handle, role| turned.lock().expect("whole").push((*handle, role)))
        .build()?;
    set.follow(topologies);
    sleep(Duration::from_millis(10)).await;
    assert_eq!((*set.write()?, *set.read()?), (0, 1), "an empty topology says nothing");
    let node = |name: &str| Node { name: name.into(), url: String::new() };
    publish.send_replace(Topology {
        epoch: 1,
        primary: Some("a".into()),
        nodes: vec![node("p"), node("a"), node("unknown")],
    });
    sleep(Duration::from_millis(10)).await;
    assert_eq!((*set.write()?, *set.read()?), (1, 0));
    assert_eq!(set.status().len(), 2, "a node nobody can open is left out");
    assert_eq!(*seen.lock().expect("whole"), [(0, Role::Replica), (1, Role::Primary)]);
    Ok(())
}

#[test]
fn a_set_needs_nodes_with_names_of_their_own_and_one_primary() {
    let kind = |set: Result<ReplicaSet<u8>, Error>| set.expect_err("refused").kind();
    assert_eq!(kind(ReplicaSet::builder().build()), ErrorKind::Config);
    assert_eq!(
        kind(ReplicaSet::builder().primary("a", 1).replica("a", 2).build()),
        ErrorKind::Config
    );
    assert_eq!(
        kind(ReplicaSet::builder().primary("a", 1).primary("b", 2).build()),
        ErrorKind::Config
    );
    // Outside of a runtime it is built, and asks from the first call on.
    assert!(ReplicaSet::builder().primary("a", 1).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_background_ends_with_the_last_handle() {
    let asked = Arc::new(());
    let held = Arc::clone(&asked);
    let set = ReplicaSet::builder()
        .primary("p", ())
        .replica("a", ())
        .probe(move |()| {
            let held = Arc::clone(&held);
            async move {
                drop(held);
                Ok::<_, Error>(Observation::alive())
            }
        })
        .build()
        .expect("good settings");
    sleep(Duration::from_secs(1)).await;
    assert!(Arc::strong_count(&asked) > 1);
    drop(set);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&asked), 1);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_one_node_routing_allocates_nothing() {
    let [primary, ..] = pools();
    let set = ReplicaSet::builder().name("one").primary("p", primary).build().expect("a set");
    let route = || set.tour().next_node().expect("the primary").succeeded();
    route();
    let cost = allocation_counter::measure(|| (0..1000).for_each(|_| route()));
    assert_eq!((cost.count_total, cost.bytes_total), (0, 0), "{cost:?}");
    let control = allocation_counter::measure(|| drop(Box::new([0_u8; 64])));
    assert_eq!(control.count_total, 1, "the counter does not count");
}
