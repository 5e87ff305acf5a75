//! From one server to four: the program is written for shards from the first day and does not change when they come.
//!
//! `cargo run --example growing`
//!
//! 1. All 4096 buckets live on one server. The router already proves every statement: what would not work on many servers is
//!    refused now, while it is cheap to rewrite.
//! 2. Three servers are added. The planner says which buckets move; here the program is stopped while their rows do;
//!    on PostgreSQL a `Mover` moves them while it runs.
//! 3. The same functions run on four servers. A process that still has the old map is refused by the shards themselves.

use std::error::Error;
use std::path::Path;

use resonant_db::backend::sqlite;
use resonant_db::sharding::{BucketMap, Migrations};
use resonant_db::{KeyType, ShardedDatabase, params, row};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The schema, in files as sqlx has them.
const SCHEMA: [(&str, &str); 1] = [(
    "0001_agents.sql",
    "CREATE TABLE agents (org_id TEXT NOT NULL, id BIGINT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (org_id, id))",
)];

#[tokio::main]
async fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (one, four) = (BucketMap::dealt(1)?, [0, 1, 2, 3]);

    // Day one: one server holds everything.
    let db = connect(folder.path(), 1, &one).await?;
    fill(&db).await?;
    serve(&db).await?;

    // Growing: the plan says what moves, and nothing else does.
    let plan = one.plan(&four)?;
    let map = one.apply(&plan)?;
    println!("{} of 4096 buckets move, {} stay", plan.moves.len(), 4096 - plan.moves.len());
    assert_eq!(plan.moves.len(), 3072);
    let grown = connect(folder.path(), 4, &map).await?;
    grown.migrator(&Migrations::from_files(SCHEMA)?).run().await?;
    let moved = relocate(&db, &grown).await?;
    println!("{moved} rows have moved");

    // From now on: the same functions, four servers.
    serve(&grown).await?;
    for (name, shard) in grown.shards() {
        let count: i64 =
            shard.read().query_one_as("SELECT count(*) FROM agents", params![]).await?;
        println!("{name}: {count} agents");
        assert!(count > 0);
    }

    // Somebody forgot a process: it has the map of day one, and the shards know better.
    let stale = connect(folder.path(), 1, &one).await?;
    match stale.query("SELECT name FROM agents WHERE org_id = $1", params!["org_7"]).await {
        Ok(_) => return Err("a process with an old map must be refused".into()),
        Err(refused) => println!("refused: {refused}"),
    }
    Ok(())
}

/// The settings: the number of servers and the map are all that ever changes.
async fn connect(folder: &Path, servers: usize, map: &BucketMap) -> Outcome<ShardedDatabase> {
    let mut builder = ShardedDatabase::builder()
        .table("agents", "org_id", KeyType::Text)
        .bucket_map(map.clone())
        // Each server remembers its place and the map's epoch.
        .guard(true);
    for n in 0..servers {
        let name = format!("shard_{n}");
        builder = builder.shard(&name, sqlite::url(folder.join(format!("{name}.db"))));
    }
    Ok(builder.connect().await?)
}

async fn fill(db: &ShardedDatabase) -> Outcome {
    db.migrator(&Migrations::from_files(SCHEMA)?).run().await?;
    let insert = "INSERT INTO agents (org_id, id, name) VALUES ($1, $2, $3)";
    for n in 0..400_i64 {
        let org = format!("org_{}", n % 100);
        db.execute(insert, params![org, n, "Ada"]).await?;
    }
    Ok(())
}

/// What the program does all day. It knows nothing of servers.
async fn serve(db: &ShardedDatabase) -> Outcome {
    let of_org = "SELECT id FROM agents WHERE org_id = $1 ORDER BY id";
    let ids: Vec<i64> = db.query_as(of_org, params!["org_7"]).await?;
    assert_eq!(ids, [7, 107, 207, 307]);
    let first = "SELECT id FROM agents ORDER BY id LIMIT 3 OFFSET 10";
    let ids: Vec<i64> = db.query_all(first, params![]).await?.decode()?;
    assert_eq!(ids, [10, 11, 12]);
    let count: Vec<i64> = db.query_all("SELECT count(*) FROM agents", params![]).await?.decode()?;
    assert_eq!(count, [400]);
    // On one server this would work, and on four it would not: so it is refused on one.
    let name = db.query("SELECT id FROM agents WHERE name = $1", params!["Ada"]).await;
    assert!(name.is_err());
    let renamed = "UPDATE agents SET name = $3 WHERE org_id = $1 AND id = $2";
    assert_eq!(db.execute(renamed, params!["org_7", 107, "Grace"]).await?, 1);
    Ok(())
}

/// Moves the rows whose buckets have another owner now, while nobody writes: first they are copied, then taken away where they
/// were.
async fn relocate(from: &ShardedDatabase, to: &ShardedDatabase) -> Outcome<u64> {
    let (home, old) = from.shards().next().ok_or("there is a shard")?;
    let all = "SELECT org_id, id, name FROM agents";
    let rows: Vec<(String, i64, String)> = old.read().query_as(all, params![]).await?;
    let stays = |org: &str| to.shard_for(org).is_ok_and(|shard| shard == home);
    let moving: Vec<_> = rows.into_iter().filter(|(org, _, _)| !stays(org)).collect();
    let insert = "INSERT INTO agents (org_id, id, name) VALUES ($1, $2, $3)";
    let copied =
        to.execute_many(insert, moving.iter().map(|(org, id, name)| row![org, *id, name])).await?;
    let delete = "DELETE FROM agents WHERE org_id = $1 AND id = $2";
    let gone =
        old.write().execute_many(delete, moving.iter().map(|(org, id, _)| row![org, *id])).await?;
    assert_eq!(copied, gone);
    Ok(copied)
}
