//! Whether the answers of several shards make one answer.
//!
//! They can be put together as rows when no group, no set of distinct rows and no window reaches over two shards: when
//! each holds the shard key. Other groups and sets are folded where all that is answered of them can be: the columns they are
//! grouped by, counts, sums, averages, minima and maxima. Everything else is left to one shard.

use sqlparser::ast::{Distinct, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr};

use super::finish::{Finish, Tail};
use super::folded;
use super::scope::{Block, Column, Kind};
use crate::sharding::refusal::{Checked, Refusal};
use crate::sharding::route::program::Merge;

/// What stands in the way, and what clears it.
#[derive(Debug, Default)]
pub(super) struct Merging {
    /// Nothing clears this.
    never: Option<&'static str>,
    /// Cleared when the groups hold the key, or by folding.
    grouped: Option<&'static str>,
    /// Cleared when the rows hold the key.
    distinct: Option<&'static str>,
    groups_hold_key: bool,
    rows_hold_key: bool,
    tail: Tail,
    finish: Option<Finish>,
}

impl Merging {
    /// Looks at the outermost query.
    pub(super) fn of(query: &Query) -> Self {
        let SetExpr::Select(select) = &*query.body else {
            return Self { never: Some("it is no single SELECT"), ..Self::default() };
        };
        let grouped = match &select.group_by {
            GroupByExpr::All(_) => true,
            GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
        };
        let first = |reasons: &[(bool, &'static str)]| {
            reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| *reason)
        };
        let distinct_on = matches!(select.distinct, Some(Distinct::On(_)));
        let distinct = matches!(select.distinct, Some(Distinct::Distinct));
        Self {
            never: first(&[
                (query.with.is_some(), "it has WITH"),
                (query.fetch.is_some(), "it has FETCH"),
                (!query.locks.is_empty(), "it locks rows"),
                (distinct_on, "it has DISTINCT ON"),
                (select.from.is_empty(), "it reads no table"),
            ]),
            grouped: first(&[
                (grouped, "it has GROUP BY without the shard key"),
                (select.having.is_some(), "it has HAVING"),
            ]),
            distinct: distinct.then_some("it has DISTINCT without the shard key"),
            tail: Tail::of(query, distinct),
            ..Self::default()
        }
    }

    /// Looks for the key in the groups and in the rows, now that columns can be told.
    pub(super) fn look_for_key(&mut self, select: &Select, block: &Block<'_>) {
        let aliases = || {
            select.projection.iter().filter_map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                _ => None,
            })
        };
        // An alias of the key's name may be what is meant.
        let shadowed = |expr: &Expr| match expr {
            Expr::Identifier(name) => {
                aliases().any(|alias| alias.eq_ignore_ascii_case(&name.value))
            }
            _ => false,
        };
        if let GroupByExpr::Expressions(by, modifiers) = &select.group_by {
            self.groups_hold_key = modifiers.is_empty()
                && by.iter().any(|expr| holds_key(block, expr) && !shadowed(expr));
        }
        self.finish = Some(Finish::of(&self.tail, select, block));
        self.rows_hold_key = select.projection.iter().any(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                holds_key(block, expr)
            }
            SelectItem::Wildcard(_) => block.relations.iter().any(|relation| {
                !relation.nullable && matches!(relation.kind, Kind::Sharded { .. })
            }),
            _ => false,
        });
    }

    /// An aggregate of the outermost query.
    pub(super) fn aggregate(&mut self) {
        self.grouped.get_or_insert("it calls an aggregate or a function of your own");
    }

    /// A window of the outermost query that reaches over keys.
    pub(super) fn window(&mut self) {
        self.never.get_or_insert("it has a window that is not partitioned by the shard key");
    }

    /// An aggregate that stands in a subquery and may be the outermost query's.
    pub(super) fn outer_aggregate(&mut self) {
        self.never.get_or_insert("an aggregate in a subquery may belong to the query around it");
    }

    /// Whether rows of several shards become one.
    fn folds(&self) -> bool {
        self.grouped.is_some() && !self.groups_hold_key
            || self.distinct.is_some() && !self.rows_hold_key
    }

    /// Why the answers make no single one.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        let Some(finish) = &self.finish else { return Some(self.never.unwrap_or("it is unclear")) };
        let further = if !self.folds() {
            finish.rows_obstacle()
        } else if self.distinct.is_some() && self.grouped.is_some() {
            self.grouped
        } else {
            finish.groups_obstacle()
        };
        self.never.or(further)
    }

    /// Why a write cannot be cut up.
    pub(super) fn obstacle_to_writes(&self) -> Option<&'static str> {
        self.never.or(self.grouped)
    }

    /// What each shard is asked and what is done with the answers. At most `most` rows are held.
    pub(super) fn plan(self, query: &Query, most: usize) -> Checked<Merge> {
        let fold = self.folds();
        match self.finish {
            Some(finish) => finish.plan(fold, query, most),
            None => Err(Refusal::new("it is unclear", "ask each shard")),
        }
    }
}

/// Whether an expression is the key of a table whose rows no outer join can miss.
pub(super) fn holds_key(block: &Block<'_>, expr: &Expr) -> bool {
    match block.resolve(None, expr) {
        Some(Column::LocalKey(index)) => {
            block.relations.get(index).is_some_and(|relation| !relation.nullable)
        }
        _ => false,
    }
}
