//! How the answers of several shards are made one: what each shard is asked, and what is done with what it answers.
//!
//! Rows that stay rows are ordered, skipped and cut over all shards; each shard is asked for no more than could be needed.
//! Groups that reach over shards are folded: counts and sums are added, averages are made of both.

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, LimitClause, ObjectName, ObjectNamePart, Offset, OrderByExpr,
    OrderBySort, Query, Select, SelectItem, SetExpr, Statement, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::entries::{
    aggregate, called_mut, grouped_item, has_wildcard, item_expr, position, proof, uncollated,
};
use super::scope::Block;
use crate::sharding::refusal::{Checked, Refusal};
use crate::sharding::route::program::{By, Count, Fold, Merge, Part, Place, Proof};
use crate::sharding::sql;

/// Why something cannot be done, in words.
pub(super) type Reason = &'static str;

/// What would have to be done, in both ways.
#[derive(Debug)]
pub(super) struct Finish {
    /// Rows stay rows.
    rows: Result<Work, Reason>,
    /// Rows of one group are folded.
    groups: Result<Work, Reason>,
    window: Result<(Option<Count>, Option<Count>), Reason>,
}

#[derive(Debug, Default)]
struct Work {
    parts: Option<Box<[Part]>>,
    order: Vec<By>,
    /// Columns each shard is asked for besides.
    hidden: Vec<Expr>,
    /// The columns whose average becomes a sum.
    averages: Vec<usize>,
}

/// ORDER BY, LIMIT and OFFSET of the outermost query.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) order: Vec<OrderByExpr>,
    pub(super) limit: Option<Expr>,
    pub(super) offset: Option<Expr>,
    pub(super) distinct: bool,
}

impl Finish {
    pub(super) fn of(tail: &Tail, select: &Select, block: &Block<'_>) -> Self {
        let count = |expr: Option<&Expr>| expr.map(count).transpose();
        let window =
            count(tail.limit.as_ref()).and_then(|limit| Ok((limit, count(tail.offset.as_ref())?)));
        Self { rows: rows(tail, select, block), groups: groups(tail, select, block), window }
    }

    /// Why rows cannot be put together.
    pub(super) fn rows_obstacle(&self) -> Option<Reason> {
        let unordered = match (&self.rows, &self.window) {
            (Ok(work), Ok((limit, offset)))
                if work.order.is_empty() && (limit.is_some() || offset.is_some()) =>
            {
                Some("it has LIMIT without ORDER BY")
            }
            _ => None,
        };
        self.rows.as_ref().err().or(self.window.as_ref().err()).copied().or(unordered)
    }

    /// Why groups cannot be folded.
    pub(super) fn groups_obstacle(&self) -> Option<Reason> {
        self.groups.as_ref().err().or(self.window.as_ref().err()).copied()
    }

    /// The plan, with the text for the shards.
    pub(super) fn plan(self, fold: bool, query: &Query, most: usize) -> Checked<Merge> {
        let unclear = |reason: Reason| Refusal::new(reason, "ask each key or each shard");
        let work = if fold { self.groups } else { self.rows }.map_err(unclear)?;
        let (limit, offset) = self.window.map_err(unclear)?;
        let hidden = work.hidden.len();
        let single = work
            .parts
            .as_ref()
            .is_some_and(|parts| !parts.iter().any(|part| matches!(part, Part::Group(_))));
        let mut asked = query.clone();
        let SetExpr::Select(select) = &mut *asked.body else {
            return Err(unclear("it is no single SELECT"));
        };
        for at in work.averages {
            if let Some(function) = select.projection.get_mut(at).and_then(called_mut) {
                function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("sum"))]);
            }
        }
        select.projection.extend(work.hidden.into_iter().map(SelectItem::UnnamedExpr));
        if fold {
            asked.order_by = None;
        }
        let text = written(&mut asked, wanted(fold, single, limit, offset, most))?;
        let unbounded = match fold || limit.is_some() {
            true => None,
            false => Some(written(&mut asked, wanted(fold, single, limit, offset, UNBOUNDED))?),
        };
        Ok(Merge {
            sql: Some(text),
            unbounded,
            columns: work.parts,
            order: work.order.into(),
            limit,
            offset,
            hidden,
            single,
        })
    }
}

/// More rows than there are, and yet not so many that an OFFSET could make the number too large.
const UNBOUNDED: usize = i64::MAX as usize / 2;

/// The text of a query that asks for so many rows. What is sent says what is meant: the text is read back, and has to be the
/// same statement.
fn written(asked: &mut Query, wanted: Option<String>) -> Checked<Box<str>> {
    let unclear = |reason: Reason| Refusal::new(reason, "ask each key or each shard");
    asked.limit_clause = match wanted {
        Some(text) => Some(LimitClause::LimitOffset {
            limit: Some(expression(&text).ok_or_else(|| unclear("its LIMIT is unclear"))?),
            offset: None,
            limit_by: Vec::new(),
        }),
        None => None,
    };
    let text = asked.to_string();
    let meant = Statement::Query(Box::new(asked.clone()));
    let scan = sql::scan(&text)?;
    sql::parse(&text, &scan, |read| {
        if *read == meant {
            Ok(())
        } else {
            Err(unclear("the router cannot write it down for the shards"))
        }
    })?;
    Ok(text.into())
}

/// How many rows each shard is asked for.
fn wanted(
    fold: bool,
    single: bool,
    limit: Option<Count>,
    offset: Option<Count>,
    most: usize,
) -> Option<String> {
    // Parameters keep their numbers, so each has to be named.
    let named = |count: Count| match count {
        Count::Literal(number) => format!("CAST({number} AS BIGINT)"),
        Count::Param(index) => format!("CAST(${} AS BIGINT)", index + 1),
    };
    let more = most.saturating_add(1);
    if !fold {
        let limit = limit.map_or_else(|| format!("CAST({more} AS BIGINT)"), named);
        return Some(match offset {
            Some(offset) => format!("{limit} + {}", named(offset)),
            None => limit,
        });
    }
    let params =
        [limit, offset].into_iter().flatten().filter(|count| matches!(count, Count::Param(_)));
    let unused: String = params.map(|count| format!(" + {} * 0", named(count))).collect();
    match (single, unused.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("1{unused}")),
        (false, _) => Some(format!("{more}{unused}")),
    }
}

fn expression(text: &str) -> Option<Expr> {
    let dialect = PostgreSqlDialect {};
    Parser::new(&dialect).try_with_sql(text).ok()?.parse_expr().ok()
}

fn count(expr: &Expr) -> Result<Count, Reason> {
    let Expr::Value(value) = expr else {
        return Err("its LIMIT or OFFSET is no number or parameter");
    };
    match &value.value {
        Value::Number(digits, false) => digits.parse().map(Count::Literal).ok(),
        Value::Placeholder(name) => name
            .strip_prefix('$')
            .and_then(|digits| digits.parse::<usize>().ok())
            .and_then(|number| number.checked_sub(1))
            .map(Count::Param),
        _ => None,
    }
    .ok_or("its LIMIT or OFFSET is no number or parameter")
}

fn rows(tail: &Tail, select: &Select, block: &Block<'_>) -> Result<Work, Reason> {
    let mut work = Work::default();
    for by in &tail.order {
        let (expr, collated) = uncollated(&by.expr);
        let (place, of) = match position(expr, collated, select)? {
            Some((at, of)) => (Place::Column(at), of),
            None if tail.distinct => {
                return Err("it orders distinct rows by what is not among them");
            }
            None => {
                let column = match expr {
                    // Of several tables, the one that is meant depends on what `*` stands for.
                    Expr::Identifier(_) if block.relations.len() > 1 && has_wildcard(select) => {
                        None
                    }
                    Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Some(expr),
                    _ => None,
                };
                let column =
                    column.ok_or("it orders by an expression that is not in its select list")?;
                work.hidden.push(column.clone());
                (Place::Hidden(work.hidden.len() - 1), Some(column))
            }
        };
        let (of, by_bytes) = of.map_or((None, false), |of| {
            let (of, by_bytes) = uncollated(of);
            (Some(of), by_bytes)
        });
        let proof = match of {
            _ if collated || by_bytes => Proof::Bytewise,
            Some(of) => proof(of, block),
            None => Proof::None,
        };
        work.order.push(directed(by, place, proof));
    }
    Ok(work)
}

fn directed(by: &OrderByExpr, place: Place, proof: Proof) -> By {
    let descending = matches!(by.options.sort, Some(OrderBySort::Desc));
    By { place, descending, nulls_first: by.options.nulls_first, proof }
}

fn groups(tail: &Tail, select: &Select, block: &Block<'_>) -> Result<Work, Reason> {
    const ALONE: Reason =
        "a column of its select list is neither grouped by nor count, sum, avg, min or max";
    if select.having.is_some() {
        return Err("it has HAVING over groups that reach over shards");
    }
    let GroupByExpr::Expressions(by, modifiers) = &select.group_by else {
        return Err("it has GROUP BY ALL");
    };
    if !modifiers.is_empty() || select.distinct.is_some() && !tail.distinct {
        return Err("it groups in several ways");
    }
    let mut grouped = Vec::new();
    for expr in by {
        let at = grouped_item(expr, select).ok_or(
            "it groups by what is not in its select list, or by an alias: name the position",
        )?;
        grouped.push(at);
    }
    if tail.distinct {
        if !grouped.is_empty() {
            return Err("it has DISTINCT over groups that reach over shards");
        }
        grouped = (0..select.projection.len()).collect();
    }
    let mut work = Work::default();
    let mut parts = Vec::with_capacity(select.projection.len());
    for (at, item) in select.projection.iter().enumerate() {
        let expr = item_expr(item).ok_or(ALONE)?;
        if grouped.contains(&at) {
            let (inner, collated) = uncollated(expr);
            parts.push(Part::Group(if collated { Proof::Bytewise } else { proof(inner, block) }));
            continue;
        }
        let Expr::Function(function) = expr else { return Err(ALONE) };
        let (name, argument) = aggregate(function).ok_or(ALONE)?;
        parts.push(match name.as_str() {
            "count" => Part::Fold(Fold::Count, Proof::None),
            "sum" => Part::Fold(Fold::Sum, Proof::None),
            "avg" => {
                let mut counted = function.clone();
                counted.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("count"))]);
                work.hidden.push(Expr::Function(counted));
                work.averages.push(at);
                let text = match item {
                    SelectItem::UnnamedExpr(expr) => Some(expr.to_string().into()),
                    _ => None,
                };
                Part::Average { count: work.hidden.len() - 1, text }
            }
            name => {
                let fold = if name == "min" { Fold::Min } else { Fold::Max };
                let (inner, collated) = argument.map_or((expr, false), uncollated);
                let known = if collated { Proof::Bytewise } else { proof(inner, block) };
                Part::Fold(fold, known)
            }
        });
    }
    for by in &tail.order {
        let (expr, collated) = uncollated(&by.expr);
        let Some((at, _)) = position(expr, collated, select)? else {
            return Err("it orders groups by what is not in its select list");
        };
        let proof = match parts.get(at) {
            _ if collated => Proof::Bytewise,
            Some(Part::Group(proof) | Part::Fold(_, proof)) => proof.clone(),
            _ => Proof::None,
        };
        work.order.push(directed(by, Place::Column(at), proof));
    }
    work.parts = Some(parts.into());
    Ok(work)
}

impl Tail {
    pub(super) fn of(query: &Query, distinct: bool) -> Self {
        use sqlparser::ast::{OrderBy, OrderByKind};
        let order = match &query.order_by {
            Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) => by.clone(),
            _ => Vec::new(),
        };
        let (limit, offset) = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.clone(), offset.as_ref().map(|Offset { value, .. }| value.clone()))
            }
            _ => (None, None),
        };
        Self { order, limit, offset, distinct }
    }
}
