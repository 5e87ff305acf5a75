//! Writers of two processes who each know what should be there, while a third shard takes its part of the buckets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use resonant_db::sharding::MoveEvent;
use resonant_db::{Result, ShardedDatabase, params, row};
use tokio::time::{Instant, sleep};

use super::{at_home, fill, grown, nothing_left, process, three};

/// What a writer knows to be there: scores by organisation and id.
pub(super) type Truth = BTreeMap<(String, i64), i64>;

pub(super) struct Writer {
    processes: Vec<ShardedDatabase>,
    orgs: Vec<String>,
    pub(super) truth: Truth,
    next: i64,
    state: u64,
    /// How long calls took, with the key they were about.
    pub(super) took: Vec<(String, Duration)>,
}

impl Writer {
    pub(super) fn new(processes: &[ShardedDatabase], number: u64, orgs: u64) -> Self {
        Self {
            processes: processes.to_vec(),
            orgs: (0..orgs).map(|org| format!("w{number}_{org}")).collect(),
            truth: Truth::new(),
            next: 1,
            state: number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            took: Vec::new(),
        }
    }

    fn chance(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % below
    }

    /// One call, through any of the processes; its answer has to be what it would be on one server.
    pub(super) async fn call(&mut self) -> Result<()> {
        let process = self.chance(self.processes.len());
        let db = self.processes[process].clone();
        let org = self.chance(self.orgs.len());
        let org = self.orgs[org].clone();
        let known: Vec<i64> =
            self.truth.keys().filter(|(own, _)| *own == org).map(|(_, id)| *id).collect();
        let some = if known.is_empty() { None } else { Some(known[self.chance(known.len())]) };
        let begun = Instant::now();
        match (self.chance(8), some) {
            (0 | 1, _) | (_, None) => {
                self.next += 1;
                let sql = "INSERT INTO agents (org_id, id, score) VALUES ($1, $2, 0)";
                assert_eq!(db.execute(sql, params![&org, self.next]).await?, 1);
                self.truth.insert((org.clone(), self.next), 0);
            }
            (2 | 3, Some(id)) => {
                let sql = "UPDATE agents SET score = score + 1 WHERE org_id = $1 AND id = $2";
                assert_eq!(db.execute(sql, params![&org, id]).await?, 1, "{org} {id} is gone");
                *self.truth.entry((org.clone(), id)).or_default() += 1;
            }
            (4, Some(id)) => {
                let sql = "DELETE FROM agents WHERE org_id = $1 AND id = $2 RETURNING score";
                let score: Vec<i64> = db.query_as(sql, params![&org, id]).await?;
                assert_eq!(score, [self.truth[&(org.clone(), id)]], "{org} {id}");
                self.truth.remove(&(org.clone(), id));
            }
            (5, Some(id)) => {
                let add = db
                    .transaction(&org, async |tx| {
                        let sql =
                            "SELECT score FROM agents WHERE org_id = $1 AND id = $2 FOR UPDATE";
                        let score: Vec<i64> = tx.query_as(sql, params![&org, id]).await?;
                        let sql = "UPDATE agents SET score = $3 WHERE org_id = $1 AND id = $2";
                        tx.execute(sql, params![&org, id, score[0] + 10]).await?;
                        Ok(score[0])
                    })
                    .await?;
                assert_eq!(add, self.truth[&(org.clone(), id)]);
                self.truth.insert((org.clone(), id), add + 10);
            }
            (6, Some(_)) => {
                let ids = [self.next + 1, self.next + 2, self.next + 3];
                self.next += 3;
                let sql = "INSERT INTO agents (org_id, id, score) VALUES ($1, $2, 1)";
                let other = self.chance(self.orgs.len());
                let other = self.orgs[other].clone();
                let rows = [row![&org, ids[0]], row![&other, ids[1]], row![&org, ids[2]]];
                assert_eq!(db.execute_many(sql, rows.iter()).await?, 3);
                self.truth.insert((org.clone(), ids[0]), 1);
                self.truth.insert((other, ids[1]), 1);
                self.truth.insert((org.clone(), ids[2]), 1);
            }
            _ => {
                let sql = "SELECT id, score FROM agents WHERE org_id = $1 ORDER BY id";
                let found: Vec<(i64, i64)> = db.query_as(sql, params![&org]).await?;
                let own = self.truth.iter().filter(|((own, _), _)| *own == org);
                let expected: Vec<(i64, i64)> = own.map(|((_, id), score)| (*id, *score)).collect();
                assert_eq!(found, expected, "{org} through process {process}");
            }
        }
        self.took.push((org, begun.elapsed()));
        Ok(())
    }

    /// Everything it knows is there, and nothing else of its own.
    pub(super) async fn verify(&self, db: &ShardedDatabase) {
        for org in &self.orgs {
            let sql = "SELECT id, score FROM agents WHERE org_id = $1 ORDER BY id";
            let found: Vec<(i64, i64)> = db.query_as(sql, params![org]).await.expect("read");
            let own = self.truth.iter().filter(|((own, _), _)| own == org);
            let expected: Vec<(i64, i64)> = own.map(|((_, id), score)| (*id, *score)).collect();
            assert_eq!(found, expected, "{org}");
        }
    }
}

struct Load {
    writers: u64,
    orgs: u64,
    /// Between two calls of a writer.
    pace: Duration,
    fixed: (i64, i64),
    group_rows: u64,
}

/// Moves a third of the buckets under a load, and says how it went.
async fn grow_under(load: Load) {
    let held = three().await;
    let processes = [process(&held, 2).await, process(&held, 2).await];
    let db = &processes[0];
    let (orgs, each) = load.fixed;
    fill(db, orgs, each).await;
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for number in 0..load.writers {
        let mut writer = Writer::new(&processes, number, load.orgs);
        let (stop, calls, pace) = (Arc::clone(&stop), Arc::clone(&calls), load.pace);
        writers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                writer.call().await.unwrap_or_else(|error| panic!("{error} {error:?}"));
                calls.fetch_add(1, Ordering::Relaxed);
                sleep(pace).await;
            }
            writer
        }));
    }
    // Of every shard at once: what nobody changes is there once, at any time.
    let counter = tokio::spawn({
        let (db, stop) = (processes[1].clone(), Arc::clone(&stop));
        async move {
            let mut counts = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let sql = "SELECT count(*) FROM agents WHERE note IS NOT NULL";
                let rows = db.query_all(sql, params![]).await.expect("counted");
                assert_eq!(rows.decode::<i64>().expect("one"), [orgs * each]);
                let sql = "SELECT org_id, id FROM agents WHERE note IS NOT NULL AND id = 0 ORDER BY org_id COLLATE \"C\"";
                let mut stream = db.stream_all(sql, params![]).await.expect("opened");
                let mut seen = 0;
                while stream.next().await.expect("a row").is_some() {
                    seen += 1;
                }
                assert_eq!(seen, orgs);
                counts += 1;
                sleep(Duration::from_millis(10)).await;
            }
            counts
        }
    });
    sleep(Duration::from_millis(300)).await;
    let plan = grown(db).await;
    let begun = Instant::now();
    let before = calls.load(Ordering::Relaxed);
    let gave_way = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&gave_way);
    let mover = db.mover().group_rows(load.group_rows).on_event(move |event| {
        if event == MoveEvent::GaveWay {
            heard.fetch_add(1, Ordering::Relaxed);
        }
    });
    let reports = mover.run(&plan).await.expect("moved");
    let (lasted, during) = (begun.elapsed(), calls.load(Ordering::Relaxed) - before);
    sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let mut took: [Vec<Duration>; 2] = Default::default();
    let mut rows = orgs * (each + 1);
    for writer in writers {
        let writer = writer.await.expect("no client error");
        // Another process that has just started finds the same.
        writer.verify(&process(&held, 2).await).await;
        rows += writer.truth.len() as i64;
        for (org, time) in writer.took {
            let moved = db.shard_for(&org).expect("a shard") == "shard_2";
            took[usize::from(moved)].push(time);
        }
    }
    let counts = counter.await.expect("never wrong");
    nothing_left(db).await;
    let homes = at_home(db).await;
    assert_eq!(homes.iter().sum::<i64>(), rows, "{homes:?}");
    assert!(homes[2] > 0, "{homes:?}");
    let mut pauses: Vec<Duration> =
        reports.iter().flat_map(|report| report.pauses.clone()).collect();
    pauses.sort();
    let part = |sorted: &[Duration], percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    for report in &reports {
        println!("{report}");
    }
    println!(
        "FIGURE sharding.move calls={during} in {lasted:?} ({:.0}/s), counts={counts}, gave way {} times",
        during as f64 / lasted.as_secs_f64(),
        gave_way.load(Ordering::Relaxed)
    );
    println!(
        "FIGURE sharding.move.pause groups={} p50={:?} p99={:?} max={:?}",
        pauses.len(),
        part(&pauses, 50),
        part(&pauses, 99),
        part(&pauses, 100)
    );
    for (name, times) in ["staying", "moving"].iter().zip(&mut took) {
        times.sort();
        println!(
            "FIGURE sharding.move.call_{name} p50={:?} p99={:?} max={:?} of {}",
            part(times, 50),
            part(times, 99),
            part(times, 100),
            times.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_a_shard_takes_its_part() {
    grow_under(Load {
        writers: 6,
        orgs: 12,
        pace: Duration::from_millis(4),
        fixed: (60, 50),
        group_rows: 500,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute or two: scripts/soak db"]
async fn two_hundred_thousand_rows_move_under_two_thousand_calls_a_second() {
    grow_under(Load {
        writers: 32,
        orgs: 20,
        pace: Duration::from_millis(12),
        fixed: (3_000, 200),
        group_rows: 2_000,
    })
    .await;
}
