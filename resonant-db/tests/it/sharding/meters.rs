//! What is counted of routes and shards, and how routes are explained.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use resonant_db::sharding::RouteKind;
use resonant_db::{KeyType, ShardedDatabase, params};

use super::SCHEMA;

#[test]
fn routes_are_counted_by_kind_and_statements_by_shard() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let folder = tempfile::tempdir().expect("a folder");
    let homes = metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let mut builder = ShardedDatabase::builder()
                .name("orders")
                .table("agents", "org_id", KeyType::Text)
                .table("tasks", "org_id", KeyType::Text)
                .reference("countries");
            for shard in ["a", "b"] {
                let url = format!("sqlite:{}", folder.path().join(shard).display());
                builder = builder.shard(shard, url);
            }
            // A file in a folder that does not exist: a shard that fails whatever is asked.
            let gone = format!("sqlite:{}", folder.path().join("gone/c").display());
            let db = builder.clone().connect().await.expect("shards");
            db.on_all(SCHEMA).await.expect("the schema");
            let insert = "INSERT INTO agents (org_id, id) VALUES ($1, $2)";
            let mut homes: BTreeMap<String, u64> = BTreeMap::new();
            for n in 0..6_i64 {
                let org = format!("org_{n}");
                db.execute(insert, params![org, n]).await.expect("stored");
                *homes.entry(db.shard_for(&org).expect("a shard").to_owned()).or_default() += 1;
            }
            db.execute(insert, params!["org_1", 1]).await.expect_err("twice");
            *homes.entry(format!("{} again", db.shard_for("org_1").expect("one"))).or_default() +=
                1;
            let rows = db.query_all("SELECT id FROM agents ORDER BY id", params![]).await;
            assert_eq!(rows.expect("rows").len(), 6);
            let count = "SELECT count(*) FROM countries";
            db.query(count, params![]).await.expect("anywhere");
            let all: Vec<String> = (0..6).map(|n| format!("org_{n}")).collect();
            let some = "SELECT id FROM agents WHERE org_id IN ($1, $2, $3, $4, $5, $6)";
            let keys = params![all[0], all[1], all[2], all[3], all[4], all[5]];
            db.query(some, keys).await.expect("split");
            db.query("SELECT id FROM agents", params![]).await.expect_err("no key");
            let dead = builder.name("dead").shard("c", gone).connect().await.expect("lazy");
            for _ in 0..8 {
                let ask = dead.query_all("SELECT count(*) FROM agents", params![]).await;
                ask.expect_err("a shard is gone");
            }
            homes
        })
    });
    let mut counted: BTreeMap<String, f64> = BTreeMap::new();
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
        let name = format!("{} {}", key.key().name(), labels.join(" "));
        match value {
            DebugValue::Counter(count) => drop(counted.insert(name, count as f64)),
            DebugValue::Gauge(level) => drop(counted.insert(name, level.into_inner())),
            DebugValue::Histogram(samples) => drop(counted.insert(name, samples.len() as f64)),
        }
    }
    let of = |name: &str| counted.get(name).copied().unwrap_or(f64::NAN);
    for (route, count) in
        [("any", 1.0), ("every", 1.0), ("single", 7.0), ("split", 1.0), ("refused", 1.0)]
    {
        let name = format!("resonant_db_shard_routes_total orders {route}");
        assert_eq!(of(&name), count, "{route}: {counted:#?}");
    }
    assert_eq!(of("resonant_db_shard_merged_rows_total orders"), 12.0);
    assert_eq!(of("resonant_db_shard_routes_compiled_total orders"), 5.0);
    let anywhere: f64 = ["a", "b"]
        .into_iter()
        .map(|shard| {
            let outcome = |outcome| {
                of(&format!("resonant_db_shard_statements_total orders {shard} {outcome}"))
            };
            // The schema, the rows of its own, all keys and all rows; what is left went anywhere.
            let own = homes.get(shard).copied().unwrap_or_default() as f64 + 3.0;
            let again = homes.get(&format!("{shard} again")).copied().unwrap_or_default() as f64;
            assert_eq!(outcome("rejected"), again, "{shard}");
            assert_eq!((outcome("failed"), outcome("shed")), (0.0, 0.0));
            let times = of(&format!("resonant_db_shard_duration_seconds orders {shard}"));
            assert_eq!(times, outcome("ok") + again, "{shard}");
            assert_eq!(of(&format!("resonant_db_shard_down orders {shard}")), 0.0);
            outcome("ok") - own
        })
        .sum();
    assert_eq!(anywhere, 1.0);
    assert_eq!(of("resonant_db_shard_down dead c"), 1.0, "{counted:#?}");
    assert_eq!(of("resonant_db_shard_statements_total dead c failed"), 5.0);
    assert_eq!(of("resonant_db_shard_statements_total dead c shed"), 3.0);
}

#[tokio::test]
async fn routes_to_every_shard_are_explained_with_how_they_are_merged() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = super::connect(folder.path(), 3).await;
    for (sql, how) in [
        ("SELECT id FROM agents ORDER BY id LIMIT 3", "rows are woven into one order"),
        ("SELECT id FROM agents", "rows follow one another, shard by shard"),
        ("SELECT count(*) FROM agents", "groups are folded"),
        (
            "SELECT name, sum(id) FROM agents GROUP BY name ORDER BY 2",
            "groups are folded, then ordered",
        ),
    ] {
        let route = db.explain_route_all(sql, params![]).expect("routed");
        assert_eq!((route.kind, route.shards.len(), route.merge), (RouteKind::Every, 3, Some(how)));
        let shown =
            format!("read on every shard (shard_0, shard_1, shard_2): no key is named; {how}");
        assert_eq!(route.to_string(), shown);
    }
    let key = db.explain_route_all("SELECT id FROM agents WHERE org_id = $1", params!["org_1"]);
    key.expect_err("it is not for query_all");
    let any = db.explain_route_all("SELECT code FROM countries", params![]).expect("anywhere");
    assert_eq!((any.kind, any.merge), (RouteKind::Any, None));
    let split = "SELECT id FROM agents WHERE org_id IN ($1, $2, $3) ORDER BY id";
    let split = db.explain_route(split, params!["org_0", "org_1", "org_2"]).expect("routed");
    assert_eq!(
        (split.kind, split.merge),
        (RouteKind::Split, Some("rows are woven into one order"))
    );
    for sql in [
        "DELETE FROM agents",
        "SELECT avg(score), name FROM agents",
        "SELECT id FROM agents LIMIT 3",
    ] {
        db.explain_route_all(sql, params![]).expect_err(sql);
    }
}
