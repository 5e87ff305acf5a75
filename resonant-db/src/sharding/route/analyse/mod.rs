//! The proof that a statement touches only the shards it is sent to.
//!
//! # What is proven
//!
//! A statement sent to one shard answers as on one undivided database if every occurrence of a sharded table in it can
//! be replaced by its rows on that shard without changing the answer. An occurrence can, when a condition that every
//! surviving row fulfils binds its key to a value (or a list of values) of that shard:
//!
//! - `key = $1`, `key IN ($1, $2)`, `key = ANY($1)`, `key = ANY(ARRAY[…])`, or an OR of such, standing alone or in a chain of ANDs;
//! - or `key = other.key`, where the other occurrence is bound already.
//!
//! Conditions in WHERE and in the ON of inner joins hold for all rows of the joined tables. A condition in the ON of an
//! outer join holds only on the side that may be missing: it binds that side and never the preserved one. Conditions in
//! the select list, in CASE, FILTER, HAVING, ORDER BY, under NOT, or in one branch of an OR bind nothing. Bindings flow
//! from an outer query into its subqueries, never out, except that the column of a subquery or CTE that *is* a bound key
//! may bind a table joined to it.
//!
//! An occurrence that is not bound refuses the statement; so does any syntax this module does not know, any table or
//! function not declared. Nothing is skipped: structs of the tree are taken apart field by field, so a new field of a new
//! parser stops the compiler.

mod bind;
mod entries;
mod expr;
mod finish;
mod from;
mod merging;
mod scope;
mod select;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use sqlparser::ast::{Ident, Query, Statement};

use self::merging::Merging;
use self::scope::{Binding, Scope};
use super::program::{Access, KeySource, KeyUse, Merge, Program, Split};
use super::rows::RowSplit;
use crate::sharding::key::KeyType;
use crate::sharding::refusal::{Checked, refuse};
use crate::sharding::schema::Schema;
use crate::sharding::sql::{Scan, TokenKind};

/// What is to be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// All rows come from the shards of named keys.
    Keys,
    /// Each row comes from one shard, so the answers of all shards can be put one after the other.
    Everywhere,
}

/// How deep subqueries and expressions may nest, counted by this module.
const MAX_DEPTH: usize = 5000;

/// Analyses one parsed statement.
pub(super) fn analyse(
    statement: &Statement,
    sql: &str,
    scan: &Scan,
    schema: &Schema,
    goal: Goal,
) -> Checked<Program> {
    let mut analyser = Analyser::new(schema, goal);
    match statement {
        Statement::Query(query) => {
            let top = Env { scope: None, top: true };
            analyser.merging = Merging::of(query);
            analyser.query(query, top)?;
        }
        Statement::Insert(insert) => {
            analyser.access = Access::Write;
            analyser.insert(insert)?;
        }
        Statement::Update(update) => {
            analyser.access = Access::Write;
            analyser.update(update)?;
        }
        Statement::Delete(delete) => {
            analyser.access = Access::Write;
            analyser.delete(delete)?;
        }
        _ => {
            return refuse(
                "only SELECT, INSERT, UPDATE and DELETE are routed",
                "run schema changes with on_all, and anything else on a shard by name",
            );
        }
    }
    let query = match statement {
        Statement::Query(query) => Some(&**query),
        _ => None,
    };
    analyser.program(sql, scan, query)
}

/// Where an expression or a subquery stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Env<'p> {
    scope: Option<&'p Scope<'p>>,
    /// Whether this is the outermost query itself.
    top: bool,
}

impl<'p> Env<'p> {
    const OUTSIDE: Env<'static> = Env { scope: None, top: false };

    fn inside(scope: &'p Scope<'p>) -> Self {
        Self { scope: Some(scope), top: false }
    }
}

/// A set of key values some occurrence is bound to.
#[derive(Debug)]
struct Root {
    key_type: KeyType,
    label: Arc<str>,
    values: Values,
    /// Bound in the outermost query, on a side no outer join can miss.
    splits: bool,
}

#[derive(Debug)]
enum Values {
    These(Vec<KeySource>),
    /// Any value: the occurrence is read on every shard.
    All,
}

#[derive(Debug)]
pub(super) struct Analyser<'s> {
    schema: &'s Schema,
    goal: Goal,
    access: Access,
    roots: Vec<Root>,
    /// The CTEs in sight, innermost last.
    ctes: Vec<(String, Cte)>,
    /// The keys of VALUES rows, one each, where the statement is an INSERT of such.
    rows: Vec<KeyUse>,
    /// Whether the answers of several shards make one.
    merging: Merging,
    locks: bool,
    depth: usize,
}

#[derive(Debug, Clone)]
enum Cte {
    /// Defined later in the same WITH: engines differ on whether it is in sight.
    Later,
    Known(Vec<(String, Binding)>),
}

impl<'s> Analyser<'s> {
    fn new(schema: &'s Schema, goal: Goal) -> Self {
        Self {
            schema,
            goal,
            access: Access::Read,
            roots: Vec::new(),
            ctes: Vec::new(),
            rows: Vec::new(),
            merging: Merging::default(),
            locks: false,
            depth: 0,
        }
    }

    /// Runs one level deeper.
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Checked<T>) -> Checked<T> {
        if self.depth >= MAX_DEPTH {
            return refuse("the statement nests too deeply", "split it");
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    fn root(&mut self, root: Root) -> Binding {
        let key_type = root.key_type;
        self.roots.push(root);
        Binding { root: self.roots.len() - 1, key_type }
    }

    fn program(mut self, sql: &str, scan: &Scan, query: Option<&Query>) -> Checked<Program> {
        if self.locks {
            if self.roots.is_empty() {
                return refuse(
                    "the statement locks rows of no sharded table",
                    "lock them on a shard by name",
                );
            }
            self.access = Access::Write;
        }
        if self.goal == Goal::Everywhere {
            return self.everywhere(query);
        }
        let mut split = self.split(sql, scan, query.is_some());
        let mut merge = Merge::default();
        // One key is one shard: nothing will be merged.
        if let (Split::Keys { .. }, Some(query), [Root { values: Values::These(values), .. }]) =
            (&split, query, self.roots.as_slice())
            && (values.len() > 1 || matches!(values.as_slice(), [KeySource::Elements(_)]))
        {
            match std::mem::take(&mut self.merging).plan(query, self.schema.merge_rows()) {
                Ok(plan) => merge = plan,
                Err(_) => split = Split::No("the router cannot say what to ask each shard"),
            }
        }
        let mut keys: Vec<KeyUse> = Vec::new();
        let mut add = |key: KeyUse| {
            // Lists are long and rarely repeat; the few keys of a join do.
            if keys.len() > 16 || !keys.contains(&key) {
                keys.push(key);
            }
        };
        for root in self.roots {
            if let Values::These(values) = root.values {
                for source in values {
                    add(KeyUse { key_type: root.key_type, source, label: root.label.clone() });
                }
            }
        }
        self.rows.into_iter().for_each(add);
        Ok(Program { access: self.access, keys: keys.into(), split, merge: Box::new(merge) })
    }

    /// Whether and how the statement can be cut into one per shard.
    fn split(&self, sql: &str, scan: &Scan, reads: bool) -> Split {
        if !self.rows.is_empty() {
            if !self.roots.is_empty() {
                return Split::No("its rows read other tables");
            }
            return match RowSplit::find(sql, scan, self.rows.clone()) {
                Some(rows) => Split::Rows(rows),
                None => Split::No("its rows could not be told apart"),
            };
        }
        // Of a write there is no answer to be made one: each shard changes its own rows.
        let obstacle =
            if reads { self.merging.obstacle() } else { self.merging.obstacle_to_writes() };
        if let Some(reason) = obstacle {
            return Split::No(reason);
        }
        let [root] = self.roots.as_slice() else {
            return Split::No("it names keys at several places");
        };
        let Values::These(values) = &root.values else {
            return Split::No("it names no key");
        };
        if !root.splits {
            return Split::No("the key is not named in the outermost query");
        }
        if self.locks {
            return Split::No("it locks rows");
        }
        let mut uses: HashMap<usize, usize> = HashMap::new();
        for token in &scan.tokens {
            if let TokenKind::Parameter(number) = token.kind {
                *uses.entry(number as usize - 1).or_default() += 1;
            }
        }
        let indices = values.iter().filter_map(|value| match value {
            KeySource::Param(index) | KeySource::Elements(index) => Some(*index),
            KeySource::Literal(_) => None,
        });
        let mut alone: Vec<usize> = indices.filter(|index| uses.get(index) == Some(&1)).collect();
        alone.sort_unstable();
        Split::Keys { alone: alone.into() }
    }

    fn everywhere(self, query: Option<&Query>) -> Checked<Program> {
        let rewrite = "merge in the program, or name the key";
        if self.access == Access::Write {
            return refuse(
                "a write to all shards is not one statement",
                "write by key, or use on_all",
            );
        }
        if let Some(reason) = self.merging.obstacle() {
            return refuse(
                format!("the answers of the shards cannot be made one because {reason}"),
                rewrite,
            );
        }
        match self.roots.as_slice() {
            [] => Ok(Program {
                access: self.access,
                keys: Box::new([]),
                split: Split::No("it reads no sharded table"),
                merge: Box::default(),
            }),
            [Root { values: Values::All, .. }] => Ok(Program {
                access: self.access,
                keys: Box::new([]),
                split: Split::Everywhere,
                merge: match query {
                    Some(query) => Box::new(self.merging.plan(query, self.schema.merge_rows())?),
                    None => Box::default(),
                },
            }),
            [Root { values: Values::These(_), .. }, ..] => refuse(
                "the statement names its keys",
                "send it with query: it need not ask every shard",
            ),
            _ => refuse("the tables are not all joined on their keys", rewrite),
        }
    }
}

/// A name as the engines fold it: unquoted ones in lower case.
fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

/// The folded name of a table or an alias, refused where engines differ on what it equals.
fn plain_name(ident: &Ident) -> Checked<String> {
    let name = folded(ident);
    if name.len() > 63 {
        return refuse("a name has more than 63 bytes, and servers cut it", "shorten it");
    }
    if ident.quote_style.is_some() && name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return refuse(
            "a quoted name of a table or an alias has capitals, and engines differ on what it equals",
            "write it in lower case",
        );
    }
    Ok(name)
}
