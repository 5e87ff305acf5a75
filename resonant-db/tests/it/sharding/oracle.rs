//! The oracle: seeded statements on three shards and on one unsharded database must agree, or be refused.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use resonant_db::{Database, ErrorKind, Param, params};

use super::{SCHEMA, cluster};

const STATEMENTS: usize = 2_000;
const ORGS: i64 = 12;

struct Made {
    sql: String,
    keys: Vec<String>,
}

/// A random statement, sound or not, with its keys as parameters.
fn statement(chance: &mut StdRng) -> Made {
    let mut keys = Vec::new();
    let condition = condition(chance, "a", &mut keys, 2);
    let columns = [
        "a.org_id, a.id",
        "a.name, a.score",
        "count(*)",
        "max(a.score)",
        "a.org_id, count(*)",
        "DISTINCT a.name",
    ];
    let columns = columns[chance.random_range(0..columns.len())];
    let join = match chance.random_range(0..6) {
        0 => " JOIN tasks t ON t.org_id = a.org_id",
        1 => " LEFT JOIN tasks t ON t.org_id = a.org_id AND t.agent_id = a.id",
        2 => " JOIN tasks t ON t.agent_id = a.id",
        3 => " JOIN countries c ON c.code = a.name",
        _ => "",
    };
    let group = if columns == "a.org_id, count(*)" { " GROUP BY a.org_id" } else { "" };
    let mut sql = format!("SELECT {columns} FROM agents a{join} WHERE {condition}{group}");
    if chance.random_bool(0.1) {
        let mut more = Vec::new();
        let other = self::condition(chance, "b", &mut keys, 1);
        more.append(&mut keys);
        sql = format!("{sql} UNION ALL SELECT b.org_id, b.id FROM agents b WHERE {other}");
        keys = more;
    }
    if chance.random_bool(0.1) {
        let inner = self::condition(chance, "x", &mut keys, 1);
        sql = format!(
            "SELECT a.name FROM agents a WHERE EXISTS (SELECT 1 FROM tasks x WHERE x.agent_id = a.id AND {inner})"
        );
    }
    Made { sql, keys }
}

fn condition(chance: &mut StdRng, table: &str, keys: &mut Vec<String>, depth: u32) -> String {
    let key = |chance: &mut StdRng, keys: &mut Vec<String>| {
        keys.push(format!("org_{}", chance.random_range(0..ORGS)));
        format!("${}", keys.len())
    };
    match chance.random_range(0..if depth == 0 { 5 } else { 9 }) {
        0..=2 => format!("{table}.org_id = {}", key(chance, keys)),
        3 => {
            let list: Vec<_> = (0..chance.random_range(1..4)).map(|_| key(chance, keys)).collect();
            format!("{table}.org_id IN ({})", list.join(", "))
        }
        4 => format!("{table}.org_id = 'org_{}'", chance.random_range(0..ORGS)),
        5 | 6 => {
            let left = condition(chance, table, keys, depth - 1);
            format!("({left}) AND ({})", condition(chance, table, keys, depth - 1))
        }
        7 => {
            let left = condition(chance, table, keys, depth - 1);
            format!("({left}) OR ({})", condition(chance, table, keys, depth - 1))
        }
        _ => format!("NOT ({})", condition(chance, table, keys, depth - 1)),
    }
}

fn shown(rows: &resonant_db::Rows) -> Vec<String> {
    let width = rows.columns().len();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            (0..width)
                .map(|at| value(&row.value(at).expect("a value")))
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    lines.sort();
    lines
}

fn value(value: &resonant_db::ValueRef<'_>) -> String {
    match value {
        resonant_db::ValueRef::Null => "null".into(),
        resonant_db::ValueRef::Int(number) => number.to_string(),
        resonant_db::ValueRef::Text(text) => (*text).to_owned(),
        _ => "other".into(),
    }
}

#[tokio::test]
async fn routed_statements_answer_as_one_database_would() {
    let cluster = cluster(3).await;
    let single =
        Database::connect(format!("sqlite:{}", cluster.folder.path().join("single.db").display()))
            .await;
    let single = single.expect("a database");
    single.write().batch(SCHEMA).await.expect("the schema");
    for n in 0..ORGS {
        let org = format!("org_{n}");
        for id in 0..4_i64 {
            let sql = "INSERT INTO agents (org_id, id, name, score) VALUES ($1, $2, $3, $4)";
            let name = ["pl", "ke", "xx"][(id % 3) as usize];
            cluster.db.execute(sql, params![org, id, name, n * id]).await.expect("stored");
            single.write().execute(sql, params![org, id, name, n * id]).await.expect("stored");
            let sql = "INSERT INTO tasks (org_id, agent_id, goal) VALUES ($1, $2, $3)";
            cluster.db.execute(sql, params![org, id / 2, name]).await.expect("stored");
            single.write().execute(sql, params![org, id / 2, name]).await.expect("stored");
        }
    }
    let mut chance = StdRng::seed_from_u64(20_011);
    let (mut answered, mut refused) = (0, 0);
    for at in 0..STATEMENTS {
        let made = statement(&mut chance);
        let keys: Vec<Param<'_>> = made.keys.iter().map(|key| Param::Text(key)).collect();
        match cluster.db.query(&made.sql, &keys).await {
            Ok(rows) => {
                let expected = single.read().query(&made.sql, &keys).await;
                let expected = expected.unwrap_or_else(|error| panic!("{}: {error}", made.sql));
                assert_eq!(
                    shown(&rows),
                    shown(&expected),
                    "statement {at}: {} {:?}",
                    made.sql,
                    made.keys
                );
                answered += 1;
            }
            Err(error) if error.kind() == ErrorKind::Refused => refused += 1,
            // What the engine itself refuses (a UNION of unlike widths), the single database refuses as well.
            Err(error) => {
                let single = single.read().query(&made.sql, &keys).await;
                assert!(single.is_err(), "{}: {error}", made.sql);
            }
        }
    }
    assert!(
        answered > STATEMENTS / 4,
        "{answered} answered, {refused} refused: the router refuses nearly everything"
    );
    assert!(
        refused > STATEMENTS / 10,
        "{answered} answered, {refused} refused: the statements are too tame"
    );
}
