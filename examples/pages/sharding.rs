//! ShardedDatabase: a statement goes to the shards it is proven to touch, or it is refused with the reason.
//!
//! `cargo run --example sharding`

use std::error::Error;

use resonant_db::backend::sqlite;
use resonant_db::{KeyType, ShardFunction, ShardedDatabase, params, row};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut builder = ShardedDatabase::builder()
        .shard_key("org_id")
        .shard_function(ShardFunction::HashMod)
        .table("agents", "org_id", KeyType::Text)
        .reference("countries");
    for n in 0..4 {
        let name = format!("shard_{n}");
        builder = builder.shard(&name, sqlite::url(folder.path().join(format!("{name}.db"))));
    }
    let db = builder.connect().await?;
    db.on_all("CREATE TABLE agents (org_id TEXT NOT NULL, name TEXT NOT NULL, country TEXT NOT NULL); CREATE TABLE countries (code TEXT PRIMARY KEY)")
        .await?;

    // Rows of many keys go where they belong; order within a shard is kept.
    let insert = "INSERT INTO agents (org_id, name, country) VALUES ($1, $2, $3)";
    for org in 0..20 {
        let org = format!("org_{org}");
        db.execute_many(insert, [row![&org, "Ada", "uk"], row![&org, "Grace", "us"]]).await?;
    }

    // One key, one shard. The routing is decided once for a statement and then cached.
    let org = "org_7";
    let names: Vec<String> = db
        .query_as("SELECT name FROM agents WHERE org_id = $1 ORDER BY name", params![org])
        .await?;
    assert_eq!(names, ["Ada", "Grace"]);
    println!("{org} lives on {}", db.shard_for(org)?);

    // Without the key a statement is refused, and the message says what to write instead.
    match db.query("SELECT name FROM agents WHERE name = $1", params!["Ada"]).await {
        Ok(_) => return Err("a statement that proves no shard must be refused".into()),
        Err(refused) => println!("refused: {refused}"),
    }

    // Each shard is a Database of its own, for work that is meant for all of them.
    let mut agents = 0;
    for (name, shard) in db.shards() {
        let count: i64 =
            shard.read().query_one_as("SELECT count(*) FROM agents", params![]).await?;
        println!("{name}: {count} agents");
        agents += count;
    }
    assert_eq!(agents, 40);
    db.close(std::time::Duration::from_secs(5)).await?;
    Ok(())
}
