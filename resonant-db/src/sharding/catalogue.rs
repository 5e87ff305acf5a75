//! What the shards say of their tables: read from the catalogue of a server, compared with what is declared, and asked
//! when answers are merged.
//!
//! A declaration that contradicts the catalogue would put rows on the wrong shard or miss them, so such a shard is refused
//! with the reason. What depends on a column's type or collation is believed only while all shards that answer agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::key::KeyType;
use super::schema::Schema;
use crate::{Database, Error, ErrorKind, Param, Result, Rows};

/// What the values of a column that are shown as text stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Equal and in order as their bytes are.
    Bytewise,
    /// Equal as their bytes are; their order is the engine's.
    Exact,
    /// Dates and timestamps.
    Moment,
}

/// A table of a shard.
#[derive(Debug, Clone, Default)]
struct Table {
    /// `r` and `p` are tables; anything else is not.
    relation: String,
    rules: bool,
    columns: BTreeMap<String, Column>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    type_name: String,
    not_null: bool,
    deterministic: bool,
    bytewise: bool,
    enumeration: bool,
}

/// The tables of one shard at one time.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// By the names a statement may use: with the schema, and without where that is enough.
    tables: BTreeMap<String, Table>,
}

#[derive(serde::Deserialize)]
struct Line {
    schema: String,
    name: String,
    visible: bool,
    relation: String,
    rules: bool,
    column: String,
    not_null: bool,
    type_name: String,
    enumeration: bool,
    deterministic: bool,
    bytewise: bool,
}

/// Columns of the tables that are named, or that have a column of the key's name.
const TABLES: &str = r#"
SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_table_is_visible(c.oid) AS visible,
       c.relkind::text AS relation, c.relhasrules AS rules, a.attname AS column,
       a.attnotnull OR t.typnotnull AS not_null, b.typname AS type_name, b.typtype = 'e' AS enumeration,
       coalesce(k.collisdeterministic, true) AS deterministic,
       coalesce(CASE WHEN k.collname = 'default'
                     THEN coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'b'
                          OR (coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX'))
                     ELSE k.collprovider = 'b' OR k.collname = 'ucs_basic'
                          OR (k.collprovider = 'c' AND k.collcollate IN ('C', 'POSIX')) END, false) AS bytewise
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
LEFT JOIN pg_catalog.pg_collation k ON k.oid = a.attcollation
WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND ("#;

/// Keys hashed by the server, in the order of [`PROBES`].
const HASHES: &str = "SELECT pg_catalog.hashint8extended(42, 8816678312871386365) AS int_key, \
     pg_catalog.hashtextextended('żółć', 8816678312871386365) AS text_key, \
     pg_catalog.uuid_hash_extended('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 8816678312871386365) AS uuid_key";

/// Reads the catalogue of a shard: what is declared, and tables with the column `key` if that is given.
pub(super) async fn read(
    database: &Database,
    schema: &Schema,
    key: Option<&str>,
) -> Result<Snapshot> {
    let mut sql = TABLES.to_owned();
    let mut names: Vec<&str> =
        schema.all_tables().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        sql.push_str("false");
    } else {
        let places: Vec<String> = (1..=names.len()).map(|n| format!("${n}::text")).collect();
        sql.push_str(&format!("c.relname::text IN ({})", places.join(", ")));
    }
    let mut params: Vec<Param<'_>> = names.into_iter().map(Param::Text).collect();
    if let Some(key) = key {
        params.push(Param::Text(key));
        sql.push_str(&format!(
            " OR EXISTS (SELECT 1 FROM pg_catalog.pg_attribute x WHERE x.attrelid = c.oid AND x.attnum > 0 \
             AND NOT x.attisdropped AND x.attname::text = ${}::text)",
            params.len()
        ));
    }
    sql.push(')');
    Snapshot::of(&asked(database, &sql, &params).await?)
}

/// The primary knows best; where it is down a replica will do.
async fn asked(database: &Database, sql: &str, params: &[Param<'_>]) -> Result<Rows> {
    match database.write().query(sql, params).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            database.read().query(sql, params).await
        }
        answer => answer,
    }
}

/// Checks that a server hashes as this program does.
pub(super) async fn check_hash(database: &Database, shard: &str) -> Result<()> {
    let server: Option<(i64, i64, i64)> = match asked(database, HASHES, &[]).await {
        Ok(rows) => rows.first().and_then(|row| row.decode().ok()),
        // Its encoding does not have the letters.
        Err(error) if error.kind() == ErrorKind::Rejected => None,
        Err(error) => return Err(error),
    };
    let uuid = [
        0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a,
        0x11,
    ];
    use super::ShardKey;
    let ours = [ShardKey::Int(42), ShardKey::Text("żółć"), ShardKey::Uuid(uuid)]
        .map(|key| super::function::postgres_value_hash(&key).cast_signed());
    if server != Some((ours[0], ours[1], ours[2])) {
        let message = format!(
            "the server of {shard} hashes keys otherwise than postgres_hash does: it is not little-endian or its \
             database is not in UTF-8; use hash_mod"
        );
        return Err(Error::new(ErrorKind::Config, "connect", message));
    }
    Ok(())
}

impl Snapshot {
    fn of(rows: &Rows) -> Result<Self> {
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        for row in rows {
            let line: Line = row.decode()?;
            let column = Column {
                type_name: line.type_name,
                not_null: line.not_null,
                deterministic: line.deterministic,
                bytewise: line.bytewise,
                enumeration: line.enumeration,
            };
            let full = format!("{}.{}", line.schema, line.name);
            for name in line.visible.then_some(line.name).into_iter().chain([full]) {
                let table = tables.entry(name).or_default();
                table.relation.clone_from(&line.relation);
                table.rules = line.rules;
                table.columns.insert(line.column.clone(), column.clone());
            }
        }
        Ok(Self { tables })
    }

    /// Whether every declared table is there.
    pub(super) fn is_complete(&self, schema: &Schema) -> bool {
        schema.all_tables().all(|name| self.tables.contains_key(name))
    }

    /// Compares with what is declared. Tables that are not there yet contradict nothing.
    pub(super) fn verify(&self, schema: &Schema) -> Result<(), String> {
        for (name, declared) in schema.tables() {
            if let Some(table) = self.tables.get(name) {
                let found = table.key_type(name, &declared.key)?;
                if found != declared.key_type {
                    return Err(format!(
                        "{name}.{} is of type {} there and is declared as {}",
                        declared.key,
                        table.columns.get(&*declared.key).map_or("", |column| &column.type_name),
                        declared.key_type
                    ));
                }
            }
        }
        for name in schema.references() {
            if let Some(table) = self.tables.get(name) {
                table.stored(name)?;
            }
        }
        Ok(())
    }

    /// The tables that carry a key column of this name: their key's type, or why they cannot be sharded by it.
    pub(super) fn keyed<'s>(
        &'s self,
        key: &'s str,
    ) -> impl Iterator<Item = (&'s str, Result<KeyType, String>)> {
        self.tables
            .iter()
            .filter(move |(_, table)| table.columns.contains_key(key))
            .map(move |(name, table)| (name.as_str(), table.key_type(name, key)))
    }

    fn kind(&self, table: &str, column: &str) -> Option<Kind> {
        let column = self.tables.get(table)?.columns.get(column)?;
        if column.enumeration {
            return Some(Kind::Exact);
        }
        match column.type_name.as_str() {
            "text" | "varchar" if column.bytewise => Some(Kind::Bytewise),
            "text" | "varchar" if column.deterministic => Some(Kind::Exact),
            "uuid" | "time" => Some(Kind::Bytewise),
            "date" | "timestamp" | "timestamptz" => Some(Kind::Moment),
            _ => None,
        }
    }
}

impl Table {
    /// Fails for what holds no rows itself.
    fn stored(&self, name: &str) -> Result<(), String> {
        let what = match self.relation.as_str() {
            "r" | "p" if self.rules => "has rules that rewrite statements",
            "r" | "p" => return Ok(()),
            "v" => "is a view",
            "m" => "is a materialized view",
            _ => "is a foreign table",
        };
        Err(format!("{name} {what}, so a statement on it says nothing about where its rows are"))
    }

    fn key_type(&self, name: &str, key: &str) -> Result<KeyType, String> {
        self.stored(name)?;
        let Some(column) = self.columns.get(key) else {
            return Err(format!("{name} has no column {key}"));
        };
        let label = format!("{name}.{key}");
        if !column.not_null {
            return Err(format!(
                "{label} may be NULL, and a NULL belongs to no shard: make it NOT NULL"
            ));
        }
        if !column.deterministic {
            return Err(format!(
                "{label} has a nondeterministic collation, under which texts of different bytes are equal: give it \
                 a deterministic one"
            ));
        }
        match column.type_name.as_str() {
            "int2" | "int4" | "int8" => Ok(KeyType::Int),
            "text" | "varchar" => Ok(KeyType::Text),
            "uuid" => Ok(KeyType::Uuid),
            "bytea" => Ok(KeyType::Bytes),
            other => Err(format!(
                "{label} is of type {other}, which is no type of a key: use a whole number, text, varchar, uuid or bytea"
            )),
        }
    }
}

/// What each shard said last.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    shards: Mutex<BTreeMap<u32, Arc<Snapshot>>>,
}

impl Catalogue {
    pub(super) fn note(&self, shard: u32, snapshot: Snapshot) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.insert(shard, Arc::new(snapshot));
    }

    /// What a column's text stands for, if all these shards say the same.
    pub(super) fn kind(&self, of: &[u32], table: &str, column: &str) -> Option<Kind> {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kinds = of.iter().map(|shard| shards.get(shard)?.kind(table, column));
        let first = kinds.next()??;
        kinds.all(|kind| kind == Some(first)).then_some(first)
    }
}
