//! `postgres_hash` and the server's own partition hash.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use resonant_db::sharding::{BUCKETS, ShardFunction, ShardKey, postgres_hash};
use resonant_db::{Database, ErrorKind, KeyType, Param, ShardedDatabase, params, row};

use super::sharding::{databases, small, statements};

fn bucket(key: &ShardKey<'_>) -> i64 {
    i64::try_from(postgres_hash(key) % u64::from(BUCKETS)).expect("below 4096")
}

/// A value of a type: as a parameter, and the bucket we say it has.
enum Value {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Uuid([u8; 16]),
}

impl Value {
    fn any(of: &str, chance: &mut StdRng) -> Self {
        let length = chance.random_range(0..40);
        match of {
            // Small ones, large ones and those of both signs.
            "int2" => Self::Int(chance.random::<i16>().into()),
            "int4" => Self::Int(chance.random::<i32>().into()),
            "int8" => Self::Int(chance.random::<i64>() >> chance.random_range(0..60)),
            "uuid" => Self::Uuid(chance.random()),
            "bytea" => {
                let mut bytes = vec![0; length];
                chance.fill_bytes(&mut bytes);
                Self::Bytes(bytes)
            }
            _ => {
                let letters = ['a', 'Z', '0', ' ', 'ż', 'ß', '東', '𝄞', '\n', '_'];
                let letter = |_| letters[chance.random_range(0..letters.len())];
                Self::Text((0..length).map(letter).collect())
            }
        }
    }

    fn key(&self) -> ShardKey<'_> {
        match self {
            Self::Int(number) => ShardKey::Int(*number),
            Self::Text(text) => ShardKey::Text(text),
            Self::Bytes(bytes) => ShardKey::Bytes(bytes),
            Self::Uuid(bytes) => ShardKey::Uuid(*bytes),
        }
    }
}

#[tokio::test]
async fn every_bucket_is_the_one_the_server_partitions_by() {
    let mut chance = StdRng::seed_from_u64(15);
    let database = databases(1, "").await.remove(0);
    let db = Database::builder().primary(database.url()).pool(small()).connect().await;
    let db = db.expect("a database");
    for of in ["int2", "int4", "int8", "uuid", "bytea", "text", "varchar"] {
        let create = format!(
            "CREATE TABLE parent_{of} (k {of}) PARTITION BY HASH (k); CREATE TABLE keys_{of} (k {of}, bucket int)"
        );
        db.write().batch(&create).await.expect("tables");
        let mut left = statements(3_000);
        while left > 0 {
            let count = left.min(5_000);
            left -= count;
            let values: Vec<Value> = (0..count).map(|_| Value::any(of, &mut chance)).collect();
            let texts: Vec<String> = values
                .iter()
                .map(|value| match value {
                    Value::Uuid(bytes) => {
                        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                        hex
                    }
                    _ => String::new(),
                })
                .collect();
            let rows = values.iter().zip(&texts).map(|(value, text)| {
                let key = match value {
                    Value::Int(number) => Param::Int(*number),
                    Value::Text(text) => Param::Text(text),
                    Value::Bytes(bytes) => Param::Bytes(bytes),
                    Value::Uuid(_) => Param::Text(text),
                };
                row![key, bucket(&value.key())]
            });
            let insert = format!("INSERT INTO keys_{of} (k, bucket) VALUES ($1, $2)");
            db.write().execute_many(&insert, rows).await.expect("keys");
        }
        let agree = format!(
            "SELECT count(*), count(*) FILTER (WHERE satisfies_hash_partition('parent_{of}'::regclass, 4096, bucket, k)), \
             count(*) FILTER (WHERE satisfies_hash_partition('parent_{of}'::regclass, 4096, (bucket + 1) % 4096, k)) \
             FROM keys_{of}"
        );
        let (all, ours, next): (i64, i64, i64) =
            db.read().query_one_as(&agree, params![]).await.expect("counts");
        assert_eq!((ours, next), (all, 0), "{of}");
    }
}

#[tokio::test]
async fn a_server_that_hashes_otherwise_is_refused_before_a_row_is_placed() {
    const SCHEMA: &str = "CREATE TABLE agents (org_id text NOT NULL, id int)";
    let good = databases(1, SCHEMA).await.remove(0);
    let latin = "CREATE DATABASE hashes_otherwise ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    // The name is of the server: a run that was killed may have left it.
    good.sql("DROP DATABASE IF EXISTS hashes_otherwise").await.expect("drop");
    good.sql(latin).await.expect("a database in another encoding");
    let other = good.url().replace(good.name(), "hashes_otherwise");
    let plain = Database::builder().primary(other.clone()).pool(small()).connect().await;
    let plain = plain.expect("a database");
    plain.write().batch(SCHEMA).await.expect("the schema");
    let insert = "INSERT INTO agents (org_id, id) VALUES ($1, 1)";
    for (function, fits) in [(ShardFunction::PostgresHash, false), (ShardFunction::HashMod, true)] {
        let db = ShardedDatabase::builder()
            .shard("good", good.url())
            .shard("other", other.clone())
            .table("agents", "org_id", KeyType::Text)
            .shard_function(function)
            .pool(small())
            .connect()
            .await
            .expect("shards");
        for n in 0..20 {
            let org = format!("org_{n}");
            let home = db.shard_for(&org).expect("a shard").to_owned();
            let stored = db.execute(insert, params![org]).await;
            if home == "good" || fits {
                assert_eq!(stored.expect("stored"), 1);
            } else {
                let error = stored.expect_err("another encoding");
                assert_eq!(error.kind(), ErrorKind::Config, "{error}");
                assert!(error.message().contains("UTF-8"), "{error}");
            }
        }
        let misplaced = "SELECT count(*) FROM agents";
        let stored: i64 = plain.read().query_one_as(misplaced, params![]).await.expect("a count");
        assert_eq!(stored > 0, fits);
        db.close(super::LIMIT).await.expect("closed");
    }
    plain.close(super::LIMIT).await.expect("closed");
    good.sql("DROP DATABASE hashes_otherwise WITH (FORCE)").await.expect("drop");
}
