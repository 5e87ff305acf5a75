//! One answer from the answers of several shards.
//!
//! Nothing is guessed: values whose order or equality the engine alone knows are refused, and so is an answer of a shard that
//! does not come in the order the program knows.

mod decimal;
mod group;
mod order;
mod value;
mod weave;

use std::cmp::Ordering;

use self::order::compare;
pub(super) use self::weave::Weave;
use super::catalogue::{Catalogue, Kind};
use super::route::{By, Count, Merge, Place, Proof};
use super::schema::Engine;
use crate::backend::{Column, RowsBuilder};
use crate::{Error, ErrorKind, Param, Result, Row, Rows, ValueRef};

/// What a merge goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) operation: &'static str,
    pub(super) engine: Engine,
    pub(super) catalogue: &'a Catalogue,
    /// The shards that answer.
    pub(super) shards: &'a [u32],
    /// How many rows may be held of each shard, and answered.
    pub(super) most: usize,
}

/// Which rows of the ordered whole are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) skip: usize,
    pub(super) take: Option<usize>,
}

impl Window {
    /// Reads LIMIT and OFFSET, before anything is sent.
    pub(super) fn of(merge: &Merge, params: &[Param<'_>], context: &Context<'_>) -> Result<Self> {
        let skip = context.count(merge.offset, params)?.unwrap_or(0);
        let take = context.count(merge.limit, params)?;
        if merge.columns.is_none()
            && take.is_some_and(|take| take.saturating_add(skip) > context.most)
        {
            return Err(context.too_many());
        }
        Ok(Self { skip, take })
    }

    fn cut<T>(self, rows: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        rows.skip(self.skip).take(self.take.unwrap_or(usize::MAX))
    }
}

impl Context<'_> {
    pub(super) fn refused(&self, reason: &str) -> Error {
        let message = format!("{reason}; ask each key or each shard, and combine in the program");
        Error::new(ErrorKind::Refused, self.operation, message)
    }

    fn too_many(&self) -> Error {
        let message = format!(
            "more than {} rows of several shards would be made one; add a condition or a LIMIT, or raise merge_rows",
            self.most
        );
        Error::new(ErrorKind::Refused, self.operation, message)
    }

    fn count(&self, count: Option<Count>, params: &[Param<'_>]) -> Result<Option<usize>> {
        let given = match count {
            None => return Ok(None),
            Some(Count::Literal(number)) => usize::try_from(number).ok(),
            Some(Count::Param(index)) => match params.get(index) {
                Some(Param::Int(number)) => usize::try_from(*number).ok(),
                _ => None,
            },
        };
        given.map(Some).ok_or_else(|| {
            self.refused("LIMIT or OFFSET over several shards is no whole number from 0")
        })
    }

    /// What text of a column stands for.
    fn kind(&self, proof: &Proof) -> Option<Kind> {
        match proof {
            Proof::Bytewise => Some(Kind::Bytewise),
            Proof::Column { table, column } => self.catalogue.kind(self.shards, table, column),
            Proof::None => None,
        }
    }

    /// Compares two values under an entry of ORDER BY.
    fn under(&self, by: &Sorted, a: ValueRef<'_>, b: ValueRef<'_>) -> Result<Ordering> {
        let nulls_first = by.nulls_first.unwrap_or(match self.engine {
            // To PostgreSQL NULL is larger than everything, to SQLite smaller.
            Engine::Postgres => by.descending,
            Engine::Sqlite => !by.descending,
        });
        let null = if nulls_first { Ordering::Less } else { Ordering::Greater };
        Ok(match (a, b) {
            (ValueRef::Null, ValueRef::Null) => Ordering::Equal,
            (ValueRef::Null, _) => null,
            (_, ValueRef::Null) => null.reverse(),
            (a, b) => {
                let order = compare(a, b, by.kind).ok_or_else(|| self.unordered())?;
                if by.descending { order.reverse() } else { order }
            }
        })
    }

    fn unordered(&self) -> Error {
        let message = "the order of a column over several shards is not known to the program: it is text of an unknown type \
                       or collation; order by COLLATE \"C\", by a number or a timestamp, or ask each shard";
        Error::new(ErrorKind::Refused, self.operation, message)
    }
}

/// An entry of ORDER BY, with the column and what is known of it.
#[derive(Debug, Clone, Copy)]
struct Sorted {
    column: usize,
    descending: bool,
    nulls_first: Option<bool>,
    kind: Option<Kind>,
}

/// Makes the answers one.
pub(super) fn merged(
    context: &Context<'_>,
    merge: &Merge,
    window: Window,
    answers: &[Rows],
) -> Result<Rows> {
    if answers.iter().any(|rows| rows.len() > context.most.saturating_add(window.skip)) {
        return Err(context.too_many());
    }
    let columns = answers.first().map(|rows| rows.columns().to_vec()).unwrap_or_default();
    if answers.iter().any(|rows| rows.columns().len() != columns.len()) {
        return Err(context.refused("the shards answer different columns"));
    }
    let width = width(context, merge, columns.len())?;
    let order = sorted(context, merge, width);
    let columns: Vec<Column> = columns.into_iter().take(width).collect();
    if let Some(parts) = &merge.columns {
        return group::folded(context, merge, parts, columns, &order, window, answers);
    }
    let rows = if order.is_empty() {
        answers.iter().flat_map(Rows::iter).collect()
    } else {
        interleaved(context, order, window, answers)?
    };
    let rows: Vec<Row> = window.cut(rows.into_iter()).collect();
    if rows.len() > context.most {
        return Err(context.too_many());
    }
    let mut all = RowsBuilder::new(columns);
    for row in &rows {
        for column in 0..width {
            match row.value(column) {
                Ok(value) => all.push(value),
                Err(_) => all.push_unreadable("the shard answered bytes that are no value"),
            }
        }
    }
    Ok(all.finish())
}

/// The rows of ordered answers in order, as far as they are wanted.
fn interleaved(
    context: &Context<'_>,
    order: Vec<Sorted>,
    window: Window,
    answers: &[Rows],
) -> Result<Vec<Row>> {
    let wanted = window.take.map_or(usize::MAX, |take| take.saturating_add(window.skip));
    let mut answers: Vec<_> = answers.iter().map(Rows::iter).collect();
    let mut fronts: Vec<_> = answers.iter_mut().map(Iterator::next).collect();
    let mut weave = Weave::new(order);
    let mut rows: Vec<Row> = Vec::new();
    while rows.len() < wanted {
        let Some(at) = weave.next(context, &fronts)? else { break };
        let next = answers.get_mut(at).and_then(Iterator::next);
        rows.extend(fronts.get_mut(at).and_then(|front| std::mem::replace(front, next)));
    }
    Ok(rows)
}

/// What weaves rows of this many columns.
pub(super) fn weave(context: &Context<'_>, merge: &Merge, columns: usize) -> Result<Weave> {
    let width = width(context, merge, columns)?;
    Ok(Weave::new(sorted(context, merge, width)))
}

/// How many of the columns of a shard's answer were asked for by the user.
pub(super) fn width(context: &Context<'_>, merge: &Merge, columns: usize) -> Result<usize> {
    columns
        .checked_sub(merge.hidden)
        .ok_or_else(|| context.refused("a shard answered fewer columns than it was asked for"))
}

fn sorted(context: &Context<'_>, merge: &Merge, width: usize) -> Vec<Sorted> {
    let sorted = |by: &By| Sorted {
        column: match by.place {
            Place::Column(column) => column,
            Place::Hidden(at) => width + at,
        },
        descending: by.descending,
        nulls_first: by.nulls_first,
        kind: context.kind(&by.proof),
    };
    merge.order.iter().map(sorted).collect()
}
