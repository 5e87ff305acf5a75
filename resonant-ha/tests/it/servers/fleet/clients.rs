//! Clients that write and remember what was acknowledged: those that follow the managers, and those that try each server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resonant_db::{Database, params};
use resonant_testkit::PgNode;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

/// The server stores, and says with its answer, in which epoch it wrote.
const WRITE: &str = "INSERT INTO w SELECT $1, epoch FROM resonant_ha \
                     RETURNING epoch, current_setting('cluster_name')";

/// How often a client writes.
const EVERY: Duration = Duration::from_millis(25);
/// How often one does that tries a server of its own.
const RARELY: Duration = Duration::from_millis(50);
/// How many of its writes may wait at the same time.
const OPEN: usize = 300;

#[derive(Debug, Clone)]
pub(in crate::servers) struct Ack {
    pub(in crate::servers) id: i64,
    pub(in crate::servers) epoch: i64,
    pub(in crate::servers) server: String,
    pub(in crate::servers) follows: bool,
    pub(in crate::servers) began: Instant,
    pub(in crate::servers) at: Instant,
}

/// All clients; dropped, they end.
#[derive(Debug)]
pub(in crate::servers) struct Clients {
    acks: Arc<Mutex<Vec<Ack>>>,
    tasks: JoinSet<()>,
}

/// One request of a client that follows the managers.
async fn follow(db: Database, id: i64, acks: Arc<Mutex<Vec<Ack>>>) {
    let began = Instant::now();
    if let Ok(rows) = db.write().query(WRITE, params![id]).await
        && let Some(row) = rows.first()
    {
        let (epoch, server) = (row.get(0).expect("an epoch"), row.get(1).expect("a name"));
        let ack = Ack { id, epoch, server, follows: true, began, at: Instant::now() };
        acks.lock().unwrap().push(ack);
    }
}

impl Clients {
    pub(in crate::servers) fn start(db: &Database, nodes: &[PgNode]) -> Self {
        let (acks, next) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicI64::new(1)));
        let mut tasks = JoinSet::new();
        {
            // Requests come whether or not those before them have been answered.
            let (db, acks, next) = (db.clone(), Arc::clone(&acks), Arc::clone(&next));
            tasks.spawn(async move {
                let mut requests = JoinSet::new();
                let mut comes = interval(EVERY);
                loop {
                    comes.tick().await;
                    while requests.try_join_next().is_some() {}
                    if requests.len() < OPEN {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        requests.spawn(follow(db.clone(), id, Arc::clone(&acks)));
                    }
                }
            });
        }
        for node in nodes {
            // One that knows no managers, and no partition: it is on the server's own machine.
            let (node, acks, next) = (node.clone(), Arc::clone(&acks), Arc::clone(&next));
            tasks.spawn(async move {
                loop {
                    if let Ok(mut session) = node.session().await {
                        loop {
                            let id = next.fetch_add(1, Ordering::Relaxed);
                            let (began, sql) =
                                (Instant::now(), WRITE.replace("$1", &id.to_string()));
                            let Ok(rows) = session.sql(&sql).await else { break };
                            let Some(row) = rows.first() else { break };
                            let text = |column| row.get(column).expect("a value").to_owned();
                            let epoch = text(0).parse().expect("an epoch");
                            let (server, at) = (text(1), Instant::now());
                            let ack = Ack { id, epoch, server, follows: false, began, at };
                            acks.lock().unwrap().push(ack);
                            sleep(RARELY).await;
                        }
                    }
                    sleep(RARELY).await;
                }
            });
        }
        Self { acks, tasks }
    }

    pub(in crate::servers) fn count(&self) -> usize {
        self.acks.lock().unwrap().len()
    }

    /// When the first write of a follower was acknowledged in an epoch above this one.
    pub(in crate::servers) fn first_above(&self, epoch: u64) -> Option<Instant> {
        let acks = self.acks.lock().unwrap();
        let above = acks.iter().rev().take_while(|ack| ack.epoch.cast_unsigned() >= epoch);
        let above = above.filter(|ack| ack.follows && ack.epoch.cast_unsigned() > epoch);
        above.map(|ack| ack.at).min()
    }

    pub(in crate::servers) async fn finish(mut self) -> Vec<Ack> {
        self.tasks.shutdown().await;
        std::mem::take(&mut self.acks.lock().unwrap())
    }
}

/// What is wrong with these acknowledgements, where `stored` is what the last primary has, by number with the epoch.
pub(in crate::servers) fn violations(acks: &[Ack], stored: &BTreeMap<i64, i64>) -> Vec<String> {
    let mut wrong = Vec::new();
    for ack in acks {
        match stored.get(&ack.id) {
            Some(epoch) if *epoch == ack.epoch => {}
            found => wrong.push(format!("lost: {ack:?}, found {found:?}")),
        }
    }
    let mut servers: BTreeMap<i64, &str> = BTreeMap::new();
    for ack in acks {
        let known = servers.entry(ack.epoch).or_insert(&ack.server);
        if *known != ack.server {
            wrong.push(format!("epoch {} acknowledged by {known} and {}", ack.epoch, ack.server));
        }
    }
    // Nobody begins a write that is acknowledged in an epoch after one of a higher epoch was.
    let mut by_end: Vec<&Ack> = acks.iter().collect();
    by_end.sort_by_key(|ack| ack.at);
    let mut by_begin: Vec<&Ack> = acks.iter().collect();
    by_begin.sort_by_key(|ack| ack.began);
    let (mut ended, mut highest) = (by_end.into_iter().peekable(), 0);
    for ack in by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.at < ack.began) {
            highest = highest.max(earlier.epoch);
        }
        if ack.epoch < highest {
            wrong.push(format!("acknowledged after one of epoch {highest}: {ack:?}"));
        }
    }
    wrong
}

#[test]
fn what_is_lost_or_acknowledged_twice_is_found() {
    let now = Instant::now();
    let ack = |id, epoch, server: &str, began: u64, at: u64| Ack {
        id,
        epoch,
        server: server.to_owned(),
        follows: true,
        began: now + Duration::from_secs(began),
        at: now + Duration::from_secs(at),
    };
    let good = [ack(1, 1, "a", 0, 1), ack(2, 1, "a", 2, 9), ack(3, 2, "b", 3, 4)];
    let stored = BTreeMap::from([(1, 1), (2, 1), (3, 2)]);
    assert_eq!(violations(&good, &stored), Vec::<String>::new());
    let lost = BTreeMap::from([(1, 1), (3, 2)]);
    assert_eq!(violations(&good, &lost).len(), 1);
    let twice = [ack(1, 1, "a", 0, 1), ack(2, 1, "b", 2, 9)];
    assert_eq!(violations(&twice, &stored).len(), 1);
    let late = [ack(3, 2, "b", 3, 4), ack(1, 1, "a", 5, 6)];
    assert_eq!(violations(&late, &stored).len(), 1);
}
