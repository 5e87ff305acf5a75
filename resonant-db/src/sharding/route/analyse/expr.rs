//! Expressions: every node is known, or the statement is refused.

use sqlparser::ast::{
    Array, BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, Interval,
    ObjectNamePart, Query, UnaryOperator, Value, WindowFrame, WindowFrameBound, WindowSpec,
    WindowType,
};

use super::from::unknown;
use super::merging::holds_key;
use super::scope::{Column, Scope};
use super::{Analyser, Env, folded};
use crate::sharding::refusal::{Checked, refuse};
use crate::sharding::route::functions::{self, Class};

impl Analyser<'_> {
    /// Walks an expression. Subqueries in it are proven in `env`; without one they are refused, because it is not known
    /// which tables they would see.
    pub(super) fn expr(&mut self, expr: &Expr, env: Option<Env<'_>>) -> Checked {
        self.deeper(|this| this.expr_here(expr, env))
    }

    fn each<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        env: Option<Env<'_>>,
    ) -> Checked {
        exprs.into_iter().try_for_each(|expr| self.expr(expr, env))
    }

    fn subquery(&mut self, query: &Query, env: Option<Env<'_>>) -> Checked {
        let Some(env) = env else {
            return refuse(
                "a subquery stands where the router cannot tell which tables it sees",
                "move it to WHERE, FROM or the select list",
            );
        };
        self.query(query, Env { scope: env.scope, top: false }).map(drop)
    }

    fn expr_here(&mut self, expr: &Expr, env: Option<Env<'_>>) -> Checked {
        match expr {
            Expr::Identifier(name) => column(name),
            Expr::CompoundIdentifier(parts) => parts.last().map_or(Ok(()), column),
            Expr::Value(value) => match &value.value {
                Value::Number(..)
                | Value::SingleQuotedString(_)
                | Value::Boolean(_)
                | Value::Null
                | Value::Placeholder(_) => Ok(()),
                _ => unknown("a literal of another dialect"),
            },
            Expr::TypedString(_) => Ok(()),
            Expr::Interval(Interval {
                value,
                leading_field: _,
                leading_precision: _,
                last_field: _,
                fractional_seconds_precision: _,
            }) => self.expr(value, env),
            Expr::Nested(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::Collate { expr: inner, collation: _ }
            | Expr::Cast { kind: _, expr: inner, data_type: _, format: None }
            | Expr::Extract { field: _, syntax: _, expr: inner }
            | Expr::Ceil { expr: inner, field: _ }
            | Expr::Floor { expr: inner, field: _ } => self.expr(inner, env),
            Expr::UnaryOp {
                op: UnaryOperator::Minus | UnaryOperator::Plus | UnaryOperator::Not,
                expr,
            } => self.expr(expr, env),
            Expr::BinaryOp { left, op, right } => {
                if !known_operator(op) {
                    return unknown("an operator");
                }
                self.each([&**left, right], env)
            }
            Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right)
            | Expr::AtTimeZone { timestamp: left, time_zone: right }
            | Expr::Position { expr: left, r#in: right } => self.each([&**left, right], env),
            Expr::AnyOp { left, compare_op, right, is_some: _ }
            | Expr::AllOp { left, compare_op, right } => {
                if !known_operator(compare_op) {
                    return unknown("an operator");
                }
                self.each([&**left, right], env)
            }
            Expr::Between { expr, negated: _, low, high } => self.each([&**expr, low, high], env),
            Expr::Like { negated: _, any: false, expr, pattern, escape_char }
            | Expr::ILike { negated: _, any: false, expr, pattern, escape_char }
            | Expr::SimilarTo { negated: _, expr, pattern, escape_char } => {
                self.each([&**expr, pattern], env)?;
                self.each(escape_char.as_deref(), env)
            }
            Expr::InList { expr, list, negated: _ } => {
                self.expr(expr, env)?;
                self.each(list, env)
            }
            Expr::InSubquery { expr, subquery, negated: _ } => {
                self.expr(expr, env)?;
                self.subquery(subquery, env)
            }
            Expr::Exists { subquery, negated: _ } | Expr::Subquery(subquery) => {
                self.subquery(subquery, env)
            }
            Expr::Tuple(entries) | Expr::Array(Array { elem: entries, named: true }) => {
                self.each(entries, env)
            }
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                self.each(sets.iter().flatten(), env)
            }
            Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                self.each(operand.as_deref(), env)?;
                for CaseWhen { condition, result } in conditions {
                    self.each([condition, result], env)?;
                }
                self.each(else_result.as_deref(), env)
            }
            Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                self.expr(expr, env)?;
                self.each(substring_from.as_deref(), env)?;
                self.each(substring_for.as_deref(), env)
            }
            Expr::Trim { trim_where: _, trim_what, expr, trim_characters } => {
                self.expr(expr, env)?;
                self.each(trim_what.as_deref(), env)?;
                self.each(trim_characters.iter().flatten(), env)
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                self.each([&**expr, overlay_what, overlay_from], env)?;
                self.each(overlay_for.as_deref(), env)
            }
            Expr::Function(function) => self.function(function, env),
            _ => unknown("an expression"),
        }
    }

    fn function(&mut self, function: &Function, env: Option<Env<'_>>) -> Checked {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            within_group,
            filter,
            null_treatment: _,
            over,
        } = function;
        let (false, FunctionArguments::None, [ObjectNamePart::Identifier(name)]) =
            (*uses_odbc_syntax, parameters, name.0.as_slice())
        else {
            return unknown("a qualified or parameterised function");
        };
        let name = folded(name);
        let whole = match functions::class(&name) {
            Some(class) => class == Class::Whole,
            None if self.schema.is_allowed_function(&name) => true,
            None => {
                return refuse(
                    format!(
                        "the function {name} is not on the list of functions that depend on their arguments alone"
                    ),
                    "if it is such a function, vouch for it with .function(name)",
                );
            }
        };
        let whole = whole || over.is_some() || !within_group.is_empty();
        let plain = within_group.is_empty() && filter.is_none();
        match env {
            _ if !whole => {}
            None => self.merging.outer_aggregate(),
            Some(env) if env.top => match over {
                None => self.merging.aggregate(),
                Some(window) if in_one_key(window, env) => {}
                Some(_) => self.merging.window(),
            },
            Some(env) if may_be_outer(args, plain, env) => self.merging.outer_aggregate(),
            Some(_) => {}
        }
        self.arguments(args, env)?;
        self.order_by(within_group, env)?;
        self.each(filter.as_deref(), env)?;
        match (over, env) {
            (None | Some(WindowType::NamedWindow(_)), _) => Ok(()),
            (Some(WindowType::WindowSpec(spec)), Some(env)) => self.window(spec, env),
            (Some(WindowType::WindowSpec(_)), None) => unknown("a window here"),
        }
    }

    fn arguments(&mut self, arguments: &FunctionArguments, env: Option<Env<'_>>) -> Checked {
        let list = match arguments {
            FunctionArguments::None => return Ok(()),
            FunctionArguments::Subquery(query) => return self.subquery(query, env),
            FunctionArguments::List(list) => list,
        };
        let FunctionArgumentList { duplicate_treatment: _, args, clauses } = list;
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr, env)?,
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {}
                _ => return unknown("a named argument"),
            }
        }
        for clause in clauses {
            match clause {
                FunctionArgumentClause::OrderBy(by) => self.order_by(by, env)?,
                _ => return unknown("a clause among the arguments of a function"),
            }
        }
        Ok(())
    }

    /// An argument of a function in FROM: no subqueries.
    pub(super) fn argument(&mut self, arg: &FunctionArg, _: Env<'_>) -> Checked {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr, None),
            _ => unknown("a named argument"),
        }
    }

    pub(super) fn window(&mut self, spec: &WindowSpec, env: Env<'_>) -> Checked {
        let WindowSpec { window_name: _, partition_by, order_by, window_frame } = spec;
        self.each(partition_by, Some(env))?;
        self.order_by(order_by, Some(env))?;
        let Some(WindowFrame { units: _, start_bound, end_bound }) = window_frame else {
            return Ok(());
        };
        for bound in [Some(start_bound), end_bound.as_ref()].into_iter().flatten() {
            match bound {
                WindowFrameBound::CurrentRow => {}
                WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => {
                    self.each(by.as_deref(), Some(env))?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a window stays within the rows of one key.
fn in_one_key(window: &WindowType, env: Env<'_>) -> bool {
    match (window, env.scope) {
        (WindowType::WindowSpec(spec), Some(scope)) => {
            spec.window_name.is_none()
                && spec.partition_by.iter().any(|expr| holds_key(scope.block, expr))
        }
        _ => false,
    }
}

/// Whether an aggregate in a subquery may be one of a query around it: it is when all columns of its arguments are. `plain`
/// says that it has nothing besides arguments.
fn may_be_outer(arguments: &FunctionArguments, plain: bool, env: Env<'_>) -> bool {
    let Some(scope) = env.scope.filter(|scope| scope.outer.is_some()) else { return false };
    let list = match arguments {
        FunctionArguments::None => return !plain,
        FunctionArguments::List(list) => list,
        FunctionArguments::Subquery(_) => return true,
    };
    let (mut local, mut constant) = (false, plain && list.clauses.is_empty());
    for arg in &list.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {}
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                local |= names_local(expr, scope);
                constant &= matches!(expr, Expr::Value(_));
            }
            _ => constant = false,
        }
    }
    !local && !constant
}

/// Whether an expression certainly holds a column of the innermost query. An unqualified one may be of any around it.
fn names_local(expr: &Expr, scope: &Scope<'_>) -> bool {
    match expr {
        Expr::Identifier(_) => {
            matches!(scope.block.resolve(None, expr), Some(Column::LocalKey(_)))
        }
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [qualifier, _] => {
                let qualifier = folded(qualifier);
                scope.block.relations.iter().any(|relation| relation.name == qualifier)
            }
            _ => false,
        },
        Expr::Nested(inner)
        | Expr::Cast { expr: inner, .. }
        | Expr::UnaryOp { expr: inner, .. } => names_local(inner, scope),
        Expr::BinaryOp { left, right, .. } => names_local(left, scope) || names_local(right, scope),
        _ => false,
    }
}

/// Refuses the names engines give to the place of a row, which differs between a shard and one database.
fn column(name: &Ident) -> Checked {
    const PLACES: [&str; 9] =
        ["rowid", "_rowid_", "oid", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
    if PLACES.iter().any(|place| name.value.eq_ignore_ascii_case(place)) {
        return refuse(
            format!(
                "{} says where a row lies, which is different on every shard",
                name.value.to_ascii_lowercase()
            ),
            "use a column of your own",
        );
    }
    Ok(())
}

fn known_operator(operator: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        operator,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::Gt
            | Op::Lt
            | Op::GtEq
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
            | Op::BitwiseOr
            | Op::BitwiseAnd
            | Op::PGBitwiseShiftLeft
            | Op::PGBitwiseShiftRight
            | Op::PGExp
            | Op::PGOverlap
            | Op::PGRegexMatch
            | Op::PGRegexIMatch
            | Op::PGRegexNotMatch
            | Op::PGRegexNotIMatch
            | Op::Arrow
            | Op::LongArrow
            | Op::HashArrow
            | Op::HashLongArrow
            | Op::AtArrow
            | Op::ArrowAt
    )
}
