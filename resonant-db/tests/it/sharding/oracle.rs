//! The oracle: seeded statements on three shards and on one database agree, or are refused.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use resonant_db::Param;

use super::twins::{By, Engine, ORGS, Outcome, Twins};

/// Makes statements, sound or not.
struct Maker {
    chance: StdRng,
    keys: Vec<String>,
    /// The key a statement is mostly about.
    home: i64,
    engine: Engine,
}

/// An entry of FROM: its alias, its table, a whole-number column and a text column.
#[derive(Clone, Copy)]
struct Entry {
    alias: &'static str,
    table: &'static str,
    int: &'static str,
    text: &'static str,
}

impl Entry {
    fn keyed(self) -> bool {
        self.table != "countries"
    }
}

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        self.chance.random_range(0..n)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn org(&mut self) -> i64 {
        if self.chance.random_bool(0.7) { self.home } else { self.chance.random_range(0..ORGS) }
    }

    /// A key, mostly as a parameter.
    fn key(&mut self) -> String {
        let key = format!("org_{}", self.org());
        match self.below(8) {
            0 => format!("'{key}'"),
            1 => format!("'{key}'::text"),
            2 => format!("({})", self.param(key)),
            _ => self.param(key),
        }
        .replace("::text", "")
    }

    /// A list of keys in one parameter: empty, with NULLs, with duplicates; sometimes used once more.
    fn any(&mut self, column: &str) -> String {
        let mut list = Vec::new();
        for _ in 0..self.below(5) {
            let key = format!("org_{}", self.org());
            list.push(match self.below(7) {
                0 => "NULL".to_owned(),
                1 => format!("\"{key}\""),
                _ => key,
            });
        }
        self.keys.push(format!("{{{}}}", list.join(",")));
        let param = format!("${}", self.keys.len());
        match self.below(8) {
            0 => format!("{column} = ANY({param}::text[])"),
            1 => format!("{column} = SOME(CAST({param} AS text[]))"),
            2 => format!("{column} = ANY({param}) AND cardinality({param}) > 1"),
            3 => format!("NOT {column} = ANY({param})"),
            4 => format!("({column} = ANY({param}) OR {column} = {})", self.key()),
            _ => format!("{column} = ANY({param})"),
        }
    }

    fn param(&mut self, key: String) -> String {
        if let Some(at) = self.keys.iter().position(|known| *known == key)
            && self.chance.random_bool(0.5)
        {
            return format!("${}", at + 1);
        }
        self.keys.push(key);
        format!("${}", self.keys.len())
    }

    fn entry(&mut self, alias: &'static str) -> Entry {
        let (table, int, text) = match self.below(7) {
            0..=3 => ("agents", "id", "name"),
            4 | 5 => ("tasks", "agent_id", "goal"),
            _ => ("countries", "code", "code"),
        };
        Entry { alias, table, int, text }
    }

    fn int(&mut self, of: Entry) -> String {
        if of.keyed() {
            format!("{}.{}", of.alias, of.int)
        } else {
            format!("length({}.{})", of.alias, of.int)
        }
    }

    /// FROM with up to three entries.
    fn from(&mut self, aliases: [&'static str; 3]) -> (String, Vec<Entry>) {
        let first = self.entry(aliases[0]);
        let mut sql = format!("{} {}", first.table, first.alias);
        let mut entries = vec![first];
        let joins = self.one(&[0, 0, 0, 1, 1, 2]);
        for alias in aliases.into_iter().skip(1).take(joins) {
            let next = self.entry(alias);
            let other = self.one(&entries);
            let kind = self.one(&[
                "JOIN",
                "JOIN",
                "LEFT JOIN",
                "LEFT JOIN",
                "RIGHT JOIN",
                "FULL JOIN",
                ",",
            ]);
            if kind == "," {
                sql = format!("{sql}, {} {alias}", next.table);
                entries.push(next);
                continue;
            }
            let both = entries.iter().all(|entry| entry.keyed()) && next.keyed();
            if both && joins == 1 && self.chance.random_bool(0.2) {
                sql = format!("{sql} {kind} {} {alias} USING (org_id)", next.table);
                entries.push(next);
                continue;
            }
            let mut on = match (other.keyed() && next.keyed(), self.below(6)) {
                (true, 0..=3) => format!("{alias}.org_id = {}.org_id", other.alias),
                (_, 4) => format!("{} = {}", self.int(next), self.int(other)),
                _ => format!("{alias}.{} = {}.{}", next.text, other.alias, other.text),
            };
            if self.chance.random_bool(0.3) {
                entries.push(next);
                let more = self.condition(&entries.clone(), 1);
                entries.pop();
                on = format!("{on} AND {more}");
            }
            sql = format!("{sql} {kind} {} {alias} ON {on}", next.table);
            entries.push(next);
        }
        (sql, entries)
    }

    fn condition(&mut self, entries: &[Entry], depth: usize) -> String {
        let entry = self.one(entries);
        let column = if entry.keyed() {
            format!("{}.org_id", entry.alias)
        } else {
            format!("{}.code", entry.alias)
        };
        if self.engine == Engine::Postgres && self.chance.random_bool(0.12) {
            return self.any(&column);
        }
        match self.below(if depth == 0 { 13 } else { 21 }) {
            0..=3 => format!("{column} = {}", self.key()),
            4 => format!("{} = {column}", self.key()),
            5 => {
                let list: Vec<_> = (0..=self.below(3)).map(|_| self.key()).collect();
                format!("{column} IN ({})", list.join(", "))
            }
            6 => format!("{} > {}", self.int(entry), self.below(4)),
            7 => format!("{}.{} IS NULL", entry.alias, entry.text),
            8 => {
                let other = self.one(entries);
                let other = if other.keyed() { "org_id" } else { "code" };
                format!("{column} = {}.{other}", self.one(entries).alias).replace(".code.", ".")
            }
            9 => format!("{column} BETWEEN {} AND {}", self.key(), self.key()),
            10 => format!("({column}, {}) = ({}, 1)", self.int(entry), self.key()),
            11 => format!("{column} IS NOT DISTINCT FROM {}", self.key()),
            12 => {
                let odd = self.one(&[
                    "coalesce(K, 'x') = V",
                    "K || '' = V",
                    "K <> V",
                    "K LIKE V",
                    "CASE WHEN K = V THEN 1 ELSE 0 END = 1",
                    "K = V COLLATE C",
                ]);
                let collation = if self.engine == Engine::Sqlite { "NOCASE" } else { "\"C\"" };
                let odd = odd.replace("COLLATE C", &format!("COLLATE {collation}"));
                let key = self.key();
                odd.replace('K', &column).replace('V', &key)
            }
            13 => format!("NOT ({})", self.condition(entries, depth - 1)),
            14 | 15 => {
                let left = self.condition(entries, depth - 1);
                format!("({left} OR {})", self.condition(entries, depth - 1))
            }
            16 => {
                let inner = self.entry("x");
                let mut within = entries.to_vec();
                within.push(inner);
                let condition = self.condition(&within, depth - 1);
                let linked = if inner.keyed() && entry.keyed() && self.chance.random_bool(0.5) {
                    format!("x.org_id = {column} AND ")
                } else {
                    String::new()
                };
                let not = self.one(&["", "NOT "]);
                format!("{not}EXISTS (SELECT 1 FROM {} x WHERE {linked}{condition})", inner.table)
            }
            17 => {
                let inner = self.entry("y");
                let condition = self.condition(&[inner], depth - 1);
                let not = self.one(&["", "NOT "]);
                format!(
                    "{}.{} {not}IN (SELECT y.{} FROM {} y WHERE {condition})",
                    entry.alias, entry.text, inner.text, inner.table
                )
            }
            _ => {
                let left = self.condition(entries, depth - 1);
                format!("{left} AND {}", self.condition(entries, depth - 1))
            }
        }
    }

    /// A SELECT of two columns.
    fn select(&mut self, aliases: [&'static str; 3]) -> String {
        let (from, entries) = self.from(aliases);
        let condition = self.condition(&entries, 2);
        let (one, two) = (self.one(&entries), self.one(&entries));
        let (int, text) = (self.int(one), format!("{}.{}", two.alias, two.text));
        let body = format!("FROM {from} WHERE {condition}");
        match self.below(17) {
            14 => format!(
                "SELECT {text}, count(*), sum({int}), avg({int}), min({int}) {body} GROUP BY {text}"
            ),
            15 => format!("SELECT avg({int}), count({text}), max({text}) {body}"),
            16 => {
                let by = self.one(&["1, 2", "2 DESC, 1", "2, 1 DESC NULLS LAST"]);
                let window = self.one(&["", " LIMIT 2", " LIMIT 3 OFFSET 1"]);
                format!("SELECT {text}, count(*) {body} GROUP BY 1 ORDER BY {by}{window}")
            }
            0 => format!("SELECT count(*), max({int}) {body}"),
            1 => format!("SELECT {text}, count(*) {body} GROUP BY {text}"),
            2 => format!("SELECT {text}, sum({int}) {body} GROUP BY {text} HAVING count(*) > 1"),
            3 => format!("SELECT DISTINCT {text}, {int} {body}"),
            4 => format!("SELECT count(*) FILTER (WHERE {int} > 1), min({text}) {body}"),
            5 => format!("SELECT {int}, rank() OVER (PARTITION BY {text} ORDER BY {int}) {body}"),
            6 => {
                let what = self.one(&["", "", "DISTINCT "]);
                let column = if one.keyed() && what.is_empty() && self.chance.random_bool(0.4) {
                    format!("{}.org_id AS k", one.alias)
                } else {
                    int
                };
                let by = self.one(&[
                    "1, 2",
                    "1 DESC, 2",
                    "1, 2 NULLS FIRST",
                    "1 DESC NULLS LAST, 2 DESC",
                    "2 DESC NULLS FIRST, 1",
                ]);
                let window = match self.below(4) {
                    0 => String::new(),
                    1 => format!(" LIMIT {} OFFSET {}", self.below(6), self.below(5)),
                    2 if self.engine == Engine::Postgres => format!(" OFFSET {}", self.below(5)),
                    _ => format!(" LIMIT {}", self.below(8)),
                };
                format!("SELECT {what}{column}, {text} {body} ORDER BY {by}{window}")
            }
            7 => {
                let inner = self.entry("z");
                let condition = self.condition(&[inner, one], 1);
                let what =
                    self.one(&["count(*)", "max(ONE)", "count(z.TEXT)", "count(ONE) + count(*)"]);
                let what = what.replace("ONE", &int).replace("TEXT", inner.text);
                format!(
                    "SELECT {int}, (SELECT {what} FROM {} z WHERE {condition}) {body}",
                    inner.table
                )
            }
            8 | 9 if one.keyed() => {
                let key = format!("{}.org_id", one.alias);
                match self.below(6) {
                    0 => format!("SELECT {key}, count(*) {body} GROUP BY {key}"),
                    1 => format!(
                        "SELECT sum({int}), {text} {body} GROUP BY {text}, {key} HAVING count(*) > 1"
                    ),
                    2 => format!("SELECT DISTINCT {key}, {text} {body}"),
                    3 => format!(
                        "SELECT {int}, rank() OVER (PARTITION BY {key} ORDER BY {int}) {body}"
                    ),
                    4 => format!("SELECT count({text}), sum({int}) {body}"),
                    _ => format!("SELECT {key}, {text} {body}"),
                }
            }
            _ => format!("SELECT {int}, {text} {body}"),
        }
    }

    fn read(&mut self) -> String {
        match self.below(12) {
            0 => {
                let op = self.one(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
                let left = self.select(["a", "b", "c"]);
                let right = self.select(["d", "e", "f"]);
                if left.contains(" ORDER BY 1") || left.contains(" ORDER BY 2") {
                    left
                } else {
                    format!("{left} {op} {right}")
                        .split(" ORDER BY 1")
                        .flat_map(|part| part.split(" ORDER BY 2"))
                        .next()
                        .unwrap_or_default()
                        .to_owned()
                }
            }
            1 | 2 => {
                let inner = self.entry("i");
                let key = if inner.keyed() { "i.org_id" } else { "i.code" };
                let condition = self.condition(&[inner], 1);
                let inner = format!(
                    "SELECT {key} AS org_id, i.{} AS t FROM {} i WHERE {condition}",
                    inner.text, inner.table
                );
                let outer = self.entry("o");
                let outer = if outer.keyed() {
                    outer
                } else {
                    Entry { alias: "o", table: "tasks", int: "agent_id", text: "goal" }
                };
                let on =
                    self.one(&["o.org_id = w.org_id", "o.org_id = w.org_id", "o.org_id = w.t"]);
                let kind = self.one(&["JOIN", "LEFT JOIN"]);
                let condition = self.condition(&[outer], 1);
                let (wide, int) = (self.chance.random_bool(0.5), outer.int);
                let tail = if wide { format!(" WHERE {condition}") } else { String::new() };
                if self.chance.random_bool(0.5) {
                    format!(
                        "WITH w AS ({inner}) SELECT w.t, o.{int} FROM w {kind} {} o ON {on}{tail}",
                        outer.table
                    )
                } else {
                    format!(
                        "SELECT w.t, o.{int} FROM ({inner}) w {kind} {} o ON {on}{tail}",
                        outer.table
                    )
                }
            }
            _ => self.select(["a", "b", "c"]),
        }
    }

    fn write(&mut self, at: usize) -> String {
        let table = Entry { alias: "agents", table: "agents", int: "id", text: "name" };
        let condition = self.condition(&[table], 2);
        match self.below(8) {
            0 | 1 => {
                let rows: Vec<_> = (0..=self.below(3))
                    .map(|row| format!("({}, {}, {row})", self.key(), 100 + at * 4 + row))
                    .collect();
                let conflict = self.one(&[
                    "",
                    " ON CONFLICT (org_id, id) DO UPDATE SET score = excluded.score",
                    " ON CONFLICT DO NOTHING",
                ]);
                format!(
                    "INSERT INTO agents (org_id, id, score) VALUES {}{conflict}",
                    rows.join(", ")
                )
            }
            2 => {
                let source = self.one(&["a.org_id", "a.org_id", "a.name"]);
                let source =
                    if self.chance.random_bool(0.2) { self.key() } else { source.to_owned() };
                let (from, entries) = self.from(["a", "b", "c"]);
                let condition = self.condition(&entries, 1);
                format!("INSERT INTO tasks (org_id, agent_id, goal) SELECT {source}, 7, 'made' FROM {from} WHERE {condition} LIMIT 3")
                    .replace(" LIMIT 3", if entries.len() > 1 { " AND 1 = 0" } else { "" })
            }
            3 | 4 => {
                let value = self.one(&[
                    "score + 1",
                    "(SELECT count(*) FROM tasks t WHERE t.org_id = agents.org_id)",
                    "(SELECT max(t.agent_id) FROM tasks t)",
                ]);
                format!("UPDATE agents SET score = {value} WHERE {condition}")
            }
            5 => format!("UPDATE agents SET name = 'x', org_id = org_id WHERE {condition}"),
            6 => format!("DELETE FROM agents WHERE id > 90 AND {condition}"),
            _ => {
                let table = Entry { alias: "tasks", table: "tasks", int: "agent_id", text: "goal" };
                let condition = self.condition(&[table], 1);
                format!("DELETE FROM tasks WHERE agent_id = 7 AND {condition}")
            }
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    refused: usize,
    rejected: usize,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered => self.answered += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Rejected => self.rejected += 1,
        }
    }
}

fn maker(seed: u64, engine: Engine) -> Maker {
    Maker { chance: StdRng::seed_from_u64(seed), keys: Vec::new(), home: 0, engine }
}

/// Reads by key and of all shards, as many of each.
pub(crate) async fn reads(twins: &Twins, seed: u64, count: usize) {
    let mut maker = maker(seed, twins.engine);
    let (mut routed, mut everywhere) = (Tally::default(), Tally::default());
    for at in 0..count {
        maker.keys.clear();
        maker.home = maker.chance.random_range(0..ORGS);
        let sql = maker.read();
        let keys: Vec<Param<'_>> = maker.keys.iter().map(|key| Param::Text(key)).collect();
        routed.add(twins.agree(By::Query, &sql, &keys).await);
        let outcome = twins.agree(By::QueryAll, &sql, &keys).await;
        everywhere.add(outcome);
        // SQLite answers as a whole only.
        if outcome == Outcome::Answered && twins.engine == Engine::Postgres && at % 4 == 0 {
            twins.streams_the_same(&sql, &keys).await;
        }
    }
    assert!(routed.answered > count / 5 && routed.refused > count / 5, "{routed:?}");
    assert!(routed.rejected < count / 5, "mostly nonsense: {routed:?}");
    assert!(everywhere.answered > count / 50, "{everywhere:?}");
}

pub(crate) async fn writes(twins: &Twins, seed: u64, count: usize) {
    let mut maker = maker(seed, twins.engine);
    let mut tally = Tally::default();
    for at in 0..count {
        maker.keys.clear();
        maker.home = maker.chance.random_range(0..ORGS);
        let sql = maker.write(at);
        let keys: Vec<Param<'_>> = maker.keys.iter().map(|key| Param::Text(key)).collect();
        // A failed split write is not undone elsewhere, so only what cannot fail is split.
        let by = if sql.starts_with("INSERT") { By::Execute } else { By::ExecuteSplit };
        tally.add(twins.agree(by, &sql, &keys).await);
        if at % 100 == 99 {
            twins.same_rows().await;
        }
    }
    twins.same_rows().await;
    assert!(tally.answered > count / 5 && tally.refused > count / 10, "{tally:?}");
}

#[tokio::test]
async fn reads_answer_as_one_database_would() {
    reads(&Twins::sqlite().await, 20_011, 10_000).await;
}

#[tokio::test]
async fn writes_leave_the_rows_of_one_database() {
    writes(&Twins::sqlite().await, 4_711, 1_500).await;
}
