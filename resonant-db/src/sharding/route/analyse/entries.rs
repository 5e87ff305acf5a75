//! What the entries of a statement mean to one another: which column of the answer an ORDER BY or a GROUP BY names, which
//! aggregate an entry is, and which column of which table.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart, Select,
    SelectItem, Value,
};

use super::finish::Reason;
use super::folded;
use super::scope::Block;
use crate::sharding::route::program::Proof;

/// An expression without COLLATE, and whether that asks for the order of bytes.
pub(super) fn uncollated(expr: &Expr) -> (&Expr, bool) {
    match expr {
        Expr::Nested(inner) => uncollated(inner),
        Expr::Collate { expr: inner, collation } => {
            let bytewise = match collation.0.as_slice() {
                [ObjectNamePart::Identifier(name)] => {
                    matches!(
                        (name.quote_style, name.value.as_str()),
                        (Some(_), "C" | "POSIX" | "ucs_basic")
                    ) || name.value.eq_ignore_ascii_case("binary")
                }
                _ => false,
            };
            if bytewise { (inner, true) } else { (expr, false) }
        }
        expr => (expr, false),
    }
}

pub(super) fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

pub(super) fn has_wildcard(select: &Select) -> bool {
    select.projection.iter().any(|item| item_expr(item).is_none())
}

fn ordinal(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(digits, false) = &value.value else { return None };
    digits.parse::<usize>().ok()?.checked_sub(1)
}

/// What an entry of the select list is called.
fn name(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last(),
        _ => None,
    }
}

/// The column of the answer an entry of ORDER BY means; `None` when it is none of them.
pub(super) fn position<'s>(
    expr: &Expr,
    collated: bool,
    select: &'s Select,
) -> Result<Option<(usize, Option<&'s Expr>)>, Reason> {
    let items = &select.projection;
    if let Some(at) = ordinal(expr).filter(|_| !collated) {
        let plain = items.iter().take(at + 1).all(|item| item_expr(item).is_some());
        return Ok(Some((at, items.get(at).filter(|_| plain).and_then(item_expr))));
    }
    let named: Vec<usize> = match expr {
        // An expression with COLLATE means columns of tables, never names of the answer.
        Expr::Identifier(wanted) if !collated => (0..items.len())
            .filter(|at| {
                name(&items[*at]).is_some_and(|name| name.value.eq_ignore_ascii_case(&wanted.value))
            })
            .collect(),
        _ => Vec::new(),
    };
    let shadowed = collated
        && items.iter().any(|item| match (item, expr) {
            (SelectItem::ExprWithAlias { alias, .. }, Expr::Identifier(wanted)) => {
                alias.value.eq_ignore_ascii_case(&wanted.value)
            }
            _ => false,
        });
    if shadowed {
        return Err("it orders by a name with COLLATE that is an alias and may be a column");
    }
    let same = |a: usize, b: usize| item_expr(&items[a]) == item_expr(&items[b]);
    let at = match named.as_slice() {
        [] => items.iter().position(|item| item_expr(item) == Some(expr)),
        [first, others @ ..] if others.iter().all(|other| same(*first, *other)) => Some(*first),
        _ => return Err("it orders by a name that several columns of its select list have"),
    };
    match at {
        None => Ok(None),
        Some(at) if items.iter().take(at).all(|item| item_expr(item).is_some()) => {
            if !named.is_empty() && has_wildcard(select) {
                return Err("it orders by a name beside *: write out the columns");
            }
            Ok(Some((at, item_expr(&items[at]))))
        }
        Some(_) => Err("it orders by a column behind *: write out the columns"),
    }
}

/// The entry of the select list an entry of GROUP BY means.
pub(super) fn grouped_item(expr: &Expr, select: &Select) -> Option<usize> {
    let items = &select.projection;
    if has_wildcard(select) {
        return None;
    }
    if let Some(at) = ordinal(expr) {
        return (at < items.len()).then_some(at);
    }
    // An alias of a column's name may be what is meant, or not.
    if let Expr::Identifier(wanted) = expr {
        let shadowed = items.iter().any(|item| match item {
            SelectItem::ExprWithAlias { expr: of, alias } => {
                alias.value.eq_ignore_ascii_case(&wanted.value) && of != expr
            }
            _ => false,
        });
        if shadowed {
            return None;
        }
    }
    items.iter().position(|item| item_expr(item) == Some(expr))
}

pub(super) fn called_mut(item: &mut SelectItem) -> Option<&mut Function> {
    match item {
        SelectItem::UnnamedExpr(Expr::Function(function))
        | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. } => Some(function),
        _ => None,
    }
}

/// The name and argument of an aggregate that folds.
pub(super) fn aggregate(function: &Function) -> Option<(String, Option<&Expr>)> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = function.over.is_none()
        && function.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    let (true, [FunctionArg::Unnamed(argument)]) = (plain, list.args.as_slice()) else {
        return None;
    };
    let name = folded(name);
    match (name.as_str(), argument) {
        ("count", FunctionArgExpr::Wildcard) => Some((name, None)),
        ("avg" | "count" | "max" | "min" | "sum", FunctionArgExpr::Expr(expr)) => {
            Some((name, Some(expr)))
        }
        _ => None,
    }
}

/// Which column of which table an expression is, for what the catalogue knows of it.
pub(super) fn proof(expr: &Expr, block: &Block<'_>) -> Proof {
    let relations = &block.relations;
    let found = match expr {
        Expr::Identifier(column) => match relations.as_slice() {
            [relation] => Some((relation, column)),
            _ => None,
        },
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [qualifier, column] => {
                let qualifier = folded(qualifier);
                let mut named = relations.iter().filter(|relation| relation.name == qualifier);
                named.next().filter(|_| named.next().is_none()).map(|relation| (relation, column))
            }
            _ => None,
        },
        _ => None,
    };
    match found.and_then(|(relation, column)| Some((relation.table.clone()?, column))) {
        Some((table, column)) => Proof::Column { table, column: folded(column).into() },
        None => Proof::None,
    }
}
