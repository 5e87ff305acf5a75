//! Rows of three PostgreSQL shards as they come: in order, in bounded memory, and stopped when nobody wants them any more.

use futures::{FutureExt, TryStreamExt};
use resonant_db::{ErrorKind, KeyType, Row, ShardedDatabase, params};
use resonant_testkit::postgres::TempDatabase;
use resonant_testkit::{FaultProxy, PostgresCluster};

use super::sharding::{databases, small};
use super::until;

const SCHEMA: &str = r#"
    CREATE TABLE events (org_id text NOT NULL, id bigint NOT NULL, word text COLLATE "en-x-icu", note text,
                         PRIMARY KEY (org_id, id));"#;
/// Rows of a shard: a thousand bytes each.
const FILL: &str = "INSERT INTO events SELECT $1, n * 3 + $2::bigint, 'word', repeat('x', 1000) FROM generate_series(1, $3::bigint) n";

fn builder(
    urls: impl IntoIterator<Item = String>,
) -> resonant_db::sharding::ShardedDatabaseBuilder {
    let mut builder =
        ShardedDatabase::builder().table("events", "org_id", KeyType::Text).pool(small());
    for (shard, url) in urls.into_iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), url);
    }
    builder
}

/// A key of each shard, in the order of the shards.
fn keys(db: &ShardedDatabase) -> Vec<String> {
    let key = |name: &str| {
        let mut keys = (0..).map(|n| format!("org_{n}"));
        keys.find(|key| db.shard_for(key).is_ok_and(|home| home == name)).expect("a key")
    };
    db.shards().map(|(name, _)| key(name)).collect()
}

async fn filled(rows: i64) -> (Vec<TempDatabase>, ShardedDatabase) {
    let held = databases(3, SCHEMA).await;
    let db = builder(held.iter().map(TempDatabase::url)).merge_rows(500).connect().await;
    let db = db.expect("shards");
    for (n, key) in (0_i64..).zip(keys(&db)) {
        db.execute(FILL, params![key, n, rows]).await.expect_err("it names no columns");
        let (_, shard) = db.shards().nth(n as usize).expect("a shard");
        shard.write().execute(FILL, params![key, n, rows]).await.expect("filled");
    }
    (held, db)
}

fn id(row: &Row) -> i64 {
    row.get("id").expect("a number")
}

#[tokio::test]
async fn rows_of_all_shards_come_in_one_order_however_many_there_are() {
    let (_held, db) = filled(2_000).await;
    // More than an answer as a whole may have.
    let all = "SELECT id, note FROM events ORDER BY id";
    assert_eq!(
        db.query_all(all, params![]).await.expect_err("too many").kind(),
        ErrorKind::Refused
    );
    let rows = db.stream_all(all, params![]).await.expect("opened").into_stream();
    let ids: Vec<i64> = rows.map_ok(|row| id(&row)).try_collect().await.expect("rows");
    assert_eq!(ids, (3..6_003).collect::<Vec<_>>());

    // By what is not asked for, with a window, and by keys.
    let keys = keys(&db);
    let sql =
        "SELECT id FROM events WHERE id > $1 ORDER BY events.id DESC, org_id LIMIT $2 OFFSET $3";
    for by_key in [false, true] {
        let sql = match by_key {
            true => sql.replace("WHERE", "WHERE org_id IN ($4, $5, $6) AND"),
            false => sql.to_owned(),
        };
        let (few, many) = (params![10, 700, 20], params![10, 700, 20, keys[0], keys[1], keys[2]]);
        let mut rows = match by_key {
            true => db.stream(&sql, many).await,
            false => db.stream_all(&sql, few).await,
        }
        .expect("opened");
        let mut ids = Vec::new();
        while let Some(row) = rows.next().await.expect("a row") {
            assert_eq!(row.columns().len(), 1);
            ids.push(id(&row));
        }
        assert_eq!(ids, (0..700).map(|n| 6_002 - 20 - n).collect::<Vec<_>>());
        assert!(rows.next().await.expect("over").is_none());
    }
    let offset = "SELECT org_id, id FROM events ORDER BY id OFFSET $1";
    let rows = db.stream_all(offset, params![5_990]).await.expect("opened").into_stream();
    let ids: Vec<i64> = rows.map_ok(|row| id(&row)).try_collect().await.expect("rows");
    assert_eq!(ids, (5_993..6_003).collect::<Vec<_>>());

    // Without an order shard after shard; of one shard; folded.
    let rows = db.stream_all("SELECT id FROM events", params![]).await.expect("opened");
    let ids: Vec<i64> =
        rows.into_stream().map_ok(|row| id(&row)).try_collect().await.expect("rows");
    assert_eq!(ids.len(), 6_000);
    let sql = "SELECT id FROM events WHERE org_id = $1 ORDER BY id";
    let one = db.stream(sql, params![keys[1]]).await;
    let ids: Vec<Row> = one.expect("opened").into_stream().try_collect().await.expect("rows");
    assert_eq!((ids.len(), id(&ids[0])), (2_000, 4));
    let sql = "SELECT word, count(*) AS id FROM events GROUP BY word ORDER BY id";
    let mut rows = db.stream_all(sql, params![]).await.expect("opened");
    assert_eq!(id(&rows.next().await.expect("a row").expect("one")), 6_000);
    assert!(rows.next().await.expect("over").is_none());

    let sql = "DELETE FROM events WHERE org_id = $1 RETURNING id";
    let error = db.stream(sql, params![keys[0]]).await.expect_err("a write");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let mut rows =
        db.stream_all("SELECT id FROM events ORDER BY word", params![]).await.expect("opened");
    assert_eq!(rows.next().await.expect_err("whose order?").kind(), ErrorKind::Refused);
    assert!(rows.next().await.expect("over").is_none());
}

const ACTIVE: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM events%' AND state = 'active'
     AND pid <> pg_backend_pid() AND datname = current_database()";

#[tokio::test]
async fn who_takes_few_rows_holds_all_servers_back_and_who_gives_up_frees_them() {
    let clusters = PostgresCluster::builder().start_shards(3).await.expect("three servers");
    let mut proxies = Vec::new();
    for cluster in &clusters {
        proxies.push(FaultProxy::start(cluster.primary().address()).await.expect("a proxy"));
    }
    let urls = clusters.iter().zip(&proxies);
    let db = builder(urls.map(|(cluster, proxy)| cluster.primary().url_through(proxy)));
    let db = db.connect().await.expect("shards");
    db.on_all(SCHEMA).await.expect("the schema");
    const ROWS: i64 = 40_000;
    for (n, (key, (_, shard))) in (0_i64..).zip(keys(&db).iter().zip(db.shards())) {
        shard.write().execute(FILL, params![key, n, ROWS]).await.expect("filled");
    }
    let before: Vec<u64> = proxies.iter().map(|proxy| proxy.stats().bytes_to_client).collect();
    let rows = db.stream_all("SELECT id, note FROM events ORDER BY id", params![]).await;
    let mut rows = rows.expect("opened");
    for expected in 3..1_000 {
        let row = rows.next().await.expect("a row").expect("a row");
        assert_eq!(id(&row), expected);
    }
    // A thousand rows were taken; each server holds forty million bytes and has sent far less.
    let held = |n: usize| proxies[n].stats().bytes_to_client - before[n];
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM events%' AND wait_event = 'ClientWrite'";
    for cluster in &clusters {
        until("the server waits", async || {
            let node = cluster.primary();
            node.value(waits).await.is_ok_and(|count| count == "1")
        })
        .await;
    }
    // The system's buffers grow while they fill; what is sent ahead comes to an end nevertheless.
    let ahead = || (0..3).map(held).collect::<Vec<u64>>();
    until("nothing more is sent", async || {
        let before = ahead();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        before == ahead()
    })
    .await;
    for (n, bytes) in ahead().into_iter().enumerate() {
        println!("FIGURE sharding.stream.bytes_ahead.shard_{n} {bytes}");
        assert!(bytes < 20 << 20, "{bytes} bytes were sent ahead");
    }

    drop(rows);
    drop_rows(&db, &clusters).await;
}

/// A stream that is dropped, also in the middle of a call, stops the statements of all shards.
async fn drop_rows(db: &ShardedDatabase, clusters: &[PostgresCluster]) {
    let sql = "SELECT id, note FROM events ORDER BY id";
    let mut rows = db.stream_all(sql, params![]).await.expect("opened");
    let first = rows.next();
    drop(first);
    assert_eq!(id(&rows.next().await.expect("a row").expect("not polled")), 3);
    // The piece that is here has an end; a call that is dropped while it waits for the next one ends the stream.
    while let Some(row) = rows.next().now_or_never() {
        row.expect("a row").expect("a row");
    }
    let missing = rows.next().await.expect_err("a part of it is missing");
    assert_eq!(missing.kind(), ErrorKind::Rejected, "{missing}");
    assert!(rows.next().await.expect("over").is_none());
    drop(rows);
    for cluster in clusters {
        let node = cluster.primary();
        until("it is stopped", async || node.value(ACTIVE).await.is_ok_and(|count| count == "0"))
            .await;
    }
}

/// What the process has in memory, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

/// Alone: what others do in the same process would be counted, too. RESONANT_ROWS says how many rows there are.
#[tokio::test]
#[ignore = "ten million rows take minutes: scripts/soak db"]
async fn ten_million_rows_of_all_shards_pass_through_64_mib() {
    const CHUNK: i64 = 250_000;
    let wanted = std::env::var("RESONANT_ROWS").ok().and_then(|rows| rows.parse().ok());
    let each = (wanted.unwrap_or(10_000_000_i64) + 2) / 3;
    let held = databases(3, SCHEMA).await;
    let db = builder(held.iter().map(TempDatabase::url)).connect().await.expect("shards");
    let keys = keys(&db);
    let filling = db.shards().zip(&keys).zip(0_i64..).map(async |(((_, shard), key), n)| {
        for start in (0..each).step_by(CHUNK as usize) {
            let fill = "INSERT INTO events SELECT $1, n * 3 + $2::bigint, 'word', 'a note of some length' \
                        FROM generate_series($3::bigint, $4::bigint) n";
            let end = (start + CHUNK).min(each) - 1;
            shard.write().execute(fill, params![key, n, start, end]).await.expect("filled");
        }
    });
    futures::future::join_all(filling).await;
    for ordered in [true, false] {
        let sql = match ordered {
            true => "SELECT org_id, id, note FROM events ORDER BY id",
            false => "SELECT org_id, id, note FROM events",
        };
        let (before, began) = (resident(), tokio::time::Instant::now());
        let mut rows = db.stream_all(sql, params![]).await.expect("opened");
        let (mut count, mut sum, mut most) = (0_i64, 0_i64, before);
        while let Some(row) = rows.next().await.expect("a row") {
            let id = id(&row);
            assert!(!ordered || id == count, "row {count} is {id}");
            (count, sum) = (count + 1, sum + id);
            if count % 50_000 == 0 {
                most = most.max(resident());
            }
        }
        assert_eq!((count, sum), (each * 3, each * 3 * (each * 3 - 1) / 2));
        println!(
            "FIGURE {count} rows of three shards, {}: {:?}, {:.1} MiB more than before",
            if ordered { "in one order" } else { "shard after shard" },
            began.elapsed(),
            most - before
        );
        assert!(most - before < 64.0, "{:.1} MiB", most - before);
    }
}
