//! One answer from several PostgreSQL shards: its order, its groups, its bounds, and what is refused.

use std::collections::BTreeSet;

use resonant_db::sharding::ShardedDatabaseBuilder;
use resonant_db::{Database, ErrorKind, KeyType, ShardedDatabase, params};
use resonant_testkit::postgres::TempDatabase;

use super::sharding::{databases, small};

const SCHEMA: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE events (
        org_id text NOT NULL, id bigint NOT NULL, at timestamptz, day date, price numeric(12, 2), exact numeric, ratio float8,
        code text COLLATE "C", word text COLLATE "en-x-icu", folded text COLLATE anycase, mood mood, ok bool, tag uuid,
        raw bytea, small int4, doc jsonb, PRIMARY KEY (org_id, id));"#;

struct Pair {
    _held: Vec<TempDatabase>,
    db: ShardedDatabase,
    one: Database,
}

/// Three shards and one database with the same events.
async fn pair(settings: impl FnOnce(ShardedDatabaseBuilder) -> ShardedDatabaseBuilder) -> Pair {
    let held = databases(4, SCHEMA).await;
    let mut builder =
        settings(ShardedDatabase::builder()).table("events", "org_id", KeyType::Text).pool(small());
    for (shard, database) in held.iter().take(3).enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    let db = builder.connect().await.expect("shards");
    let one = Database::builder().primary(held[3].url()).pool(small());
    let one = one.connect().await.expect("a database");
    let words = ["Zebra", "apple", "Äpfel", "zebra", "Apple", "ähnlich", "_x", "10", "9"];
    let rows: Vec<Vec<Option<String>>> = (0..120_usize)
        .map(|n| {
            let word = words[n % words.len()].to_owned();
            let at = match n % 6 {
                0 => "2026-01-02 03:04:05+00".to_owned(),
                1 => "infinity".to_owned(),
                2 => "0044-03-15 00:00:00+00 BC".to_owned(),
                3 => format!("2026-01-02 03:04:05.{n:03}+00"),
                4 => "12026-01-02 03:04:05+00".to_owned(),
                _ => format!("19{:02}-07-01 12:00:00+02", n % 90 + 10),
            };
            let texts = [
                Some(at),
                Some(format!("20{:02}-01-01", n % 40 + 10)),
                Some(format!(
                    "{}{}.{:02}",
                    if n % 3 == 0 { "-" } else { "" },
                    n * 37 % 1000,
                    n % 100
                )),
                Some(["1.5", "2.25", "1000000000000000000000", "0.001"][n % 4].to_owned()),
                Some(["1.5", "NaN", "-Infinity", "-0", "1e300"][n % 5].to_owned()),
                Some(word.clone()),
                Some(word.clone()),
                Some(word),
                Some(["sad", "glad"][n % 2].to_owned()),
                Some((n % 3 == 0).to_string()),
                Some(format!("{:08x}-0000-4000-8000-{:012x}", n * 7919 % 255, n)),
                Some(format!("\\x{:02x}{:02x}", n * 31 % 256, n)),
            ];
            texts.into_iter().map(|text| text.filter(|_| n % 11 != 0)).collect()
        })
        .collect();
    let mut inserts = vec![String::new(); 4];
    for (n, texts) in rows.iter().enumerate() {
        let org = format!("org_{}", n % 10);
        let literal = |at: usize| match &texts[at] {
            Some(text) => format!("'{text}'"),
            None => "NULL".to_owned(),
        };
        let values: Vec<String> = (0..12).map(literal).collect();
        let sql = format!(
            "INSERT INTO events VALUES ('{org}', {n}, {}, {}, {});",
            values.join(", "),
            n % 7,
            if n % 2 == 0 { "'{\"a\": 1.0}'" } else { "'{\"a\": 1.00}'" }
        );
        let home = db.shard_for(&org).expect("a shard");
        let at = db.shards().position(|(name, _)| name == home).expect("a shard");
        inserts[at].push_str(&sql);
        inserts[3].push_str(&sql);
    }
    for ((_, shard), insert) in databases_of(&db, &one).zip(&inserts) {
        shard.write().batch(insert).await.expect("stored");
    }
    Pair { _held: held, db, one }
}

fn databases_of<'d>(
    db: &'d ShardedDatabase,
    one: &'d Database,
) -> impl Iterator<Item = (&'d str, &'d Database)> {
    db.shards().chain([("one", one)])
}

/// Whatever the rows hold, as text.
fn shown(rows: &resonant_db::Rows) -> Vec<String> {
    let line = |row: resonant_db::Row| {
        let value = |at| match row.value(at).expect("a value") {
            resonant_db::ValueRef::Decimal(text) | resonant_db::ValueRef::Text(text) => {
                text.to_owned()
            }
            resonant_db::ValueRef::Int(number) => number.to_string(),
            resonant_db::ValueRef::Float(number) => number.to_string(),
            resonant_db::ValueRef::Bool(value) => value.to_string(),
            resonant_db::ValueRef::Bytes(bytes) => format!("{bytes:?}"),
            resonant_db::ValueRef::Null => "null".to_owned(),
            _ => "?".to_owned(),
        };
        (0..rows.columns().len()).map(value).collect::<Vec<_>>().join("|")
    };
    rows.iter().map(line).collect()
}

/// All shards answer as one database does: rows, their order, names of columns.
async fn same(db: &ShardedDatabase, one: &Database, sql: &str) {
    let ours = db.query_all(sql, params![]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let alone = one.read().query(sql, params![]).await.expect("alone");
    assert_eq!(shown(&ours), shown(&alone), "{sql}");
    assert_eq!(ours.columns(), alone.columns(), "{sql}");
}

#[tokio::test]
async fn order_limit_and_offset_hold_over_all_shards() {
    let Pair { _held, db, one } = pair(|builder| builder).await;
    for column in [
        "id",
        "at",
        "day",
        "price",
        "exact",
        "ratio",
        "code",
        "ok",
        "tag",
        "raw",
        "small",
        "word COLLATE \"C\"",
    ] {
        for by in ["", " DESC", " DESC NULLS LAST"] {
            for window in ["", " LIMIT 20 OFFSET 30"] {
                let sql = format!("SELECT id FROM events ORDER BY {column}{by}, id DESC{window}");
                same(&db, &one, &sql).await;
            }
        }
    }
    let sql = "SELECT id, at FROM events WHERE org_id IN ($1, $2, $3) ORDER BY at DESC, 1 LIMIT $4 OFFSET $5";
    let params = params!["org_1", "org_2", "org_3", 7, 4];
    let ours = db.query(sql, params).await.expect("by keys");
    let alone = one.read().query(sql, params).await.expect("alone");
    assert_eq!((shown(&ours), ours.len()), (shown(&alone), 7));
    let negative = db.query(sql, params!["org_1", "org_2", "org_3", -1, 4]).await;
    assert_eq!(negative.expect_err("negative").kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn what_only_the_engine_can_order_or_tell_apart_is_refused() {
    let Pair { _held, db, .. } = pair(|builder| builder).await;
    for sql in [
        "SELECT id FROM events ORDER BY word",
        "SELECT id FROM events ORDER BY folded",
        "SELECT id FROM events ORDER BY mood",
        "SELECT id FROM events ORDER BY doc",
        "SELECT upper(code) AS up FROM events ORDER BY up",
        "SELECT max(word) FROM events",
        "SELECT folded, count(*) FROM events GROUP BY folded",
        "SELECT doc, count(*) FROM events GROUP BY doc",
        "SELECT DISTINCT folded FROM events",
        "SELECT exact * 1.00, count(*) FROM events GROUP BY 1 ORDER BY word",
        "SELECT sum(ratio) FROM events",
        "SELECT avg(ratio) FROM events",
        "SELECT word FROM events LIMIT 3",
    ] {
        let error = db.query_all(sql, params![]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Refused, "{sql}: {error}");
        assert!(error.message().contains("; "), "no way out: {sql}: {error}");
    }
}

#[tokio::test]
async fn groups_over_shards_are_exact() {
    let Pair { _held, db, one } = pair(|builder| builder).await;
    for sql in [
        "SELECT count(*), sum(price), avg(price), min(price), max(price) FROM events",
        "SELECT sum(exact), avg(exact), min(exact), max(exact) FROM events",
        "SELECT sum(id), avg(id), avg(small), sum(small), min(at), max(at), min(day), max(code) FROM events",
        "SELECT min(ratio), max(ratio) FROM events",
        "SELECT small, count(*), avg(price), avg(exact), avg(id) FROM events GROUP BY small ORDER BY 1",
        "SELECT code, count(*), sum(small) AS total FROM events GROUP BY code ORDER BY total DESC, code LIMIT 4",
        "SELECT word, count(*) FROM events GROUP BY word ORDER BY 2 LIMIT 0",
        "SELECT mood, ok, count(*), avg(small) FROM events GROUP BY mood, ok ORDER BY 3 DESC, 4",
        "SELECT at, max(id) FROM events GROUP BY at ORDER BY at DESC",
        "SELECT day, price, count(*) FROM events GROUP BY day, price ORDER BY price, day",
        "SELECT raw, count(*) FROM events GROUP BY raw ORDER BY raw LIMIT 10 OFFSET 3",
        "SELECT DISTINCT small, ok FROM events ORDER BY 1, 2",
        "SELECT DISTINCT code FROM events ORDER BY code DESC",
        "SELECT avg(price) FILTER (WHERE ok) AS mean, small FROM events GROUP BY small ORDER BY mean NULLS FIRST, 2",
        "SELECT avg(small) FROM events WHERE id < 0",
        "SELECT sum(small * 1000000000000), avg(price * 0.0000001), avg(-small), avg(price / 7) FROM events",
    ] {
        same(&db, &one, sql).await;
    }
    // Averages have the digits of the server whatever the sizes.
    let mut sums = BTreeSet::new();
    for power in [-6_i32, -4, -3, -1, 0, 1, 3, 4, 7, 12] {
        let sql = format!(
            "SELECT avg(price * 10::numeric ^ ({power})), avg(exact * 1e{power}) FROM events"
        );
        let alone = one.read().query(&sql, params![]).await.expect("alone");
        match db.query_all(&sql, params![]).await {
            Ok(ours) => assert_eq!(shown(&ours), shown(&alone), "{sql}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{sql}: {error}"),
        }
        sums.insert(shown(&alone));
    }
    assert!(sums.len() > 5, "they differ");
}

#[tokio::test]
async fn no_more_rows_are_held_or_asked_for_than_allowed() {
    let Pair { _held, db, .. } = pair(|builder| builder.merge_rows(50)).await;
    let few = db.query_all("SELECT id FROM events ORDER BY id LIMIT 50", params![]).await;
    assert_eq!(few.expect("few enough").len(), 50);
    for sql in [
        "SELECT id FROM events",
        "SELECT id FROM events ORDER BY id",
        "SELECT id FROM events ORDER BY id LIMIT 51",
        "SELECT id FROM events ORDER BY id LIMIT 1 OFFSET 50",
        "SELECT id, count(*) FROM events GROUP BY id",
    ] {
        let error = db.query_all(sql, params![]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.message().contains("more than 50 rows"), "{error}");
    }
    let counted = db.query_all("SELECT count(*) FROM events", params![]).await.expect("one row");
    assert_eq!(shown(&counted), ["120"]);
    // Nobody asks a shard for more than that: a table of a million rows costs fifty-one of each.
    let (_, shard) = db.shards().next().expect("a shard");
    let many =
        "INSERT INTO events (org_id, id) SELECT 'org_1', n FROM generate_series(1000, 200000) n";
    shard.write().execute(many, params![]).await.expect("many rows");
    let error = db.query_all("SELECT id, word FROM events", params![]).await.expect_err("too many");
    assert!(error.message().contains("more than 50 rows"), "{error}");
}
