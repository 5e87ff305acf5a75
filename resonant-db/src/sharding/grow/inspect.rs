//! The look at both shards before anything is touched: what cannot be moved soundly is refused by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::link::Link;
use super::steps::ordered;
use super::tables::{Column, Table, array, plain, quoted, text};
use super::{OPERATION, hash};
use crate::sharding::function::Bucketed;
use crate::sharding::schema::Schema;
use crate::{Error, ErrorKind, Result, params};

const RELATION: &str = "
SELECT c.relkind::text AS relation, c.relrowsecurity AS secured, c.relhasrules AS rules, c.relpersistence::text AS persistence,
       EXISTS (SELECT 1 FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)) AS inherits,
       (SELECT string_agg(t.tgname::text, ', ') FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
        AND t.tgname NOT IN ('resonant_guard', 'resonant_truncate')) AS triggers,
       coalesce((SELECT string_agg(format('%s %s %s %s %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
            a.attnotnull, a.attgenerated, a.attidentity), ', ' ORDER BY a.attname) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '') AS columns,
       coalesce((SELECT string_agg(d, ', ' ORDER BY d) FROM (SELECT pg_catalog.pg_get_constraintdef(k.oid) AS d
            FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 't' UNION ALL
            SELECT split_part(pg_catalog.pg_get_indexdef(x.indexrelid), ' USING ', 2) FROM pg_catalog.pg_index x
            WHERE x.indrelid = c.oid AND x.indisunique) parts), '') AS rules_of,
       EXISTS (SELECT 1 FROM pg_catalog.pg_index x JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
            AND a.attnum = x.indkey[0] WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL AND a.attname::text = $2) AS indexed
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";
const COLUMNS: &str = "
SELECT a.attname::text AS name, a.attgenerated <> '' AS generated,
       coalesce(array_position(x.indkey::smallint[], a.attnum), -1)::bigint AS place,
       pg_catalog.pg_get_serial_sequence($1, a.attname) AS sequence
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_index x ON x.indrelid = a.attrelid AND x.indisprimary
WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
const REFERENCES: &str = "
SELECT k.conname::text AS name, k.conrelid::bigint AS from_table, k.confrelid::bigint AS to_table,
       k.conrelid::regclass::text AS from_name,
       (SELECT array_to_string(array_agg(a.attname::text || '>' || b.attname::text), ' ') FROM
            unnest(k.conkey, k.confkey) AS pair (one, other)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = pair.one
            JOIN pg_catalog.pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = pair.other) AS columns
FROM pg_catalog.pg_constraint k WHERE k.contype = 'f'";

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Relation {
    relation: String,
    secured: bool,
    rules: bool,
    persistence: String,
    inherits: bool,
    triggers: Option<String>,
    columns: String,
    rules_of: String,
    indexed: bool,
}

#[derive(Deserialize)]
struct Line {
    name: String,
    generated: bool,
    place: i64,
    sequence: Option<String>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    from_table: i64,
    to_table: i64,
    from_name: String,
    columns: Option<String>,
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, OPERATION, format!("{message}; nothing was changed"))
}

/// What the catalogue of a shard says of the declared tables; `None` for one that is not there.
pub(super) async fn relations(
    link: &mut Link,
    schema: &Schema,
) -> Result<BTreeMap<String, Option<Relation>>> {
    let mut found = BTreeMap::new();
    for (name, declared) in schema.tables() {
        let (table, key) = (quoted(name), &*declared.key);
        let relation = link.rows_of::<Relation>(RELATION, params![table, key]).await?;
        found.insert(name.to_owned(), relation.into_iter().next());
    }
    Ok(found)
}

/// The tables that move, in an order in which each comes after what it refers to; or why they cannot.
pub(super) async fn tables(
    source: &mut Link,
    target: &mut Link,
    schema: &Schema,
    buckets: &Bucketed,
) -> Result<Vec<Table>> {
    let (here, there) = (relations(source, schema).await?, relations(target, schema).await?);
    let mut tables = Vec::new();
    for ((name, declared), (one, other)) in schema.tables().zip(here.values().zip(there.values())) {
        let (one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (None, None) => continue,
            (Some(_), None) => {
                return Err(refused(format!(
                    "{} has no table {name}: migrate it first",
                    target.name
                )));
            }
            (None, Some(_)) => {
                return Err(refused(format!(
                    "{} has no table {name}: migrate it first",
                    source.name
                )));
            }
        };
        fit(name, one, other, &source.name, &target.name).map_err(refused)?;
        if hash::bucket(buckets, declared.key_type, "").is_none() {
            return Err(refused(format!(
                "SQL has no hash for keys of type {} under postgres_hash ({name})",
                declared.key_type
            )));
        }
        let mut table = columns(source, name, declared).await?;
        // It is the target's sequences that have to get past what comes.
        let there = columns(target, name, declared).await?.columns;
        for column in &mut table.columns {
            let twin = there.iter().find(|other| other.name == column.name);
            column.sequence = twin.and_then(|other| other.sequence.clone());
        }
        tables.push(table);
        if !one.indexed {
            return Err(refused(format!(
                "{name} has no index that begins with {}, so its rows could not be taken away quickly: create one",
                declared.key
            )));
        }
    }
    references(source, &mut tables).await?;
    ordered(tables).map_err(|name| {
        refused(format!(
            "the foreign keys of {name} go round in a circle: no order of tables satisfies them"
        ))
    })
}

/// Whether a table can be moved between two shards.
fn fit(
    name: &str,
    one: &Relation,
    other: &Relation,
    here: &str,
    there: &str,
) -> Result<(), String> {
    for (relation, shard) in [(one, here), (other, there)] {
        let why = match relation {
            Relation { relation, .. } if relation == "p" => "is partitioned",
            Relation { relation, .. } if relation != "r" => "is no table",
            Relation { inherits: true, .. } => "inherits or is inherited from",
            Relation { persistence, .. } if persistence != "p" => "is unlogged or temporary",
            Relation { rules: true, .. } => "has rules that rewrite statements",
            Relation { secured: true, .. } => "has row-level security, which may hide rows",
            Relation { triggers: Some(triggers), .. } => {
                return Err(format!(
                    "{name} on {shard} has triggers of its own, which would run for rows that move: {triggers}"
                ));
            }
            _ => continue,
        };
        return Err(format!("{name} on {shard} {why}"));
    }
    if one.columns != other.columns {
        return Err(format!(
            "{name} has other columns on {here} than on {there}: ({}) and ({})",
            one.columns, other.columns
        ));
    }
    if one.rules_of != other.rules_of {
        return Err(format!(
            "{name} has other constraints or unique indexes on {here} than on {there}: ({}) and ({})",
            one.rules_of, other.rules_of
        ));
    }
    Ok(())
}

async fn columns(
    link: &mut Link,
    name: &str,
    declared: &crate::sharding::schema::Table,
) -> Result<Table> {
    let lines = link.rows_of::<Line>(COLUMNS, params![quoted(name)]).await?;
    let mut primary: Vec<(i64, String)> = lines
        .iter()
        .filter(|line| line.place >= 0)
        .map(|line| (line.place, line.name.clone()))
        .collect();
    primary.sort();
    let primary: Vec<String> = primary.into_iter().map(|(_, name)| name).collect();
    if primary.is_empty() {
        return Err(refused(format!(
            "{name} has no primary key, so its rows cannot be told apart"
        )));
    }
    if !primary.iter().any(|column| *column == *declared.key) {
        return Err(refused(format!(
            "the primary key of {name} does not hold {}: rows of two shards could have the same",
            declared.key
        )));
    }
    if let Some(line) = lines.iter().find(|line| line.generated && line.place >= 0) {
        return Err(refused(format!(
            "the primary key of {name} holds {}, which is generated",
            line.name
        )));
    }
    let columns = lines.into_iter().filter(|line| !line.generated);
    let columns = columns.map(|line| Column { name: line.name, sequence: line.sequence });
    Ok(Table {
        name: name.to_owned(),
        key: declared.key.to_string(),
        key_type: declared.key_type,
        columns: columns.collect(),
        primary,
        refers_to: Vec::new(),
    })
}

/// Foreign keys have to carry the key, so that both ends move together.
async fn references(link: &mut Link, tables: &mut [Table]) -> Result<()> {
    let mut oids: BTreeMap<i64, usize> = BTreeMap::new();
    for (at, table) in tables.iter().enumerate() {
        let sql = format!("SELECT pg_catalog.to_regclass({})::oid::bigint", text(&table.quoted()));
        oids.insert(link.value(&sql).await?, at);
    }
    for reference in link.rows::<Reference>(REFERENCES).await? {
        let Some(other) = oids.get(&reference.to_table) else { continue };
        let Some(one) = oids.get(&reference.from_table) else {
            return Err(refused(format!(
                "{} is not declared and refers to {} by {}: its rows would stay behind",
                reference.from_name,
                tables.get(*other).map_or("", |table| &table.name),
                reference.name
            )));
        };
        let (Some(from), Some(to)) = (tables.get(*one), tables.get(*other)) else { continue };
        let both = format!("{}>{}", from.key, to.key);
        let columns = reference.columns.unwrap_or_default();
        if !columns.split(' ').any(|pair| pair == both) {
            return Err(refused(format!(
                "the foreign key {} from {} to {} does not carry the shard key: its ends may be in different buckets",
                reference.name, from.name, to.name
            )));
        }
        let to = to.name.clone();
        if let Some(from) = tables.get_mut(*one) {
            from.refers_to.push(to);
        }
    }
    Ok(())
}

/// Whether tables have the columns still that they had when the move began: it would leave out what a new one holds.
pub(super) fn unchanged(tables: &[Table], now: &[(i64, String)], shard: &str) -> Result<()> {
    for (at, table) in (0_i64..).zip(tables) {
        let then: BTreeSet<&str> =
            table.columns.iter().map(|column| column.name.as_str()).collect();
        let now: BTreeSet<&str> =
            now.iter().filter(|(place, _)| *place == at).map(|(_, name)| name.as_str()).collect();
        if now != then {
            let differ: Vec<&str> = now.symmetric_difference(&then).copied().collect();
            let message = format!(
                "the columns of {} on {shard} have changed since the move began ({}): nothing more was switched; roll it back \
                 and move again",
                table.name,
                differ.join(", ")
            );
            return Err(Error::new(ErrorKind::Refused, OPERATION, message));
        }
    }
    Ok(())
}

/// The target must not have rows of the buckets yet.
pub(super) async fn empty(
    target: &mut Link,
    tables: &[Table],
    moving: &[u32],
    buckets: &Bucketed,
) -> Result<()> {
    for table in tables {
        let Some(bucket) = hash::bucket(buckets, table.key_type, "k") else { continue };
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM (SELECT DISTINCT {} AS k FROM {} OFFSET 0) d WHERE {bucket} = ANY ({}))",
            plain(&table.key),
            table.quoted(),
            array(moving)
        );
        if target.value(&sql).await? {
            return Err(refused(format!(
                "{} has rows of buckets in {} that are not its own: look at them and take them away",
                target.name, table.name
            )));
        }
    }
    Ok(())
}

/// The server has to hash as we do.
pub(super) async fn hashes(link: &mut Link, tables: &[Table], buckets: &Bucketed) -> Result<()> {
    let mut types: Vec<_> = tables.iter().map(|table| table.key_type).collect();
    types.sort_unstable();
    types.dedup();
    for key_type in types {
        let Some(bucket) = hash::bucket(buckets, key_type, "k") else { continue };
        let (keys, ours): (Vec<String>, Vec<u32>) =
            hash::samples(buckets, key_type).into_iter().unzip();
        let values: Vec<String> =
            keys.iter().enumerate().map(|(at, key)| format!("({at}, {key})")).collect();
        let sql = format!(
            "SELECT ({bucket})::bigint FROM (VALUES {}) AS sample (at, k) ORDER BY at",
            values.join(", ")
        );
        let theirs: Vec<i64> = link.rows(&sql).await?;
        if !theirs.iter().copied().eq(ours.iter().copied().map(i64::from)) {
            return Err(refused(format!(
                "the server of {} hashes keys of type {key_type} otherwise than this program does",
                link.name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation() -> Relation {
        Relation {
            relation: "r".into(),
            secured: false,
            rules: false,
            persistence: "p".into(),
            inherits: false,
            triggers: None,
            columns: "k text".into(),
            rules_of: "PRIMARY KEY (k)".into(),
            indexed: true,
        }
    }

    #[test]
    fn what_cannot_be_moved_is_refused_by_name() {
        let plain = relation();
        let why = |other: &Relation| fit("agents", &plain, other, "a", "b").unwrap_err();
        assert_eq!(fit("agents", &plain, &plain, "a", "b"), Ok(()));
        assert!(
            why(&Relation { relation: "p".into(), ..relation() }).contains("on b is partitioned")
        );
        assert!(why(&Relation { relation: "v".into(), ..relation() }).contains("no table"));
        assert!(why(&Relation { inherits: true, ..relation() }).contains("inherit"));
        assert!(why(&Relation { persistence: "u".into(), ..relation() }).contains("unlogged"));
        assert!(why(&Relation { rules: true, ..relation() }).contains("rules"));
        assert!(why(&Relation { secured: true, ..relation() }).contains("row-level security"));
        assert!(why(&Relation { triggers: Some("audit".into()), ..relation() }).contains("audit"));
        assert!(
            why(&Relation { columns: "k text, n".into(), ..relation() }).contains("other columns")
        );
        assert!(why(&Relation { rules_of: String::new(), ..relation() }).contains("constraints"));
    }
}
