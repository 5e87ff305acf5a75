//! Every number of `docs/formats/sharding.md`, checked against the code.

use resonant_common::hash::key_hash;
use resonant_db::sharding::{
    BUCKETS, BucketMap, ShardFunction, ShardKey, ShardRouter, postgres_hash,
};
use resonant_db::{Database, KeyType, Param, ShardedDatabase, params};

const PAGE: &str = include_str!("../../../../docs/formats/sharding.md");

/// The cells of the tables under a heading, without their heads.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let at = PAGE.find(&format!("\n## {heading}\n")).expect("the heading");
    let section = &PAGE[at + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let rows = section.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &'static str| {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().trim_matches('`')).collect::<Vec<_>>()
    };
    rows.map(cells).skip_while(|cells| !cells[0].starts_with("--")).skip(1).collect()
}

fn block(language: &str, holding: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let blocks = PAGE.split(&fence).skip(1);
    let mut blocks = blocks.map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.find(|block| block.contains(holding)).expect("the block")
}

fn number(cell: &str) -> u64 {
    match cell.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).expect("hexadecimal"),
        None => cell.parse().expect("a number"),
    }
}

fn unhex(cell: &str) -> Vec<u8> {
    let cell = if cell.starts_with('(') { "" } else { cell };
    let digits = cell.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

/// A key as the page shows it.
struct Shown {
    key_type: KeyType,
    text: &'static str,
    bytes: Vec<u8>,
}

impl Shown {
    fn new(key_type: &str, shown: &'static str) -> Self {
        let text = if shown == "(empty)" { "" } else { shown };
        let key_type = match key_type {
            "text" => KeyType::Text,
            "int" => KeyType::Int,
            "uuid" => KeyType::Uuid,
            "bytes" => KeyType::Bytes,
            other => panic!("{other} is no type"),
        };
        let bytes = if key_type == KeyType::Bytes { unhex(text) } else { Vec::new() };
        Self { key_type, text, bytes }
    }

    fn param(&self) -> Param<'_> {
        match self.key_type {
            KeyType::Int => Param::Int(self.text.parse().expect("an integer")),
            KeyType::Bytes => Param::Bytes(&self.bytes),
            _ => Param::Text(self.text),
        }
    }

    fn key(&self) -> ShardKey<'_> {
        match self.key_type {
            KeyType::Int => ShardKey::Int(self.text.parse().expect("an integer")),
            KeyType::Bytes => ShardKey::Bytes(&self.bytes),
            KeyType::Uuid => {
                let bytes = unhex(&self.text.replace('-', ""));
                ShardKey::Uuid(bytes.try_into().expect("sixteen bytes"))
            }
            _ => ShardKey::Text(self.text),
        }
    }
}

fn router(function: ShardFunction, key_type: KeyType, shards: u64) -> ShardRouter {
    let mut builder = ShardedDatabase::builder().table("t", "k", key_type).shard_function(function);
    for shard in 0..shards {
        builder = builder.shard(shard.to_string(), "sqlite::memory:");
    }
    builder.router().expect("a router")
}

#[test]
fn hash_mod_is_as_written() {
    let rows = table("`hash_mod`");
    assert!(rows.len() >= 20, "{} rows", rows.len());
    for row in rows {
        let [key_type, shown, bytes, hash, bucket, of] = [0, 1, 2, 3, 4, 5].map(|at| row[at]);
        let key = Shown::new(key_type, shown);
        assert_eq!(key.key().with_bytes(<[u8]>::to_vec), unhex(bytes), "{row:?}");
        assert_eq!(key_hash(&unhex(bytes)), number(hash), "{row:?}");
        assert_eq!(number(hash) % u64::from(BUCKETS), number(bucket), "{row:?}");
        for (shards, shard) in [(3, of), (4, row[6]), (5, row[7])] {
            let router = router(ShardFunction::HashMod, key.key_type, shards);
            assert_eq!(router.shard_for(key.param()).expect("a shard"), shard, "{row:?}");
        }
        let plain = router(ShardFunction::HashModShardCount, key.key_type, 7);
        let shard = (number(hash) % 7).to_string();
        assert_eq!(plain.shard_for(key.param()).expect("a shard"), shard, "{row:?}");
    }
}

#[test]
fn postgres_hash_is_as_written() {
    let rows = table("`postgres_hash`");
    assert!(rows.len() >= 11, "{} rows", rows.len());
    for row in rows {
        let key = Shown::new(row[0], row[1]);
        let hash = postgres_hash(&key.key());
        let all = [hash, hash % 4, hash % u64::from(BUCKETS)];
        assert_eq!(all, [2, 3, 4].map(|at| number(row[at])), "{row:?}");
        let router = router(ShardFunction::PostgresHash, key.key_type, 5);
        let shard = (number(row[4]) % 5).to_string();
        assert_eq!(router.shard_for(key.param()).expect("a shard"), shard, "{row:?}");
    }
}

#[test]
fn the_keys_it_says_are_never_taken_are_not() {
    for (key_type, never) in [
        (KeyType::Text, vec![Param::Int(7), Param::Null]),
        (
            KeyType::Int,
            vec![
                Param::Text("07"),
                Param::Text("+7"),
                Param::Text("7.0"),
                Param::Float(7.0),
                Param::Bool(true),
                Param::Null,
            ],
        ),
        (KeyType::Uuid, vec![Param::Text("a0eebc999c0b4ef8bb6d6bb9bd380a11"), Param::Null]),
        (KeyType::Bytes, vec![Param::Text("7"), Param::Null]),
    ] {
        let router = router(ShardFunction::HashMod, key_type, 3);
        for param in never {
            assert!(router.shard_for(param).is_err(), "{key_type} took {param:?}");
        }
    }
    let ints = router(ShardFunction::HashMod, KeyType::Int, 5);
    assert_eq!(ints.shard_for("-12").expect("a shard"), ints.shard_for(-12).expect("a shard"));
}

#[test]
fn bucket_maps_and_plans_are_as_written() {
    let dealt = BucketMap::dealt(4).expect("a map");
    let stored = serde_json::to_string(&dealt).expect("JSON");
    let shown = block("json", "owners").trim().trim_end_matches("]}");
    assert!(stored.starts_with(shown), "{shown}");

    let rows = table("Bucket map");
    assert_eq!(rows.len(), 3);
    for row in rows {
        let shards = row[0].trim_end_matches(" shards");
        let map = BucketMap::dealt(shards.parse().expect("a number")).expect("a map");
        let targets: Vec<u32> = row[1].split(' ').map(|n| n.parse().expect("a number")).collect();
        let plan = map.plan(&targets).expect("a plan");
        assert_eq!(plan.moves.len() as u64, number(row[2]));
        let ends = [plan.moves.first(), plan.moves.last()].map(|step| step.expect("a move"));
        for (step, shown) in ends.into_iter().zip([row[3], row[4]]) {
            assert_eq!(format!("{}: {} to {}", step.bucket, step.from, step.to), shown);
        }
        let grown = map.apply(&plan).expect("a map");
        assert_eq!(grown.epoch(), map.epoch() + 1);
        let owners = (0..BUCKETS).map(|bucket| grown.shard(bucket).expect("an owner").to_string());
        let owners = owners.collect::<Vec<_>>().join(",");
        assert_eq!(key_hash(owners.as_bytes()), number(row[5]), "{row:?}");
    }

    let mut plan = dealt.plan(&[0, 1, 2, 3, 4]).expect("a plan");
    plan.moves.truncate(1);
    let plan = serde_json::to_string(&plan).expect("JSON");
    assert!(PAGE.contains(&plan), "{plan}");
}

#[tokio::test]
async fn the_guards_table_is_as_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let db = ShardedDatabase::builder()
        .table("t", "k", KeyType::Int)
        .shard("first", url("guarded.db"))
        .guard(true)
        .connect();
    let db = db.await.expect("a shard");
    db.on_all("CREATE TABLE t (k BIGINT)").await.expect("checked first");
    let written = Database::connect(url("written.db")).await.expect("a database");
    written.write().batch(block("sql", "CREATE TABLE")).await.expect("the page's SQL");

    let form = async |database: &Database| {
        let sql = "SELECT sql FROM sqlite_master WHERE name = 'resonant_shard'";
        database.read().query_one_as::<String>(sql, params![]).await.expect("the table")
    };
    let guarded = db.shard("first").expect("the shard");
    assert_eq!(form(guarded).await, form(&written).await);
    let row = "SELECT id, name, position, shards, shard_function, epoch FROM resonant_shard";
    let row: (i64, String, i64, i64, String, i64) =
        guarded.read().query_one_as(row, params![]).await.expect("one row");
    assert_eq!(row, (1, "first".into(), 0, 1, "hash_mod".into(), 0));
}

/// The names the guard stores are the headings of the page.
#[tokio::test]
async fn the_functions_are_called_as_written() {
    let directory = resonant_db::sharding::Directory::new(KeyType::Int).default_shard("a");
    for (function, name) in [
        (ShardFunction::HashMod, "hash_mod"),
        (ShardFunction::HashModShardCount, "hash_mod_shard_count"),
        (ShardFunction::PostgresHash, "postgres_hash"),
        (ShardFunction::Directory(directory), "directory"),
    ] {
        assert!(PAGE.contains(&format!("\n## `{name}`")), "{name}");
        let db = ShardedDatabase::builder()
            .table("t", "k", KeyType::Int)
            .shard("a", "sqlite::memory:")
            .shard_function(function)
            .guard(true);
        let db = db.connect().await.expect("a shard");
        db.on_all("CREATE TABLE t (k BIGINT)").await.expect("checked first");
        let sql = "SELECT shard_function FROM resonant_shard";
        let shard = db.shard("a").expect("the shard");
        let stored: String = shard.write().query_one_as(sql, params![]).await.expect("one row");
        assert_eq!(stored, name);
    }
}
