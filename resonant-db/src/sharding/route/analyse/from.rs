//! Flattening FROM: its relations in order, and the conditions of its joins with what they hold for.

use std::ops::Range;

use sqlparser::ast::{
    BinaryOperator, Expr, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart,
    TableAlias, TableFactor, TableFunctionArgs, TableWithJoins,
};

use super::scope::{Binding, Block, Condition, Conjunct, Kind, Relation};
use super::{Analyser, Cte, Env, plain_name};
use crate::sharding::refusal::{Checked, refuse};
use crate::sharding::route::functions;

impl Analyser<'_> {
    /// Flattens a FROM clause. Subqueries in it are proven on the way, seeing the queries around, not their neighbours.
    pub(super) fn from<'a>(
        &mut self,
        tables: &'a [TableWithJoins],
        env: Env<'_>,
    ) -> Checked<Block<'a>> {
        let mut block = Block::default();
        for table in tables {
            self.joined(table, env, &mut block)?;
        }
        Ok(block)
    }

    pub(super) fn joined<'a>(
        &mut self,
        table: &'a TableWithJoins,
        env: Env<'_>,
        block: &mut Block<'a>,
    ) -> Checked {
        let TableWithJoins { relation, joins } = table;
        let start = block.relations.len();
        self.factor(relation, env, block)?;
        for join in joins {
            let Join { relation, global, join_operator } = join;
            if *global {
                return unknown("a GLOBAL join");
            }
            let middle = block.relations.len();
            self.factor(relation, env, block)?;
            let (left, right) = (start..middle, middle..block.relations.len());
            add_join(join_operator, left, right, block)?;
        }
        Ok(())
    }

    fn factor<'a>(
        &mut self,
        factor: &'a TableFactor,
        env: Env<'_>,
        block: &mut Block<'a>,
    ) -> Checked {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let plain = with_hints.is_empty()
                    && version.is_none()
                    && !with_ordinality
                    && partitions.is_empty()
                    && json_path.is_none()
                    && sample.is_none()
                    && index_hints.is_empty();
                if !plain {
                    return unknown("a table with a hint, a sample, a version or a partition");
                }
                let relation = match args {
                    None => self.table(name, alias.as_ref())?,
                    Some(args) => self.row_source(name, args, alias.as_ref())?,
                };
                block.relations.push(relation);
                Ok(())
            }
            TableFactor::Derived { lateral, subquery, alias, sample } => {
                if *lateral || sample.is_some() {
                    return unknown("a LATERAL or sampled subquery");
                }
                let inner = Env { scope: env.scope, top: false };
                let items = self.query(subquery, inner)?;
                let keys = super::select::exports(&items);
                let relation = opaque(alias.as_ref(), None, keys)?;
                block.relations.push(relation);
                Ok(())
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                if alias.is_some() {
                    return unknown("a join in parentheses with an alias");
                }
                self.deeper(|this| this.joined(table_with_joins, env, block))
            }
            _ => unknown("an entry of FROM that is no table, join or subquery"),
        }
    }

    pub(super) fn table(
        &mut self,
        name: &ObjectName,
        alias: Option<&TableAlias>,
    ) -> Checked<Relation> {
        let name = table_name(name)?;
        let cte = self.ctes.iter().rev().find(|(cte, _)| *cte == name).map(|(_, cte)| cte.clone());
        if let Some(cte) = cte {
            return match cte {
                Cte::Known(keys) => opaque(alias, Some(&name), keys),
                Cte::Later => refuse(
                    format!(
                        "{name} is used before WITH defines it, and engines differ on what it is"
                    ),
                    "define it first, or rename it",
                ),
            };
        }
        if self.schema.is_reference(&name) {
            let renamed = alias.is_some_and(|alias| !alias.columns.is_empty());
            let relation = opaque(alias, Some(&name), Vec::new())?;
            return Ok(Relation { table: (!renamed).then(|| name.into()), ..relation });
        }
        let Some(table) = self.schema.table(&name) else {
            if let Some(reason) = self.schema.unfit(&name) {
                return refuse(
                    reason.to_owned(),
                    "change the table, or declare another key for it",
                );
            }
            return refuse(
                format!("the table {name} is not declared"),
                "declare it with .table(name, key, type), or with .reference(name) if every shard holds all of it",
            );
        };
        if alias.is_some_and(|alias| !alias.columns.is_empty()) {
            return refuse(
                "an alias renames the columns of a sharded table",
                "rename in the select list",
            );
        }
        let label = format!("{name}.{}", table.key);
        let kind = Kind::Sharded {
            key: table.key.clone(),
            key_type: table.key_type,
            label: label.into(),
            binding: None,
        };
        let qualifier = qualifier(alias, Some(&name))?;
        Ok(Relation { name: qualifier, kind, table: Some(name.into()), nullable: false })
    }

    /// A function that makes rows of its arguments.
    fn row_source(
        &mut self,
        name: &ObjectName,
        args: &TableFunctionArgs,
        alias: Option<&TableAlias>,
    ) -> Checked<Relation> {
        let name = table_name(name)?;
        let TableFunctionArgs { args, settings } = args;
        if !functions::is_row_source(&name) || settings.is_some() {
            return unknown("a function in FROM");
        }
        for arg in args {
            // No scope: a column here is only a value, and subqueries could not be told which tables are around.
            self.argument(arg, Env::OUTSIDE)?;
        }
        opaque(alias, Some(&name), Vec::new())
    }
}

fn add_join<'a>(
    operator: &'a JoinOperator,
    left: Range<usize>,
    right: Range<usize>,
    block: &mut Block<'a>,
) -> Checked {
    use JoinOperator as Op;
    let all = left.start..right.end;
    let (constraint, applies, nullable) = match operator {
        Op::Join(on) | Op::Inner(on) | Op::CrossJoin(on) => (on, all, 0..0),
        Op::Left(on) | Op::LeftOuter(on) => (on, right.clone(), right.clone()),
        Op::Right(on) | Op::RightOuter(on) => (on, left.clone(), left.clone()),
        Op::FullOuter(on) => (on, 0..0, all),
        _ => return unknown("a join that is not INNER, LEFT, RIGHT, FULL or CROSS"),
    };
    block.right_or_full |= matches!(operator, Op::Right(_) | Op::RightOuter(_) | Op::FullOuter(_));
    for relation in block.relations.get_mut(nullable).into_iter().flatten() {
        relation.nullable = true;
    }
    match constraint {
        JoinConstraint::None => {}
        JoinConstraint::On(condition) => add_condition(condition, applies, block),
        JoinConstraint::Natural => {
            return refuse(
                "a NATURAL join depends on columns the statement does not show",
                "name them with ON or USING",
            );
        }
        JoinConstraint::Using(columns) => {
            for column in columns {
                let [ObjectNamePart::Identifier(column)] = column.0.as_slice() else {
                    return unknown("a qualified column in USING");
                };
                let column = plain_name(column)?;
                let key_everywhere = all_carry(block, left.clone(), &column)
                    && all_carry(block, right.clone(), &column)
                    && right.len() == 1;
                if key_everywhere {
                    let condition = Condition::Keys(left.start, right.start);
                    block.conjuncts.push(Conjunct { condition, applies: applies.clone() });
                }
                block.using.push(column);
            }
        }
    }
    Ok(())
}

/// Whether every relation of a range is a sharded table whose key has this name.
fn all_carry(block: &Block<'_>, range: Range<usize>, column: &str) -> bool {
    block
        .relations
        .get(range)
        .unwrap_or_default()
        .iter()
        .all(|relation| matches!(&relation.kind, Kind::Sharded { key, .. } if **key == *column))
}

/// Adds a condition, a chain of ANDs as its links.
pub(super) fn add_condition<'a>(condition: &'a Expr, applies: Range<usize>, block: &mut Block<'a>) {
    let mut open = vec![condition];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::Nested(inner) => open.push(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.push(right);
                open.push(left);
            }
            _ => {
                let condition = Condition::Expr(expr);
                block.conjuncts.push(Conjunct { condition, applies: applies.clone() });
            }
        }
    }
}

/// The folded name of a table, with its schema if the statement names one.
pub(super) fn table_name(name: &ObjectName) -> Checked<String> {
    let mut full = String::new();
    for part in &name.0 {
        let ObjectNamePart::Identifier(part) = part else {
            return unknown("a computed name");
        };
        if !full.is_empty() {
            full.push('.');
        }
        full.push_str(&plain_name(part)?);
    }
    Ok(full)
}

fn qualifier(alias: Option<&TableAlias>, name: Option<&str>) -> Checked<String> {
    match (alias, name) {
        (Some(TableAlias { name, at: None, explicit: _, columns: _ }), _) => plain_name(name),
        (Some(_), _) => unknown("an alias with AT"),
        (None, Some(name)) => Ok(name.rsplit('.').next().unwrap_or(name).to_owned()),
        // A subquery without an alias: nothing can qualify its columns.
        (None, None) => Ok(String::new()),
    }
}

fn opaque(
    alias: Option<&TableAlias>,
    name: Option<&str>,
    mut keys: Vec<(String, Binding)>,
) -> Checked<Relation> {
    if alias.is_some_and(|alias| !alias.columns.is_empty()) {
        keys.clear();
    }
    let kind = Kind::Opaque { keys };
    Ok(Relation { name: qualifier(alias, name)?, kind, table: None, nullable: false })
}

pub(super) fn unknown<T>(what: &'static str) -> Checked<T> {
    refuse(
        format!("{what} is not something the router can reason about"),
        "write it in the common part of SQL, or send the statement to a shard by name",
    )
}
