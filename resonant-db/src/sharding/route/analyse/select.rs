//! Queries: WITH, set operations, SELECT.

use sqlparser::ast::{
    Cte as CteNode, Distinct, Expr, Fetch, GroupByExpr, GroupByWithModifier, LimitClause,
    LockClause, NamedWindowDefinition, NamedWindowExpr, Offset, OrderBy, OrderByExpr, OrderByKind,
    OrderByOptions, OrderBySort, Query, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Values as ValuesNode,
    WildcardAdditionalOptions, With,
};

use super::from::{add_condition, unknown};
use super::scope::{Binding, Block, Column, Condition, Kind, Scope};
use super::{Analyser, Cte, Env, folded, plain_name};
use crate::sharding::refusal::{Checked, refuse};

/// One entry of a select list, as far as keys go.
#[derive(Debug)]
pub(super) enum Item {
    /// All columns; of one sharded table alone, its key and the key's name.
    All(Option<(String, Binding)>),
    One {
        /// The name of the column, where it has one.
        name: Option<String>,
        key: Option<Binding>,
        /// Whether an outer join can make it NULL.
        nullable: bool,
    },
}

/// The columns of a select list that are bound keys, by name.
pub(super) fn exports(items: &[Item]) -> Vec<(String, Binding)> {
    match items {
        [Item::All(key)] => key.clone().into_iter().collect(),
        // Beside `*` any name may stand twice, and engines differ on which one is meant.
        items if items.iter().any(|item| matches!(item, Item::All(_))) => Vec::new(),
        items => {
            let names = || {
                items.iter().filter_map(|item| match item {
                    Item::One { name: Some(name), key, .. } => Some((name, key)),
                    _ => None,
                })
            };
            names()
                .filter(|(name, _)| {
                    names().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count() == 1
                })
                .filter_map(|(name, key)| Some((name.clone(), (*key)?)))
                .collect()
        }
    }
}

impl Analyser<'_> {
    pub(super) fn query(&mut self, query: &Query, env: Env<'_>) -> Checked<Vec<Item>> {
        self.deeper(|this| {
            let in_sight = this.ctes.len();
            let items = this.query_here(query, env);
            this.ctes.truncate(in_sight);
            items
        })
    }

    fn query_here(&mut self, query: &Query, env: Env<'_>) -> Checked<Vec<Item>> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let plain = for_clause.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && pipe_operators.is_empty();
        if !plain {
            return unknown("a clause of another dialect");
        }
        if let Some(with) = with {
            self.with(with, env)?;
        }
        let items = match &**body {
            SetExpr::Select(select) => self.select(select, env)?,
            body => {
                self.set_expr(body, Env { scope: env.scope, top: false })?;
                Vec::new()
            }
        };
        if let Some(OrderBy { kind, interpolate }) = order_by {
            let OrderByKind::Expressions(by) = kind else { return unknown("ORDER BY ALL") };
            if interpolate.is_some() {
                return unknown("INTERPOLATE");
            }
            // What stands in the select list was looked at there.
            let listed = |expr: &Expr| match &**body {
                SetExpr::Select(select) => select.projection.iter().any(|item| match item {
                    SelectItem::UnnamedExpr(item)
                    | SelectItem::ExprWithAlias { expr: item, .. } => item == expr,
                    _ => false,
                }),
                _ => false,
            };
            for entry in by {
                if entry.with_fill.is_none()
                    && !matches!(entry.options.sort, Some(OrderBySort::Using(_)))
                    && listed(&entry.expr)
                {
                    continue;
                }
                self.order_by(std::slice::from_ref(entry), None)?;
            }
        }
        if let Some(limit) = limit_clause {
            let LimitClause::LimitOffset { limit, offset, limit_by } = limit else {
                return unknown("LIMIT with a comma");
            };
            if !limit_by.is_empty() {
                return unknown("LIMIT BY");
            }
            let offset = offset.as_ref().map(|Offset { value, rows: _ }| value);
            for count in [limit.as_ref(), offset].into_iter().flatten() {
                self.expr(count, None)?;
            }
        }
        if let Some(Fetch { with_ties: _, percent, quantity }) = fetch {
            if *percent {
                return unknown("FETCH with PERCENT");
            }
            if let Some(quantity) = quantity {
                self.expr(quantity, None)?;
            }
        }
        for LockClause { lock_type: _, of: _, nonblock: _ } in locks {
            self.locks = true;
        }
        Ok(items)
    }

    fn with(&mut self, with: &With, env: Env<'_>) -> Checked {
        let With { with_token: _, recursive, cte_tables } = with;
        let first = self.ctes.len();
        for CteNode { alias, .. } in cte_tables {
            let name = plain_name(&alias.name)?;
            if self.ctes.iter().skip(first).any(|(other, _)| *other == name) {
                return refuse(format!("WITH defines {name} twice"), "rename one");
            }
            let cte = if *recursive { Cte::Known(Vec::new()) } else { Cte::Later };
            self.ctes.push((name, cte));
        }
        for (at, cte) in cte_tables.iter().enumerate() {
            let CteNode { alias, query, from, materialized: _, closing_paren_token: _ } = cte;
            if from.is_some() {
                return unknown("WITH … FROM");
            }
            let items = self.query(query, Env { scope: env.scope, top: false })?;
            let keys = if alias.columns.is_empty() { exports(&items) } else { Vec::new() };
            if let Some((_, cte)) = self.ctes.get_mut(first + at) {
                *cte = Cte::Known(keys);
            }
        }
        Ok(())
    }

    fn set_expr(&mut self, body: &SetExpr, env: Env<'_>) -> Checked {
        // Chains of UNION lean to the left: walk down them without recursion.
        let mut body = body;
        while let SetExpr::SetOperation { left, op, set_quantifier, right } = body {
            let known =
                matches!(op, SetOperator::Union | SetOperator::Except | SetOperator::Intersect)
                    && matches!(
                        set_quantifier,
                        SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                    );
            if !known {
                return unknown("a set operation of another dialect");
            }
            self.deeper(|this| this.set_expr(right, env))?;
            body = left;
        }
        match body {
            SetExpr::Select(select) => self.select(select, env).map(drop),
            SetExpr::Query(query) => self.query(query, env).map(drop),
            SetExpr::Values(ValuesNode { explicit_row: _, value_keyword: _, rows }) => {
                for value in rows.iter().flat_map(|row| &row.content) {
                    self.expr(value, Some(env))?;
                }
                Ok(())
            }
            _ => unknown("a query that is no SELECT or VALUES"),
        }
    }

    pub(super) fn select(&mut self, select: &Select, env: Env<'_>) -> Checked<Vec<Item>> {
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let plain = select_modifiers.is_none()
            && top.is_none()
            && exclude.is_none()
            && into.is_none()
            && lateral_views.is_empty()
            && prewhere.is_none()
            && connect_by.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && qualify.is_none()
            && value_table_mode.is_none()
            && matches!(flavor, SelectFlavor::Standard);
        if !plain {
            return unknown("a clause of SELECT of another dialect");
        }
        let mut block = self.from(from, env)?;
        if let Some(selection) = selection {
            let all = 0..block.relations.len();
            add_condition(selection, all, &mut block);
        }
        self.bind(&mut block, env)?;
        let scope = Scope { outer: env.scope, block: &block };
        let inside = Env { scope: Some(&scope), top: env.top };
        if env.top {
            self.merging.look_for_key(select, &block);
        }
        self.conditions(&block, inside)?;
        for item in projection {
            self.item(item, inside)?;
        }
        match distinct {
            None | Some(Distinct::All | Distinct::Distinct) => {}
            Some(Distinct::On(by)) => self.exprs(by, inside)?,
        }
        match group_by {
            GroupByExpr::All(_) => return unknown("GROUP BY ALL"),
            GroupByExpr::Expressions(by, modifiers) => {
                self.exprs(by, inside)?;
                for modifier in modifiers {
                    match modifier {
                        GroupByWithModifier::GroupingSets(sets) => self.expr(sets, Some(inside))?,
                        _ => return unknown("GROUP BY … WITH"),
                    }
                }
            }
        }
        if let Some(having) = having {
            self.expr(having, Some(inside))?;
        }
        for NamedWindowDefinition(_, window) in named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window {
                self.window(spec, inside)?;
            }
        }
        Ok(projection.iter().map(|entry| item_of(entry, &block, env.scope)).collect())
    }

    /// Walks all conditions of FROM and WHERE.
    pub(super) fn conditions(&mut self, block: &Block<'_>, env: Env<'_>) -> Checked {
        for conjunct in &block.conjuncts {
            if let Condition::Expr(expr) = conjunct.condition {
                self.expr(expr, Some(env))?;
            }
        }
        Ok(())
    }

    pub(super) fn item(&mut self, item: &SelectItem, env: Env<'_>) -> Checked {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, alias: _ } => {
                self.expr(expr, Some(env))
            }
            SelectItem::Wildcard(options) => plain_wildcard(options),
            SelectItem::QualifiedWildcard(of, options) => {
                plain_wildcard(options)?;
                match of {
                    SelectItemQualifiedWildcardKind::ObjectName(_) => Ok(()),
                    SelectItemQualifiedWildcardKind::Expr(_) => {
                        unknown("the columns of an expression")
                    }
                }
            }
            SelectItem::ExprWithAliases { .. } => unknown("an expression with several aliases"),
        }
    }

    fn exprs(&mut self, exprs: &[Expr], env: Env<'_>) -> Checked {
        exprs.iter().try_for_each(|expr| self.expr(expr, Some(env)))
    }

    pub(super) fn order_by(&mut self, by: &[OrderByExpr], env: Option<Env<'_>>) -> Checked {
        for OrderByExpr { expr, options, with_fill } in by {
            let OrderByOptions { sort, nulls_first: _ } = options;
            if with_fill.is_some() || matches!(sort, Some(OrderBySort::Using(_))) {
                return unknown("ORDER BY of another dialect");
            }
            self.expr(expr, env)?;
        }
        Ok(())
    }
}

fn plain_wildcard(options: &WildcardAdditionalOptions) -> Checked {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let plain = opt_ilike.is_none()
        && opt_exclude.is_none()
        && opt_except.is_none()
        && opt_replace.is_none()
        && opt_rename.is_none()
        && opt_alias.is_none();
    if plain { Ok(()) } else { unknown("a wildcard with options") }
}

fn item_of(item: &SelectItem, block: &Block<'_>, outer: Option<&Scope<'_>>) -> Item {
    let one = |expr: &Expr, name: Option<String>| {
        let (key, nullable) = match block.resolve(outer, expr) {
            Some(Column::LocalKey(index)) => {
                let relation = block.relations.get(index);
                (relation.and_then(|r| r.binding()), relation.is_none_or(|r| r.nullable))
            }
            Some(Column::Bound(binding)) => (Some(binding), true),
            None => (None, true),
        };
        Item::One { name, key, nullable }
    };
    match item {
        SelectItem::UnnamedExpr(expr) => {
            let name = match expr {
                Expr::Identifier(name) => Some(folded(name)),
                Expr::CompoundIdentifier(parts) => parts.last().map(folded),
                _ => None,
            };
            one(expr, name)
        }
        SelectItem::ExprWithAlias { expr, alias } => one(expr, Some(folded(alias))),
        _ => {
            let key = match block.relations.as_slice() {
                [relation] => match &relation.kind {
                    Kind::Sharded { key, binding, .. } => {
                        binding.map(|binding| (key.to_string(), binding))
                    }
                    Kind::Opaque { .. } => None,
                },
                _ => None,
            };
            Item::All(key)
        }
    }
}
