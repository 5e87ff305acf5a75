//! What is declared, what is learned, and what the catalogue says to both.

use resonant_db::{ErrorKind, KeyType, Result, ShardedDatabase, params};
use resonant_testkit::postgres::TempDatabase;

use super::sharding::{databases, small};

const SCHEMA: &str = "
    CREATE TABLE agents (org_id text NOT NULL, id bigint NOT NULL, PRIMARY KEY (org_id, id));
    CREATE TABLE jobs (org_id varchar(40) NOT NULL, job int);
    CREATE TABLE accounts (org_id uuid PRIMARY KEY);
    CREATE TABLE parts (org_id text NOT NULL, n int) PARTITION BY HASH (org_id);
    CREATE TABLE countries (code text PRIMARY KEY);
    CREATE TABLE loose (org_id text);
    CREATE TABLE padded (org_id char(8) NOT NULL);
    CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE folded (org_id text COLLATE anycase NOT NULL);
    CREATE VIEW seen AS SELECT org_id, id FROM agents;
    CREATE TABLE ruled (org_id text NOT NULL);
    CREATE RULE elsewhere AS ON INSERT TO ruled DO INSTEAD INSERT INTO loose VALUES ('x');";

async fn two(
    declare: impl FnOnce(
        resonant_db::sharding::ShardedDatabaseBuilder,
    ) -> resonant_db::sharding::ShardedDatabaseBuilder,
) -> (Vec<TempDatabase>, Result<ShardedDatabase>) {
    let databases = databases(2, SCHEMA).await;
    let mut builder = ShardedDatabase::builder().shard_key("org_id").pool(small());
    for (shard, database) in databases.iter().enumerate() {
        builder = builder.shard(format!("shard_{shard}"), database.url());
    }
    let db = declare(builder).connect().await;
    (databases, db)
}

#[tokio::test]
async fn tables_keys_and_types_are_learned_and_what_does_not_fit_says_why() {
    let (_held, db) = two(|builder| builder.reference("countries").learn(true)).await;
    let db = db.expect("learned");
    let org = "0b4ef8bb-6d6b-49bd-980a-11a0eebc999c";
    db.execute("INSERT INTO agents (org_id, id) VALUES ($1, 1)", params![org])
        .await
        .expect("stored");
    db.execute("INSERT INTO jobs (org_id, job) VALUES ($1, 1)", params![org])
        .await
        .expect("stored");
    db.execute("INSERT INTO accounts (org_id) VALUES ($1)", params![org]).await.expect("stored");
    let joined =
        "SELECT a.id FROM public.agents a JOIN jobs j ON j.org_id = a.org_id WHERE a.org_id = $1";
    assert_eq!(db.query_as::<i64>(joined, params![org]).await.expect("rows"), [1]);
    db.query("SELECT n FROM parts WHERE org_id = $1", params![org])
        .await
        .expect("a partitioned table");
    db.query("SELECT code FROM countries", params![]).await.expect("a reference table");
    // Its key is a UUID, and that of the others is text: they are no neighbours.
    let error = db.shard_for(org).expect_err("keys of two types");
    assert!(error.message().contains("several types"), "{error}");
    for (table, reason) in [
        ("loose", "make it NOT NULL"),
        ("padded", "of type bpchar"),
        ("folded", "nondeterministic"),
        ("seen", "is a view"),
        ("ruled", "has rules"),
        ("strangers", "is not declared"),
    ] {
        let sql = format!("SELECT 1 FROM {table} WHERE org_id = $1");
        let error = db.query(&sql, params![org]).await.expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.message().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_declaration_that_contradicts_the_catalogue_is_refused_with_the_reason() {
    for (table, key_type, reason) in [
        ("agents", KeyType::Int, "is of type text there and is declared as int"),
        ("accounts", KeyType::Text, "is of type uuid there and is declared as text"),
        ("loose", KeyType::Text, "may be NULL"),
        ("padded", KeyType::Text, "of type bpchar"),
        ("folded", KeyType::Text, "nondeterministic"),
        ("seen", KeyType::Text, "is a view"),
        ("ruled", KeyType::Text, "has rules"),
        ("countries", KeyType::Text, "has no column org_id"),
    ] {
        let (_held, db) = two(|builder| builder.table(table, "org_id", key_type)).await;
        let db = db.expect("shards are connected to when they are used");
        let sql = format!("SELECT 1 FROM {table} WHERE org_id = $1");
        let error = db.query(&sql, params!["7"]).await.expect_err(reason);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains(reason), "{error}");
        assert!(error.message().contains("shard_"), "{error}");
        let error = db.query_all(&format!("SELECT 1 FROM {table}"), params![]).await;
        assert_eq!(error.expect_err(reason).kind(), ErrorKind::Config);
    }
    let (_held, db) = two(|builder| builder.reference("seen")).await;
    let error =
        db.expect("shards").query("SELECT 1 FROM seen", params![]).await.expect_err("a view");
    assert!(error.message().contains("is a view"), "{error}");
}

#[tokio::test]
async fn a_shard_that_differs_from_the_others_is_refused_alone_until_it_is_made_right() {
    let (held, db) = two(|builder| builder.table("agents", "org_id", KeyType::Text)).await;
    let db = db.expect("shards");
    db.on_all("DROP VIEW seen").await.expect("nothing depends on the column");
    held[1]
        .sql("ALTER TABLE agents ALTER org_id TYPE text COLLATE anycase")
        .await
        .expect("altered");
    let insert = "INSERT INTO agents (org_id, id) VALUES ($1, 1)";
    for n in 0..20 {
        let org = format!("org_{n}");
        let home = db.shard_for(&org).expect("a shard").to_owned();
        match db.execute(insert, params![org]).await {
            Ok(_) => assert_eq!(home, "shard_0"),
            Err(error) => {
                assert_eq!(
                    (home.as_str(), error.kind()),
                    ("shard_1", ErrorKind::Config),
                    "{error}"
                );
            }
        }
    }
    db.on_all("ALTER TABLE agents ALTER org_id TYPE text COLLATE \"C\"").await.expect("repaired");
    let sql = "INSERT INTO agents (org_id, id) VALUES ($1, 2)";
    for n in 0..20 {
        db.execute(sql, params![format!("org_{n}")]).await.expect("both take rows");
    }
    // A change for the worse is seen as well.
    db.on_all("ALTER TABLE agents ALTER org_id TYPE text COLLATE anycase").await.expect("altered");
    assert_eq!(
        db.execute(sql, params!["org_x"]).await.expect_err("again").kind(),
        ErrorKind::Config
    );
}

#[tokio::test]
async fn learning_needs_a_key_and_a_shard_that_answers() {
    let dead = "postgresql://127.0.0.1:1/none";
    let builder = || ShardedDatabase::builder().learn(true).pool(small());
    let error = builder().shard("a", dead).connect().await.expect_err("no key");
    assert!(error.message().contains("shard_key"), "{error}");
    let error = builder().shard_key("org_id").shard("a", "sqlite::memory:").connect().await;
    assert_eq!(error.expect_err("SQLite").kind(), ErrorKind::Unsupported);
    let error = builder().shard_key("org_id").shard("a", dead).connect().await.expect_err("dead");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let databases = databases(1, SCHEMA).await;
    let db =
        builder().shard_key("org_id").shard("a", dead).shard("b", databases[0].url()).connect();
    let db = db.await.expect("one of two is enough");
    assert!(db.router().check("SELECT id FROM agents WHERE org_id = $1").is_ok());
}
