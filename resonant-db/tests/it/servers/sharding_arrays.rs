//! Lists of keys in one parameter: by every type of key, in reads and in writes, as one database would answer.

use resonant_db::sharding::RouteKind;
use resonant_db::{
    Database, ErrorKind, KeyType, Param, Result, Row, ShardedDatabase, ToParam, params,
};

use super::sharding::{databases, small};

const SCHEMA: &str = "
    CREATE TABLE texts (k text NOT NULL, n bigint NOT NULL, PRIMARY KEY (k, n));
    CREATE TABLE wide (k bigint NOT NULL, n bigint NOT NULL, PRIMARY KEY (k, n));
    CREATE TABLE narrow (k int4 NOT NULL, n bigint NOT NULL, PRIMARY KEY (k, n));
    CREATE TABLE tags (k uuid NOT NULL, n bigint NOT NULL, PRIMARY KEY (k, n));
    CREATE TABLE raws (k bytea NOT NULL, n bigint NOT NULL, PRIMARY KEY (k, n));";
const TABLES: [(&str, KeyType); 5] = [
    ("texts", KeyType::Text),
    ("wide", KeyType::Int),
    ("narrow", KeyType::Int),
    ("tags", KeyType::Uuid),
    ("raws", KeyType::Bytes),
];

fn text(n: i64) -> String {
    ["plain", "with \"quotes\"", "back\\slash", "a,b", "", "NULL", " blank ", "{x}", "żółć"]
        .get(n as usize)
        .map_or_else(|| format!("org_{n}"), |odd| (*odd).to_owned())
}

fn uuid(n: i64) -> String {
    format!("{n:08x}-0000-4000-8000-{:012x}", n * 7919)
}

/// Lists of these keys, in the form of each table: a vector, or text in PostgreSQL's notation.
enum List {
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Written(String),
}

impl ToParam for List {
    fn to_param(&self) -> Param<'_> {
        match self {
            List::Texts(list) => list.to_param(),
            List::Numbers(list) => list.to_param(),
            List::Bytes(list) => list.to_param(),
            List::Written(text) => text.to_param(),
        }
    }
}

fn array(table: &str, keys: &[Option<i64>], written: bool) -> List {
    let quoted = |text: String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let raw = |n: i64| vec![n as u8, 0, b'\\', 0xff];
    if written {
        let element = |key: &Option<i64>| match (*key, table) {
            (None, _) => "NULL".to_owned(),
            (Some(n), "texts") => quoted(text(n)),
            (Some(n), "tags") => uuid(n),
            (Some(n), "raws") => {
                let hex: String = raw(n).iter().map(|byte| format!("{byte:02x}")).collect();
                quoted(format!("\\x{hex}"))
            }
            (Some(n), _) => n.to_string(),
        };
        let elements: Vec<_> = keys.iter().map(element).collect();
        return List::Written(format!("{{{}}}", elements.join(",")));
    }
    let keys = keys.iter();
    match table {
        "texts" => List::Texts(keys.map(|key| key.map(text)).collect()),
        "tags" => List::Texts(keys.map(|key| key.map(uuid)).collect()),
        "raws" => List::Bytes(keys.map(|key| key.map(raw)).collect()),
        _ => List::Numbers(keys.copied().collect()),
    }
}

async fn both() -> (Vec<resonant_testkit::postgres::TempDatabase>, ShardedDatabase, Database) {
    let held = databases(4, SCHEMA).await;
    let mut builder = ShardedDatabase::builder().pool(small());
    for (table, key_type) in TABLES {
        builder = builder.table(table, "k", key_type);
    }
    for (shard, database) in held.iter().take(3).enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    let db = builder.connect().await.expect("shards");
    let one = Database::builder().primary(held[3].url()).pool(small()).connect().await;
    (held, db, one.expect("a database"))
}

fn sorted(rows: Result<resonant_db::Rows>) -> Vec<i64> {
    let number = |row: Row| row.get::<i64>("n").expect("a number");
    let mut numbers: Vec<i64> = rows.expect("rows").iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn lists_of_every_type_of_key_are_read_and_written_as_on_one_database() {
    let (_held, db, one) = both().await;
    for (table, _) in TABLES {
        for n in 0..40_i64 {
            let (text, uuid, raw) = (text(n), uuid(n), vec![n as u8, 0, b'\\', 0xff]);
            let key = match table {
                "texts" => Param::Text(&text),
                "tags" => Param::Text(&uuid),
                "raws" => Param::Bytes(&raw),
                _ => Param::Int(n),
            };
            let sql = format!("INSERT INTO {table} (k, n) VALUES ($1, $2)");
            db.execute(&sql, &[key, Param::Int(n)]).await.expect("stored");
            one.write().execute(&sql, &[key, Param::Int(n)]).await.expect("stored");
        }
        let lists: [&[Option<i64>]; 5] = [
            &[],
            &[None],
            &[Some(3)],
            &[Some(0), Some(1), None, Some(2), Some(1), Some(99)],
            &(0..40).map(Some).collect::<Vec<_>>(),
        ];
        let sql = format!("SELECT n FROM {table} WHERE k = ANY($1) AND n >= $2");
        for keys in lists {
            // Prepared, and prepared before.
            for written in [true, false, true] {
                let list = array(table, keys, written);
                let ours = sorted(db.query(&sql, params![list, 0]).await);
                let alone = sorted(one.read().query(&sql, params![list, 0]).await);
                assert_eq!(ours, alone, "{table} {keys:?}");
            }
            let list = array(table, keys, false);
            let count = format!("SELECT count(*), max(n) FROM {table} WHERE k = ANY($1)");
            let ours: (i64, Option<i64>) =
                db.query_one_as(&count, params![list]).await.expect("counted");
            let alone = one.read().query_one_as(&count, params![list]).await.expect("counted");
            assert_eq!(ours, alone, "{table} {keys:?}");
        }
        let all = array(table, &(0..40).map(Some).collect::<Vec<_>>(), false);
        let route = db.explain_route(&sql, params![all, 0]).expect("routed");
        assert_eq!((route.kind, route.shards.len()), (RouteKind::Split, 3), "{table}");
        assert!(route.to_string().contains("ANY($1)"), "{route}");

        let update = format!("UPDATE {table} SET n = n + 1000 WHERE k = ANY($1)");
        let refused = db.execute(&update, params![all]).await.expect_err("not atomic");
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        let some = array(table, &[Some(1), Some(2), None, Some(5), Some(77), Some(2)], false);
        assert_eq!(db.execute_split(&update, params![some]).await.expect("updated"), 3);
        assert_eq!(
            db.execute_split(&update, params![array(table, &[], false)]).await.expect("none"),
            0
        );
        assert_eq!(
            db.execute(&update, params![array(table, &[None], true)]).await.expect("none"),
            0
        );
        assert_eq!(db.execute(&update, params![None::<&str>]).await.expect("none"), 0);
        let delete = format!("DELETE FROM {table} WHERE k = ANY($1) RETURNING n");
        let gone = db.execute_split(&delete, params![some]).await.expect("deleted");
        assert_eq!(gone, 3, "{table}");
        let left = format!("SELECT count(*) FROM {table}");
        let left: i64 =
            db.query_all(&left, params![]).await.expect("counted").decode().expect("one")[0];
        assert_eq!(left, 37, "{table}");
    }
}

#[tokio::test]
async fn what_is_no_list_is_refused_before_it_is_sent() {
    let (_held, db, _) = both().await;
    let by_text = "SELECT n FROM texts WHERE k = ANY($1)";
    let by_number = "SELECT n FROM wide WHERE k = ANY($1)";
    for (sql, param) in [
        (by_text, Param::Text("org_1")),
        (by_text, Param::Text("{a, b}")),
        (by_text, Param::Text("{{a},{b}}")),
        (by_text, Param::Text("[0:1]={a,b}")),
        (by_text, Param::Int(1)),
        (by_number, Param::Text("{1,07}")),
        (by_number, Param::Text("{1,x}")),
        ("SELECT n FROM raws WHERE k = ANY($1)", Param::Text("{ab}")),
        ("SELECT n FROM tags WHERE k = ANY($1)", Param::Text("{a0eebc999c0b4ef8bb6d6bb9bd380a11}")),
    ] {
        let error = db.query(sql, &[param]).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Refused, "{sql} {param:?}: {error}");
        assert!(error.message().contains("$1"), "{error}");
    }
    let other = db.query("SELECT n FROM wide WHERE k = ANY($1::numeric[])", params!["{1}"]).await;
    assert_eq!(other.expect_err("another type").kind(), ErrorKind::Refused);
    // A transaction stays on its shard whatever the list says.
    let keys: Vec<i64> = (0..40).collect();
    let list = keys.clone();
    let sql = "DELETE FROM wide WHERE k = ANY($1)";
    db.transaction(text(3).as_str(), async |_| Ok(())).await.expect_err("several types of keys");
    let home = db.router().shard_for_table("wide", 7).expect("a shard").to_owned();
    let own: Vec<i64> = keys
        .into_iter()
        .filter(|key| db.router().shard_for_table("wide", *key).is_ok_and(|shard| shard == home))
        .collect();
    assert_eq!(db.execute(sql, params![own]).await.expect("one shard"), 0);
    assert_eq!(
        db.execute(sql, params![list]).await.expect_err("several").kind(),
        ErrorKind::Refused
    );
}
