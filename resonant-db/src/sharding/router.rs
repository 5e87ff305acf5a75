//! The router: declared tables, a shard function and a cache of compiled routes. It needs no database.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use resonant_common::telemetry::Counter;

use super::function::{BUCKETS, Bucketed, Leaving, Numbered, ShardBy};
use super::key::{KeyType, ShardKey};
use super::refusal::{Checked, Refusal, refuse};
use super::route::{
    Access, Compiled, Cut, Goal, KeySource, Merge, Program, RouteCache, RowSplit, Split, Target,
    compile, place,
};
use super::schema::{Engine, Schema};
use crate::{Error, ErrorKind, Param, Result, ToParam};

/// What part of the cache is for statements that read all shards.
const EVERYWHERE_SHARE: usize = 4;

/// Decides which shards a statement goes to, and proves it; needs no connection.
///
/// Get one from [`ShardedDatabaseBuilder::router`](super::ShardedDatabaseBuilder::router) to check the statements of a
/// program in its own tests.
pub struct ShardRouter {
    schema: Arc<Schema>,
    function: Arc<dyn ShardBy>,
    names: Box<[String]>,
    engine: Engine,
    /// The one type of all keys, where there is one.
    key_types: Box<[KeyType]>,
    cache: RouteCache,
    /// Of those that read all shards.
    everywhere: RouteCache,
    /// Counts what is compiled.
    compilations: Option<Counter>,
    /// The buckets, where they may change their owners.
    moving: Option<Leaving>,
}

/// What a statement needs, before its parameters are known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutePlan {
    /// Whether it reads or writes.
    pub access: Access,
    /// The keys the proof rests on, such as `agents.org_id = $1`; a literal shows as `…`. Empty: any shard will do.
    pub keys: Vec<String>,
    /// Why keys on several shards would refuse it; `None` when it is then split.
    pub one_shard_because: Option<&'static str>,
}

/// Where a statement goes with given parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteExplanation {
    /// How it is routed.
    pub kind: RouteKind,
    /// The names of the shards it goes to, in the order of declaration.
    pub shards: Vec<String>,
    /// What the proof rests on.
    pub plan: RoutePlan,
    /// How the answers of several shards are made one, where they are.
    pub merge: Option<&'static str>,
}

/// Where a statement goes, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route<'r> {
    /// It reads no sharded table: any shard answers the same.
    Any,
    /// The shard of this name holds all it touches.
    Shard(&'r str),
    /// Its keys live on several shards: [`explain_route`](ShardRouter::explain_route) says whether it can be split.
    Several,
}

/// How a statement is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RouteKind {
    /// It reads no sharded table: any shard answers the same.
    Any,
    /// One shard holds all it touches.
    Single,
    /// Cut into one statement for each shard.
    Split,
    /// Sent to every shard, by explicit request only.
    Every,
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteKind::Any => "any",
            RouteKind::Single => "single",
            RouteKind::Split => "split",
            RouteKind::Every => "every",
        })
    }
}

impl fmt::Display for RouteExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match self.kind {
            RouteKind::Any => "any one shard".to_owned(),
            RouteKind::Single => self.shards.join(", "),
            RouteKind::Split => format!("split over {}", self.shards.join(", ")),
            RouteKind::Every => format!("every shard ({})", self.shards.join(", ")),
        };
        let what = match self.plan.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        match self.kind {
            RouteKind::Every => write!(f, "{what} on {to}: no key is named")?,
            _ if self.plan.keys.is_empty() => {
                write!(f, "{what} on {to}: no sharded table is read")?;
            }
            _ => write!(f, "{what} on {to}: {}", self.plan.keys.join(" and "))?,
        }
        match self.merge {
            Some(how) => write!(f, "; {how}"),
            None => Ok(()),
        }
    }
}

impl ShardRouter {
    pub(crate) fn new(
        schema: Schema,
        function: Arc<dyn ShardBy>,
        names: Vec<String>,
        engine: Engine,
        cache_bytes: usize,
    ) -> Result<Self> {
        let key_types = schema.key_types();
        for key_type in &key_types {
            if !function.accepts(*key_type) {
                let message = format!(
                    "the shard function {} takes no keys of type {key_type}",
                    function.name()
                );
                return Err(Error::new(ErrorKind::Config, "connect", message));
            }
        }
        Ok(Self {
            schema: Arc::new(schema),
            function,
            names: names.into(),
            engine,
            key_types: key_types.into(),
            cache: RouteCache::new(cache_bytes - cache_bytes / EVERYWHERE_SHARE),
            everywhere: RouteCache::new(cache_bytes / EVERYWHERE_SHARE),
            compilations: None,
            moving: None,
        })
    }

    /// The same, with a counter of what is compiled.
    pub(super) fn counting(self, compilations: Counter) -> Self {
        Self { compilations: Some(compilations), ..self }
    }

    /// The same, with buckets that may change their owners.
    pub(super) fn moving(self, buckets: Arc<Bucketed>) -> Self {
        Self { moving: Some(Leaving(buckets)), ..self }
    }

    /// Whether a statement touches a bucket that is about to change its owner.
    pub(super) fn touches_leaving(&self, program: &Program, params: &[Param<'_>]) -> bool {
        let Some(leaving) = &self.moving else { return false };
        let target = program.target(leaving, 2, params);
        !matches!(target, Ok(Target::Any | Target::One(0)))
    }

    /// Adds the buckets that a statement touches, where buckets may change their owners.
    pub(super) fn touched(
        &self,
        program: &Program,
        params: &[Param<'_>],
        buckets: &mut BTreeSet<u32>,
    ) {
        let Some(Leaving(bucketed)) = &self.moving else { return };
        let numbers = Numbered(Arc::clone(bucketed));
        for key in &program.keys {
            // Keys that are none have been refused by whoever routed it.
            let _ = key.each(&numbers, BUCKETS, params, &mut |bucket, _| {
                buckets.insert(bucket);
            });
        }
    }

    fn compile(&self, sql: &str, goal: Goal) -> Arc<Compiled> {
        if let Some(compilations) = &self.compilations {
            compilations.increment(1);
        }
        Arc::new(compile(sql, &self.schema, goal))
    }

    /// The names of the shards, in the order of declaration.
    pub fn shard_names(&self) -> &[String] {
        &self.names
    }

    /// The name of the shard a key belongs to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when the value is no key of the declared type, when tables are declared with keys of several
    /// types (use [`shard_for_table`](ShardRouter::shard_for_table)), or when the function has no shard for the key.
    pub fn shard_for(&self, key: impl ToParam) -> Result<&str> {
        self.place("shard_for", key.to_param()).map(|shard| self.name(shard))
    }

    /// The name of the shard that holds a table's rows of a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] as [`shard_for`](ShardRouter::shard_for), and when the table is not declared.
    pub fn shard_for_table(&self, table: &str, key: impl ToParam) -> Result<&str> {
        const OPERATION: &str = "shard_for_table";
        let Some(table) = self.schema.table(&table.to_ascii_lowercase()) else {
            let refusal = Refusal::new("the table is not declared with a key", "declare it");
            return Err(refusal.error(OPERATION));
        };
        let shard = self.place_typed(OPERATION, table.key_type, key.to_param())?;
        Ok(self.name(shard))
    }

    /// What a statement needs, before its parameters are known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when no parameters could make it safe to route; the message says why and how to rewrite it.
    pub fn check(&self, sql: &str) -> Result<RoutePlan> {
        match &*self.compiled(sql) {
            Ok(program) => Ok(plan(program)),
            Err(refusal) => Err(refusal.error("check")),
        }
    }

    /// Where a statement goes with these parameters.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when it would be refused; the message says why and how to rewrite it.
    pub fn explain_route(&self, sql: &str, params: &[Param<'_>]) -> Result<RouteExplanation> {
        const OPERATION: &str = "explain_route";
        let compiled = self.compiled(sql);
        let program = program(&compiled, OPERATION)?;
        let (kind, shards) = match self.target(program, params, OPERATION)? {
            Target::One(shard) => (RouteKind::Single, vec![shard]),
            Target::Several => {
                // A write that is split is no longer atomic, so it is done on request only; the route is the same.
                if let Split::No(reason) = &program.split {
                    return Err(several(reason).error(OPERATION));
                }
                let cut = self.cut(program, params, OPERATION)?;
                (RouteKind::Split, cut.shards().collect())
            }
            Target::Any | Target::Every => (RouteKind::Any, Vec::new()),
        };
        let shards = shards.into_iter().map(|shard| self.name(shard).to_owned()).collect();
        let merge = (kind == RouteKind::Split && program.access == Access::Read)
            .then(|| how(&program.merge));
        Ok(RouteExplanation { kind, shards, plan: plan(program), merge })
    }

    /// Where a statement that [`query_all`](super::ShardedDatabase::query_all) sends goes, and how the answers are made one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when it would be refused; the message says why and how to rewrite it.
    pub fn explain_route_all(&self, sql: &str, params: &[Param<'_>]) -> Result<RouteExplanation> {
        const OPERATION: &str = "explain_route_all";
        let compiled = self.everywhere(sql);
        let program = program(&compiled, OPERATION)?;
        if self.target(program, params, OPERATION)? != Target::Every {
            return self.explain_route(sql, params);
        }
        Ok(RouteExplanation {
            kind: RouteKind::Every,
            shards: self.names.to_vec(),
            plan: plan(program),
            merge: Some(how(&program.merge)),
        })
    }

    /// The shard of a statement, for those who send it themselves. Allocates nothing when the route is cached.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when no parameters could make it safe to route, or these do not.
    pub fn route(&self, sql: &str, params: &[Param<'_>]) -> Result<Route<'_>> {
        const OPERATION: &str = "route";
        let compiled = self.compiled(sql);
        let program = program(&compiled, OPERATION)?;
        match self.target(program, params, OPERATION)? {
            Target::One(shard) => Ok(Route::Shard(self.name(shard))),
            Target::Any => Ok(Route::Any),
            Target::Several | Target::Every => Ok(Route::Several),
        }
    }

    /// The compiled route of a statement, from the cache where it is there.
    pub(crate) fn compiled(&self, sql: &str) -> Arc<Compiled> {
        if let Some(route) = self.cache.get(sql) {
            return route;
        }
        let route = self.compile(sql, Goal::Keys);
        self.cache.insert(sql, Arc::clone(&route));
        route
    }

    /// The route of a statement that reads all shards, from the cache where it is there.
    pub(crate) fn everywhere(&self, sql: &str) -> Arc<Compiled> {
        if let Some(route) = self.everywhere.get(sql) {
            return route;
        }
        let route = self.compile(sql, Goal::Everywhere);
        self.everywhere.insert(sql, Arc::clone(&route));
        route
    }

    pub(crate) fn target(
        &self,
        program: &Program,
        params: &[Param<'_>],
        operation: &'static str,
    ) -> Result<Target> {
        program
            .target(&*self.function, self.count(), params)
            .map_err(|refusal| refusal.error(operation))
    }

    /// The keys of a statement by the shards that own them.
    pub(crate) fn cut<'a>(
        &self,
        program: &Program,
        params: &[Param<'a>],
        operation: &'static str,
    ) -> Result<Cut<'a>> {
        let cut = Cut::of(program, &*self.function, self.count(), params);
        cut.map_err(|refusal| refusal.error(operation))
    }

    /// A multi-row INSERT, cut: shard, text and parameters of each part.
    pub(crate) fn row_parts<'p>(
        &self,
        rows: &RowSplit,
        sql: &str,
        params: &[Param<'p>],
        operation: &'static str,
    ) -> Result<Vec<(u32, String, Vec<Param<'p>>)>> {
        let parts = rows.parts(sql, &*self.function, self.count(), params);
        let parts = parts.map_err(|refusal| refusal.error(operation))?;
        Ok(parts.into_iter().map(|part| (part.shard, part.sql, part.params)).collect())
    }

    /// The shard of a key of the one declared type.
    pub(crate) fn place(&self, operation: &'static str, key: Param<'_>) -> Result<u32> {
        match &*self.key_types {
            [key_type] => self.place_typed(operation, *key_type, key),
            [] => Err(Refusal::new("no table is declared with a key", "declare one").error(operation)),
            _ => Err(Refusal::new(
                "the tables have keys of several types, so the value alone does not say which is meant",
                "name the table: shard_for_table",
            )
            .error(operation)),
        }
    }

    fn place_typed(
        &self,
        operation: &'static str,
        key_type: KeyType,
        key: Param<'_>,
    ) -> Result<u32> {
        let placed = match key_type.key(key) {
            Ok(key) => place(&*self.function, self.count(), &key),
            Err(fault) => refuse("the value is no shard key", fault.to_string()),
        };
        placed.map_err(|refusal| refusal.error(operation))
    }

    /// The shard of a key that is converted already.
    pub(super) fn place_key(&self, key: &ShardKey<'_>) -> Checked<u32> {
        place(&*self.function, self.count(), key)
    }

    pub(crate) fn name(&self, shard: u32) -> &str {
        self.names.get(shard as usize).map_or("", String::as_str)
    }

    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    pub(super) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    pub(crate) fn function_name(&self) -> &str {
        self.function.name()
    }

    pub(crate) fn count(&self) -> u32 {
        // The builder refuses more shards than buckets.
        u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    /// The bytes compiled routes occupy now, by the cache's own reckoning.
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes() + self.everywhere.bytes()
    }

    /// Whether a key type is in use; for tests of shard functions.
    pub fn key_types(&self) -> &[KeyType] {
        &self.key_types
    }

    /// The shard of a converted key, by index.
    pub fn shard_of(&self, key: &ShardKey<'_>) -> Option<u32> {
        self.function.shard(key).filter(|shard| *shard < self.count())
    }
}

/// A compiled program, or its refusal as an error of an operation.
pub(crate) fn program<'c>(compiled: &'c Compiled, operation: &'static str) -> Result<&'c Program> {
    compiled.as_ref().map_err(|refusal| refusal.error(operation))
}

/// The refusal of a statement whose keys live on several shards and that cannot be split.
pub(crate) fn several(reason: &str) -> Refusal {
    Refusal::new(
        format!(
            "the keys live on several shards and the statement cannot be split because {reason}"
        ),
        "send one statement for each key",
    )
}

/// How answers are made one, for people.
fn how(merge: &Merge) -> &'static str {
    match (&merge.columns, merge.order.is_empty()) {
        (Some(_), true) => "groups are folded",
        (Some(_), false) => "groups are folded, then ordered",
        (None, true) => "rows follow one another, shard by shard",
        (None, false) => "rows are woven into one order",
    }
}

fn plan(program: &Program) -> RoutePlan {
    let mut keys: Vec<String> = Vec::new();
    for key in &program.keys {
        let value = match &key.source {
            KeySource::Literal(_) => "…".to_owned(),
            KeySource::Param(index) => format!("${}", index + 1),
            KeySource::Elements(index) => format!("ANY(${})", index + 1),
        };
        keys.push(format!("{} = {value}", key.label));
    }
    let one_shard_because = match &program.split {
        Split::No(reason) if !program.keys.is_empty() => Some(*reason),
        _ => None,
    };
    RoutePlan { access: program.access, keys, one_shard_because }
}

impl fmt::Debug for ShardRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<_> =
            self.schema.tables().map(|(name, table)| format!("{name}.{}", table.key)).collect();
        f.debug_struct("ShardRouter")
            .field("shards", &self.names)
            .field("function", &self.function.name())
            .field("tables", &tables)
            .finish_non_exhaustive()
    }
}
