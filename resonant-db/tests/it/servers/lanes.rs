//! Lanes: what shares a connection, what never does, and that nobody can tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use rand::RngExt;
use resonant_db::backend::{Lanes, LanesStatus};
use resonant_db::{Database, DatabaseBuilder, ErrorKind, PoolConfig, params};
use resonant_testkit::PostgresCluster;
use resonant_testkit::postgres::PgNode;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{LIMIT, database, until};

pub(super) const BY_KEY: &str = "SELECT id, name FROM item WHERE id = $1";
const ITEMS: &str = "CREATE TABLE item (id int8 PRIMARY KEY, name text NOT NULL); \
                     INSERT INTO item SELECT n, 'item ' || n FROM generate_series(0, 999) AS n; ANALYZE item";

/// A server that writes down who ran what.
pub(super) async fn telling() -> PostgresCluster {
    let cluster = PostgresCluster::builder()
        .setting("log_min_duration_statement", "0")
        .setting("log_line_prefix", "%a|")
        .start()
        .await
        .expect("a server");
    cluster.primary().sql(ITEMS).await.expect("items");
    cluster
}

/// What ran on lanes, as the server tells.
pub(super) fn on_lanes(node: &PgNode) -> Vec<String> {
    let log = std::fs::read(node.log_file()).expect("the log");
    let log = String::from_utf8_lossy(&log);
    log.lines().filter_map(|line| line.strip_prefix("resonant lane|")).map(str::to_owned).collect()
}

pub(super) fn small(url: &str) -> DatabaseBuilder {
    let pool = PoolConfig::default().min_size(2).max_size(2).acquire_timeout(LIMIT);
    Database::builder().primary(url).pool(pool)
}

pub(super) fn lanes(db: &Database) -> LanesStatus {
    db.status().nodes[0].lanes
}

pub(super) async fn item(db: &Database, id: i64) -> resonant_db::Result<(i64, String)> {
    db.read().query_one_as(BY_KEY, params![id]).await
}

/// More readers than there are connections, until it is dropped.
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Crowd {
    pub(super) async fn gather(db: &Database, size: usize) -> Self {
        let (stop, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for task in 0..size {
            let (db, stop, failed) = (db.clone(), Arc::clone(&stop), Arc::clone(&failed));
            tasks.spawn(async move {
                let mut id = task as i64;
                while !stop.load(Ordering::Relaxed) {
                    id = (id + 7) % 1000;
                    match item(&db, id).await {
                        Ok(found) if found == (id, format!("item {id}")) => {}
                        other => {
                            eprintln!("a neighbour got {other:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let before = lanes(db).reads;
        until("reads share", async || lanes(db).reads > before + 100).await;
        Self { stop, failed, tasks }
    }

    /// How many reads failed, or had another one's answer.
    pub(super) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) async fn part(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a reader");
        }
        assert_eq!(self.failed(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_shares_and_each_gets_his_own_answer() {
    let server = telling().await;
    let db = small(&server.primary().url()).connect().await.expect("connect");
    for id in 0..50 {
        item(&db, id).await.expect("alone");
    }
    assert_eq!(lanes(&db), LanesStatus::default(), "who is alone takes an idle connection");
    let crowd = Crowd::gather(&db, 32).await;
    until("most share", async || lanes(&db).reads > 5_000).await;
    crowd.part().await;
    let ran = on_lanes(&server.primary());
    assert!(ran.iter().any(|line| line.contains(BY_KEY)), "{ran:?}");
    db.close(LIMIT).await.expect("close");
    until("nothing is left open", async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%lane'";
        server.primary().value(open).await.expect("count") == "0"
    })
    .await;
}

/// Reads that were counted on shared connections and on their own.
fn counted(snapshots: &Snapshotter) -> (u64, u64) {
    let (mut shared, mut own) = (0, 0);
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let DebugValue::Counter(count) = value else { continue };
        if key.key().name() == "resonant_db_reads_total" {
            match key.key().labels().find(|label| label.key() == "connection") {
                Some(label) if label.value() == "shared" => shared += count,
                _ => own += count,
            }
        }
    }
    (shared, own)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_counted_by_their_connection() {
    let server = telling().await;
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let url = server.primary().url();
    let db = metrics::with_local_recorder(&recorder, || small(&url).connect_lazy());
    let db = db.expect("a database");
    for id in 0..50 {
        item(&db, id).await.expect("alone");
    }
    assert_eq!(counted(&snapshots), (0, 50));
    let crowd = Crowd::gather(&db, 32).await;
    crowd.part().await;
    let (shared, own) = counted(&snapshots);
    assert_eq!(shared, lanes(&db).reads, "as many as the lanes have answered");
    assert!(own > 0, "whoever finds a connection idle takes it");
    db.close(LIMIT).await.expect("close");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_plain_read_never_runs_on_a_lane() {
    let server = telling().await;
    let node = server.primary();
    node.sql(
        "CREATE SEQUENCE numbers; \
         CREATE TABLE secret (n int); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; INSERT INTO secret VALUES (1); \
         CREATE FUNCTION writing() RETURNS int LANGUAGE sql AS 'INSERT INTO item VALUES (5000, ''x'') RETURNING 1'; \
         CREATE FUNCTION hidden() RETURNS text LANGUAGE sql AS 'SELECT set_config(''app.user'', ''eve'', false)'; \
         CREATE VIEW innocent AS SELECT hidden() AS n; \
         CREATE FUNCTION touched(item) RETURNS text LANGUAGE sql AS 'SELECT set_config(''app.user'', ''eve'', false)'; \
         CREATE FUNCTION lower(int8) RETURNS text LANGUAGE sql AS 'SELECT set_config(''app.user'', ''eve'', false)'; \
         CREATE DOMAIN checked AS int CHECK (VALUE > length(hidden()) - 99); \
         CREATE EXTENSION file_fdw; CREATE SERVER far FOREIGN DATA WRAPPER file_fdw; \
         CREATE TABLE spread (n int) PARTITION BY LIST (n); \
         CREATE TABLE near PARTITION OF spread FOR VALUES IN (0); \
         CREATE FOREIGN TABLE remote PARTITION OF spread FOR VALUES IN (1) SERVER far OPTIONS (filename '/dev/null'); \
         CREATE TABLE ancestor (n int); CREATE TABLE parent () INHERITS (ancestor); \
         CREATE FOREIGN TABLE child () INHERITS (parent) SERVER far OPTIONS (filename '/dev/null')",
    )
    .await
    .expect("a schema full of traps");
    let db = small(&node.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 24).await;
    let shapes = [
        "BEGIN",
        "INSERT INTO item VALUES (2000, 'x') RETURNING id",
        "WITH d AS (DELETE FROM item RETURNING id) SELECT count(*) FROM d",
        "SELECT writing()",
        "SELECT set_config('app.user', 'ada', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(2)",
        "SELECT id FROM item WHERE id = 1 FOR UPDATE",
        "SELECT id FROM item WHERE id = 1 FOR SHARE",
        "LISTEN news",
        "SET work_mem = '9MB'",
        "SELECT nextval('numbers')",
        "SELECT current_setting('work_mem')",
        "SELECT 1 AS n INTO TEMP mine",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SHOW work_mem",
        "SELECT hidden()",
        // Innocent by their text.
        "SELECT n FROM innocent",
        "SELECT i.touched FROM item i LIMIT 1",
        "SELECT lower(id) FROM item LIMIT 1",
        "SELECT n FROM secret",
        "SELECT 7::checked",
        "SELECT n FROM spread",
        "SELECT n FROM ancestor",
    ];
    for shape in shapes {
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let db = db.clone();
            // Refused or not: what matters is where it runs.
            calls.spawn(async move { drop(db.read().query(shape, params![]).await) });
        }
        for _ in 0..4 {
            drop(db.read().query(shape, params![]).await);
        }
        calls.join_all().await;
    }
    crowd.part().await;
    let ran = on_lanes(&node);
    assert!(ran.iter().any(|line| line.contains(BY_KEY)));
    for shape in shapes {
        let found: Vec<_> = ran.iter().filter(|line| line.contains(shape)).collect();
        assert!(found.is_empty(), "{shape} ran on a lane: {found:?}");
    }
    let count = "SELECT count(*) FROM item";
    assert_eq!(node.value(count).await.expect("count"), "1000", "no read has written anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_or_a_cast_of_the_users_own_ends_sharing() {
    let server = telling().await;
    let node = server.primary();
    node.sql(
        "CREATE FUNCTION loud(int8, text) RETURNS bool LANGUAGE plpgsql AS \
         'BEGIN PERFORM set_config(''app.user'', ''eve'', false); RETURN true; END'; \
         CREATE OPERATOR = (LEFTARG = int8, RIGHTARG = text, FUNCTION = loud)",
    )
    .await
    .expect("an operator");
    let db = small(&node.url()).connect().await.expect("connect");
    let round = async || {
        let reads = (0..200).map(|id| item(&db, id));
        for read in futures::future::join_all(reads).await {
            read.expect("a read");
        }
    };
    until("there are lanes", async || {
        round().await;
        lanes(&db).open > 0
    })
    .await;
    for _ in 0..10 {
        round().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(lanes(&db).reads, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_verdict_is_an_error_and_never_a_write() {
    let server = telling().await;
    let node = server.primary();
    let db = small(&node.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    // What was a table when it was looked at is a view that writes now.
    node.sql(
        "CREATE TABLE written (n int8); \
         CREATE FUNCTION writing() RETURNS text LANGUAGE sql AS 'INSERT INTO written VALUES (1) RETURNING ''x''::text'; \
         ALTER TABLE item RENAME TO old; CREATE VIEW item AS SELECT id, writing() AS name FROM old",
    )
    .await
    .expect("another schema");
    until("readers are refused", async || crowd.failed() > 50).await;
    let error = item(&db, 1).await.expect_err("it would write");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(node.value("SELECT count(*) FROM written").await.expect("count"), "0");
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_that_one_caller_sets_is_seen_by_another() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let db = small(&database.url()).connect().await.expect("connect");
    // A plain read whose answer depends on a setting of the session.
    let zone = "SELECT to_char(now(), 'TZ') FROM item WHERE id = 1";
    let usual: String = db.read().query_one_as(zone, params![]).await.expect("a zone");
    let crowd = Crowd::gather(&db, 16).await;
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let (db, usual) = (db.clone(), usual.clone());
        tasks.spawn(async move {
            for _ in 0..60 {
                let set = "SELECT set_config('timezone', 'Asia/Tokyo', false)";
                match task % 4 {
                    0 => drop(db.read().query(set, params![]).await.expect("set")),
                    1 => drop(db.write().execute("SET timezone = 'Asia/Tokyo'", params![]).await),
                    _ => {
                        let seen: String =
                            db.read().query_one_as(zone, params![]).await.expect("a zone");
                        assert_eq!(seen, usual);
                    }
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task");
    }
    crowd.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_behind_a_transaction_of_the_same_task() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    database.sql("CREATE TABLE other AS SELECT * FROM item").await.expect("another table");
    let db = small(&database.url())
        .statement_timeout(Duration::from_millis(700))
        .connect()
        .await
        .expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    let other = "SELECT id FROM other WHERE id = $1";
    // Known, so that it may share.
    for id in 0..20 {
        let _: i64 = db.read().query_one_as(other, params![id]).await.expect("a read");
    }
    let done = db.transaction(async |tx| {
        tx.execute("UPDATE item SET name = name WHERE id = 3", params![]).await?;
        // It sees what was committed, at once.
        assert_eq!(item(&db, 3).await?.0, 3);
        // Locked against reading, by the very task that reads: that cannot end well, but it ends, and only for this one.
        tx.execute("LOCK TABLE other IN ACCESS EXCLUSIVE MODE", params![]).await?;
        let locked = timeout(LIMIT, db.read().query(other, params![1])).await.expect("a deadline");
        let error = locked.expect_err("it is locked");
        assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Conflict), "{error}");
        Ok(())
    });
    timeout(LIMIT, done).await.expect("no deadlock").expect("a transaction");
    crowd.part().await;

    // Nothing but the lanes is left to read with.
    let db = small(&database.url())
        .pool(PoolConfig::default().min_size(1).max_size(1))
        .connect()
        .await
        .expect("connect");
    let crowd = Crowd::gather(&db, 8).await;
    let read = db.transaction(async |tx| {
        tx.execute("UPDATE item SET name = name WHERE id = 4", params![]).await?;
        item(&db, 4).await
    });
    let (id, _) = timeout(LIMIT, read).await.expect("no deadlock").expect("a read");
    assert_eq!(id, 4);
    crowd.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_reads_are_dropped_and_no_neighbour_hears_of_it() {
    let server = telling().await;
    let db = small(&server.primary().url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    let mut droppers = JoinSet::new();
    for _ in 0..20 {
        let db = db.clone();
        droppers.spawn(async move {
            let mut dropped = 0;
            while dropped < 500 {
                let moment = Duration::from_micros(rand::rng().random_range(0..1_500));
                dropped += usize::from(timeout(moment, item(&db, 7)).await.is_err());
            }
        });
    }
    droppers.join_all().await;
    until("neighbours have shared meanwhile", async || lanes(&db).reads > 2_000).await;
    let shared = lanes(&db);
    crowd.part().await;
    let ran = on_lanes(&server.primary());
    let errors: Vec<_> =
        ran.iter().filter(|line| line.contains("ERROR") || line.contains("FATAL")).collect();
    assert!(errors.is_empty(), "{shared:?} {errors:?}");
    let stopped: Vec<_> = ran.iter().filter(|line| line.contains("user request")).collect();
    assert!(stopped.is_empty(), "nothing is ever cancelled on a lane: {stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sharing_is_switched_off_in_one_call() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let never = small(&database.url()).lanes(Lanes::Off).connect().await.expect("connect");
    let reads = (0..200).map(|id| item(&never, id));
    for read in futures::future::join_all(reads).await {
        read.expect("a read");
    }
    assert_eq!(lanes(&never), LanesStatus::default());

    let db = small(&database.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    db.set_lanes(Lanes::Off);
    until("they are closed", async || lanes(&db).open == 0).await;
    let reads = lanes(&db).reads;
    for id in 0..100 {
        item(&db, id).await.expect("a read");
    }
    assert!(lanes(&db).reads <= reads + 64, "those that were under way");
    db.set_lanes(Lanes::Auto);
    until("they share again", async || lanes(&db).reads > reads + 500).await;
    crowd.part().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_are_switched_off_stay_off_however_many_read() {
    let database = database().await;
    database.sql(ITEMS).await.expect("items");
    let db = small(&database.url()).connect().await.expect("connect");
    let crowd = Crowd::gather(&db, 16).await;
    for _ in 0..3 {
        db.set_lanes(Lanes::Off);
        for _ in 0..20 {
            assert_eq!(lanes(&db).open, 0, "one was opened again");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        until("the server knows of none", async || {
            let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%lane' AND datname = current_database()";
            database.value(open).await.expect("count") == "0"
        })
        .await;
        let reads = lanes(&db).reads;
        db.set_lanes(Lanes::Auto);
        until("they share again", async || lanes(&db).reads > reads + 100).await;
    }
    crowd.part().await;
}
