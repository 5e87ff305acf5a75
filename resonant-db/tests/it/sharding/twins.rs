//! Three shards and one database side by side: whatever is sent to both has to agree.

use std::any::Any;

use resonant_db::{Database, ErrorKind, Param, Rows, ShardedDatabase, ValueRef, params};

use super::{Cluster, SCHEMA, cluster};

pub(crate) const ORGS: i64 = 12;

/// Three shards and one database that hold the same rows.
pub(crate) struct Twins {
    pub(crate) db: ShardedDatabase,
    pub(crate) single: Database,
    pub(crate) engine: Engine,
    /// What goes when the twins go.
    _held: Box<dyn Any + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Refused,
    /// The engine itself refused it, on both.
    Rejected,
}

/// How a statement is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Query,
    QueryAll,
    Execute,
    ExecuteSplit,
}

impl Twins {
    pub(crate) async fn sqlite() -> Self {
        let Cluster { folder, db } = cluster(3).await;
        let url = format!("sqlite:{}", folder.path().join("single.db").display());
        let single = Database::connect(url).await.expect("a database");
        single.write().batch(SCHEMA).await.expect("the schema");
        Self::filled(Engine::Sqlite, db, single, Box::new(folder)).await
    }

    /// Twins with the schema and the rows that all statements are about.
    pub(crate) async fn filled(
        engine: Engine,
        db: ShardedDatabase,
        single: Database,
        held: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let twins = Self { db, single, engine, _held: held };
        for n in 0..ORGS {
            let org = format!("org_{n}");
            for id in 0..4_i64 {
                let name = [Some("pl"), Some("ke"), None][(id % 3) as usize];
                let sql = "INSERT INTO agents (org_id, id, name, score) VALUES ($1, $2, $3, $4)";
                twins.agree(By::Execute, sql, params![org, id, name, n * id]).await;
                let sql = "INSERT INTO tasks (org_id, agent_id, goal) VALUES ($1, $2, $3)";
                twins.agree(By::Execute, sql, params![org, id / 2, name]).await;
            }
        }
        twins
    }

    /// Two keys of different shards.
    pub(crate) fn apart(&self) -> (String, String) {
        let home = |org: &str| self.db.shard_for(org).expect("a shard").to_owned();
        let first = "org_0".to_owned();
        let other = (1..ORGS).map(|n| format!("org_{n}")).find(|org| home(org) != home(&first));
        (first, other.expect("not all keys live on one shard"))
    }

    /// Sends a statement to both and panics when they disagree. A refused one is sent to neither.
    pub(crate) async fn agree(&self, by: By, sql: &str, params: &[Param<'_>]) -> Outcome {
        let db = &self.db;
        let sharded = match by {
            By::Query => db.query(sql, params).await.map(|rows| self.shown(sql, &rows)),
            By::QueryAll => db.query_all(sql, params).await.map(|rows| self.shown(sql, &rows)),
            By::Execute => db.execute(sql, params).await.map(counted),
            By::ExecuteSplit => db.execute_split(sql, params).await.map(counted),
        };
        if let Err(error) = &sharded
            && error.kind() == ErrorKind::Refused
        {
            let message = error.message();
            assert!(message.contains("; "), "no rewrite: {sql}: {message}");
            return Outcome::Refused;
        }
        let single = match by {
            By::Query | By::QueryAll => {
                self.single.write().query(sql, params).await.map(|rows| self.shown(sql, &rows))
            }
            By::Execute | By::ExecuteSplit => {
                self.single.write().execute(sql, params).await.map(counted)
            }
        };
        match (sharded, single) {
            (Ok(sharded), Ok(single)) => {
                assert_eq!(sharded, single, "{by:?} {sql} {params:?}");
                Outcome::Answered
            }
            (Err(sharded), Err(single)) if sharded.kind() == single.kind() => Outcome::Rejected,
            (sharded, single) => panic!("{by:?} {sql}: {sharded:?} but alone {single:?}"),
        }
    }

    /// Every row of both.
    pub(crate) async fn same_rows(&self) {
        for sql in [
            "SELECT org_id, id, name, score FROM agents",
            "SELECT org_id, agent_id, goal FROM tasks",
        ] {
            assert_eq!(self.agree(By::QueryAll, sql, params![]).await, Outcome::Answered);
        }
    }

    /// Rows as text, sorted where the statement has no order over all columns: their order is nobody's promise then.
    fn shown(&self, sql: &str, rows: &Rows) -> Vec<String> {
        let mut lines = lines(sql, rows.iter());
        // SQLite names a column without a name by the very text of the statement, and promises nothing of it.
        if self.engine == Engine::Postgres {
            lines.insert(0, names(rows.columns()));
        }
        lines
    }

    /// As they come, the rows are those of the answer as a whole.
    pub(crate) async fn streams_the_same(&self, sql: &str, params: &[Param<'_>]) {
        let whole = self.db.query_all(sql, params).await.expect("it was answered before");
        let mut stream = self.db.stream_all(sql, params).await.expect("opened");
        let mut rows = Vec::new();
        while let Some(row) = stream.next().await.unwrap_or_else(|error| panic!("{sql}: {error}")) {
            assert_eq!(names(row.columns()), names(whole.columns()), "{sql}");
            rows.push(row);
        }
        assert_eq!(lines(sql, rows), lines(sql, whole.iter()), "{sql}");
    }
}

fn names(columns: &[resonant_db::backend::Column]) -> String {
    columns.iter().map(resonant_db::backend::Column::name).collect::<Vec<_>>().join("|")
}

fn lines(sql: &str, rows: impl IntoIterator<Item = resonant_db::Row>) -> Vec<String> {
    let value = |value: ValueRef<'_>| match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Int(number) => number.to_string(),
        ValueRef::Float(number) => format!("{number:?}"),
        ValueRef::Decimal(digits) => digits.to_owned(),
        ValueRef::Text(text) => format!("{text:?}"),
        ValueRef::Bool(value) => value.to_string(),
        other => panic!("nobody compares {other:?}"),
    };
    let mut width = 0;
    let line = |row: resonant_db::Row| {
        width = row.columns().len();
        let values = (0..width).map(|at| value(row.value(at).expect("a value")));
        values.collect::<Vec<_>>().join("|")
    };
    let mut lines: Vec<String> = rows.into_iter().map(line).collect();
    let ordered = [" ORDER BY 1", " ORDER BY 2"].iter().any(|by| sql.contains(by));
    if !ordered || width > 2 {
        lines.sort();
    }
    lines
}

fn counted(rows: u64) -> Vec<String> {
    vec![rows.to_string()]
}
