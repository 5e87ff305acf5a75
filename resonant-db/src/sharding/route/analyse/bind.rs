//! Binding the keys of sharded tables to values.

use sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, UnaryOperator,
    Value as Literal,
};

use super::scope::{Binding, Block, Column, Condition, Kind, Scope};
use super::{Analyser, Env, Goal, Root, Values};
use crate::Param;
use crate::sharding::key::KeyType;
use crate::sharding::refusal::{Checked, Refusal, refuse};
use crate::sharding::route::program::KeySource;

/// How many branches of an OR are looked into.
const MAX_BRANCHES: usize = 64;

impl Analyser<'_> {
    /// Binds every sharded relation of the block, or refuses.
    pub(super) fn bind(&mut self, block: &mut Block<'_>, env: Env<'_>) -> Checked {
        self.single_values(block, env)?;
        loop {
            self.propagate(block, env.scope);
            if !self.one_list(block, env)? {
                break;
            }
        }
        if self.goal == Goal::Everywhere && env.top {
            self.read_everywhere(block);
            self.propagate(block, env.scope);
        }
        for relation in &block.relations {
            if let Kind::Sharded { label, binding: None, .. } = &relation.kind {
                return refuse(
                    format!(
                        "nothing in the statement binds {label} (as {}) to a shard",
                        relation.name
                    ),
                    format!(
                        "add {}.{} = $n to the WHERE of that query, or join it to the key of a table that is bound",
                        relation.name,
                        label.rsplit('.').next().unwrap_or_default()
                    ),
                );
            }
        }
        Ok(())
    }

    /// `key = value`: the strongest, so they go first.
    fn single_values(&mut self, block: &mut Block<'_>, env: Env<'_>) -> Checked {
        for at in 0..block.conjuncts.len() {
            for (left, right) in equalities(block, at, true) {
                for (column, value) in [(left, right), (right, left)] {
                    let Some(relation) = unbound(block, at, env.scope, column) else { continue };
                    if let Some(source) = source(block, relation, value)? {
                        self.bind_to(block, relation, vec![source], env.top);
                    }
                }
            }
        }
        Ok(())
    }

    /// `key = other.key`, until nothing changes.
    fn propagate(&mut self, block: &mut Block<'_>, outer: Option<&Scope<'_>>) {
        let mut changed = true;
        while changed {
            changed = false;
            for at in 0..block.conjuncts.len() {
                let mut found = Vec::new();
                if let Some(Condition::Keys(left, right)) = condition(block, at) {
                    found.push((Column::LocalKey(left), Column::LocalKey(right)));
                    found.push((Column::LocalKey(right), Column::LocalKey(left)));
                }
                for (left, right) in equalities(block, at, false) {
                    let columns = (block.resolve(outer, left), block.resolve(outer, right));
                    if let (Some(left), Some(right)) = columns {
                        found.push((left, right));
                        found.push((right, left));
                    }
                }
                for (column, other) in found {
                    let Column::LocalKey(index) = column else { continue };
                    let applies =
                        block.conjuncts.get(at).is_some_and(|c| c.applies.contains(&index));
                    let binding = match other {
                        Column::Bound(binding) => Some(binding),
                        Column::LocalKey(other) => {
                            block.relations.get(other).and_then(|other| other.binding())
                        }
                    };
                    if let (true, Some(binding)) = (applies, binding) {
                        changed |= set(block, index, binding);
                    }
                }
            }
        }
    }

    /// Binds one relation by a list of values, if any is left that can be.
    fn one_list(&mut self, block: &mut Block<'_>, env: Env<'_>) -> Checked<bool> {
        for at in 0..block.conjuncts.len() {
            let Some(Condition::Expr(expr)) = condition(block, at) else { continue };
            for index in 0..block.relations.len() {
                let applies = block.conjuncts.get(at).is_some_and(|c| c.applies.contains(&index));
                let free = block.relations.get(index).is_some_and(|relation| {
                    matches!(relation.kind, Kind::Sharded { binding: None, .. })
                });
                if !applies || !free {
                    continue;
                }
                if let Some(values) = values_of(block, env.scope, index, expr)? {
                    self.bind_to(block, index, values, env.top);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn bind_to(&mut self, block: &mut Block<'_>, index: usize, values: Vec<KeySource>, top: bool) {
        let Some(relation) = block.relations.get(index) else { return };
        if let Kind::Sharded { key_type, label, binding: None, .. } = &relation.kind {
            let root = Root {
                key_type: *key_type,
                label: label.clone(),
                values: Values::These(values),
                splits: top && !relation.nullable,
            };
            let binding = self.root(root);
            set(block, index, binding);
        }
    }

    /// Lets the first preserved table range over all keys.
    fn read_everywhere(&mut self, block: &mut Block<'_>) {
        let first = block.relations.iter().position(|relation| {
            !relation.nullable && matches!(relation.kind, Kind::Sharded { binding: None, .. })
        });
        let Some(index) = first else { return };
        let Some(Kind::Sharded { key_type, label, .. }) =
            block.relations.get(index).map(|r| &r.kind)
        else {
            return;
        };
        let root =
            Root { key_type: *key_type, label: label.clone(), values: Values::All, splits: true };
        let binding = self.root(root);
        set(block, index, binding);
    }
}

fn condition<'a>(block: &Block<'a>, at: usize) -> Option<Condition<'a>> {
    block.conjuncts.get(at).map(|conjunct| conjunct.condition)
}

/// The pairs a condition holds equal. `null_safe` also takes IS NOT DISTINCT FROM, which is an equality only with values
/// that are not NULL.
fn equalities<'a>(block: &Block<'a>, at: usize, null_safe: bool) -> Vec<(&'a Expr, &'a Expr)> {
    let mut pairs = Vec::new();
    if let Some(Condition::Expr(expr)) = condition(block, at) {
        equal_pairs(expr, null_safe, &mut pairs);
    }
    pairs
}

fn equal_pairs<'a>(expr: &'a Expr, null_safe: bool, pairs: &mut Vec<(&'a Expr, &'a Expr)>) {
    match expr {
        Expr::Nested(inner) => equal_pairs(inner, null_safe, pairs),
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => match (&**left, &**right) {
            (Expr::Tuple(left), Expr::Tuple(right)) if left.len() == right.len() => {
                pairs.extend(left.iter().zip(right));
            }
            (left, right) => pairs.push((left, right)),
        },
        Expr::IsNotDistinctFrom(left, right) if null_safe => pairs.push((left, right)),
        _ => {}
    }
}

/// The local sharded relation whose key `column` is, if the condition holds for it and it is not bound yet.
fn unbound(
    block: &Block<'_>,
    at: usize,
    outer: Option<&Scope<'_>>,
    column: &Expr,
) -> Option<usize> {
    let Some(Column::LocalKey(index)) = block.resolve(outer, column) else { return None };
    let applies = block.conjuncts.get(at)?.applies.contains(&index);
    let free = matches!(block.relations.get(index)?.kind, Kind::Sharded { binding: None, .. });
    (applies && free).then_some(index)
}

fn set(block: &mut Block<'_>, index: usize, to: Binding) -> bool {
    match block.relations.get_mut(index).map(|relation| &mut relation.kind) {
        Some(Kind::Sharded { key_type, binding: binding @ None, .. })
            if *key_type == to.key_type =>
        {
            *binding = Some(to);
            true
        }
        _ => false,
    }
}

/// The values a condition restricts the key of a relation to.
fn values_of(
    block: &Block<'_>,
    outer: Option<&Scope<'_>>,
    index: usize,
    expr: &Expr,
) -> Checked<Option<Vec<KeySource>>> {
    let is_key = |expr: &Expr| block.resolve(outer, expr) == Some(Column::LocalKey(index));
    let sources = |values: &[&Expr]| -> Checked<Option<Vec<KeySource>>> {
        let mut sources = Vec::with_capacity(values.len());
        for value in values {
            match source(block, index, value)? {
                Some(source) => sources.push(source),
                None => return Ok(None),
            }
        }
        Ok((!sources.is_empty()).then_some(sources))
    };
    match expr {
        Expr::Nested(inner) => values_of(block, outer, index, inner),
        // Not IS NOT DISTINCT FROM: the value may be nulled on another shard, and would then match a NULL.
        Expr::BinaryOp { left: _, op: BinaryOperator::Eq, right: _ } => {
            let mut pairs = Vec::new();
            equal_pairs(expr, false, &mut pairs);
            for (left, right) in pairs {
                for (column, value) in [(left, right), (right, left)] {
                    if is_key(column)
                        && let Some(found) = sources(&[value])?
                    {
                        return Ok(Some(found));
                    }
                }
            }
            Ok(None)
        }
        Expr::InList { expr, list, negated: false } => match &**expr {
            Expr::Tuple(columns) => {
                let Some(at) = columns.iter().position(is_key) else { return Ok(None) };
                let mut values = Vec::with_capacity(list.len());
                for entry in list {
                    match entry {
                        Expr::Tuple(entry) if entry.len() == columns.len() => {
                            values.extend(entry.get(at))
                        }
                        _ => return Ok(None),
                    }
                }
                sources(&values)
            }
            column if is_key(column) => sources(&list.iter().collect::<Vec<_>>()),
            _ => Ok(None),
        },
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, is_some: _ } if is_key(left) => {
            match &**right {
                Expr::Array(Array { elem, named: true }) => {
                    sources(&elem.iter().collect::<Vec<_>>())
                }
                list => Ok(array(block, index, list).map(|list| vec![list])),
            }
        }
        Expr::BinaryOp { left: _, op: BinaryOperator::Or, right: _ } => {
            let mut values = Vec::new();
            let Some(branches) = branches(expr) else { return Ok(None) };
            for branch in branches {
                // Of each branch, one link of its chain of ANDs must restrict the key.
                let mut links = Block::default();
                super::from::add_condition(branch, 0..0, &mut links);
                let mut found = None;
                for link in &links.conjuncts {
                    if let Condition::Expr(link) = link.condition
                        && !matches!(link, Expr::BinaryOp { op: BinaryOperator::Or, .. })
                    {
                        found = values_of(block, outer, index, link)?;
                    }
                    if found.is_some() {
                        break;
                    }
                }
                match found {
                    Some(found) => values.extend(found),
                    None => return Ok(None),
                }
            }
            Ok(Some(values))
        }
        _ => Ok(None),
    }
}

/// The branches of an OR, unless there are too many.
fn branches(expr: &Expr) -> Option<Vec<&Expr>> {
    let (mut open, mut branches) = (vec![expr], Vec::new());
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                open.push(right);
                open.push(left);
            }
            Expr::Nested(inner)
                if matches!(**inner, Expr::BinaryOp { op: BinaryOperator::Or, .. }) =>
            {
                open.push(inner);
            }
            branch => branches.push(branch),
        }
        if open.len() + branches.len() > MAX_BRANCHES {
            return None;
        }
    }
    Some(branches)
}

fn source(block: &Block<'_>, index: usize, expr: &Expr) -> Checked<Option<KeySource>> {
    match block.relations.get(index).map(|relation| &relation.kind) {
        Some(Kind::Sharded { key_type, label, .. }) => constant(*key_type, label, expr),
        _ => Ok(None),
    }
}

/// A parameter that holds a list of keys.
fn array(block: &Block<'_>, index: usize, expr: &Expr) -> Option<KeySource> {
    let Kind::Sharded { key_type, .. } = &block.relations.get(index)?.kind else { return None };
    match expr {
        Expr::Nested(inner) => array(block, index, inner),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(element, None)),
            format: None,
        } if keeps(*key_type, element) => array(block, index, expr),
        Expr::Value(value) => match &value.value {
            Literal::Placeholder(name) => parameter(name).map(KeySource::Elements),
            _ => None,
        },
        _ => None,
    }
}

/// The index of a parameter by its name.
fn parameter(name: &str) -> Option<usize> {
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// A parameter or a literal as a key; `None` when the expression is something else.
pub(super) fn constant(key_type: KeyType, label: &str, expr: &Expr) -> Checked<Option<KeySource>> {
    match expr {
        Expr::Nested(inner) => constant(key_type, label, inner),
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            format: None,
        } if keeps(key_type, data_type) => constant(key_type, label, expr),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match &**expr {
            Expr::Value(value) => match &value.value {
                Literal::Number(digits, false) => number(key_type, label, &format!("-{digits}")),
                _ => Ok(None),
            },
            _ => Ok(None),
        },
        Expr::Value(value) => match &value.value {
            Literal::Placeholder(name) => Ok(parameter(name).map(KeySource::Param)),
            Literal::SingleQuotedString(text) => {
                literal(key_type, label, Param::Text(text)).map(Some)
            }
            Literal::Number(digits, false) => number(key_type, label, digits),
            Literal::Null => literal(key_type, label, Param::Null).map(Some),
            Literal::Boolean(value) => literal(key_type, label, Param::Bool(*value)).map(Some),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

fn number(key_type: KeyType, label: &str, digits: &str) -> Checked<Option<KeySource>> {
    match digits.parse::<i64>() {
        Ok(number) => literal(key_type, label, Param::Int(number)).map(Some),
        Err(_) => refuse(
            format!("a number compared with the key {label} is no whole number of 64 bits"),
            "give the key as a parameter of its type",
        ),
    }
}

fn literal(key_type: KeyType, label: &str, value: Param<'_>) -> Checked<KeySource> {
    match key_type.key(value) {
        Ok(key) => Ok(KeySource::Literal(key.to_owned_key())),
        Err(fault) => {
            Err(Refusal::new(format!("a literal is no key of {label}"), fault.to_string()))
        }
    }
}

/// Whether a cast to this type gives back the same key.
fn keeps(key_type: KeyType, data_type: &DataType) -> bool {
    match key_type {
        KeyType::Text => matches!(data_type, DataType::Text | DataType::Varchar(None)),
        KeyType::Int => matches!(
            data_type,
            DataType::BigInt(None)
                | DataType::Int8(None)
                | DataType::Integer(None)
                | DataType::Int(None)
        ),
        KeyType::Uuid => matches!(data_type, DataType::Uuid),
        KeyType::Bytes => matches!(data_type, DataType::Bytea),
    }
}
