//! Groups that reach over shards, folded into one row each.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::value::{Value, average, fold};
use super::{Context, Sorted, Window, compare};
use crate::backend::{Column, RowsBuilder};
use crate::sharding::catalogue::Kind;
use crate::sharding::route::{Fold, Merge, Part};
use crate::sharding::schema::Engine;
use crate::{Result, Row, Rows, ValueRef};

/// Folds all rows.
pub(super) fn folded(
    context: &Context<'_>,
    merge: &Merge,
    parts: &[Part],
    columns: Vec<Column>,
    order: &[Sorted],
    window: Window,
    answers: &[Rows],
) -> Result<Rows> {
    let width = columns.len();
    if parts.len() != width || merge.single && answers.iter().any(|rows| rows.len() != 1) {
        return Err(context.refused("a shard answered something else than it was asked for"));
    }
    let kinds: Vec<Option<Kind>> = parts
        .iter()
        .map(|part| match part {
            Part::Fold(_, proof) | Part::Group(proof) => context.kind(proof),
            Part::Average { .. } => None,
        })
        .collect();
    let columns = columns.into_iter().zip(parts).map(|(column, part)| match part {
        // It was asked for as a sum.
        Part::Average { text: Some(text), .. } => Column::new(match context.engine {
            Engine::Postgres => "avg".into(),
            Engine::Sqlite => text.clone(),
        }),
        _ => column,
    });
    let columns = columns.collect();
    let mut groups: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut seen = vec![None; width];
    for row in answers.iter().flat_map(Rows::iter) {
        let key = key(context, parts, &kinds, &mut seen, &row)?;
        let at = *groups.entry(key).or_insert(rows.len());
        if let Some(kept) = rows.get_mut(at) {
            add(context, parts, &kinds, kept, &row)?;
        } else {
            let mut kept = vec![Value::Null; width + merge.hidden];
            for (column, part) in parts.iter().enumerate() {
                if let (Part::Group(_), Some(slot)) = (part, kept.get_mut(column)) {
                    *slot = row.value(column)?.into();
                }
            }
            add(context, parts, &kinds, &mut kept, &row)?;
            rows.push(kept);
            if rows.len() > context.most {
                return Err(context.too_many());
            }
        }
    }
    for row in &mut rows {
        for (column, part) in parts.iter().enumerate() {
            if let Part::Average { count, .. } = part
                && let (Some(sum), Some(count)) = (row.get(column), row.get(width + count))
            {
                row[column] = average(context, context.engine == Engine::Postgres, sum, count)?;
            }
        }
    }
    sort(context, order, &mut rows)?;
    let mut all = RowsBuilder::new(columns);
    for row in window.cut(rows.iter()) {
        for value in row.iter().take(width) {
            all.push(value.as_ref());
        }
    }
    Ok(all.finish())
}

/// Adds a row of a shard to its group.
fn add(
    context: &Context<'_>,
    parts: &[Part],
    kinds: &[Option<Kind>],
    kept: &mut [Value],
    row: &Row,
) -> Result<()> {
    for (column, (part, kind)) in parts.iter().zip(kinds).enumerate() {
        let value = row.value(column)?;
        match part {
            Part::Group(_) => {
                // Equal, and yet not the same: which of them one database would show is chance.
                if kept[column].as_ref() != value
                    && !matches!(value, ValueRef::Float(f) if f.is_nan())
                {
                    return Err(
                        context.refused("values that are equal are written in several ways")
                    );
                }
            }
            Part::Fold(how, _) => kept[column] = fold(context, *how, *kind, &kept[column], value)?,
            Part::Average { count, .. } => {
                kept[column] = fold(context, Fold::Sum, None, &kept[column], value)?;
                let at = parts.len() + count;
                kept[at] = fold(context, Fold::Count, None, &kept[at], row.value(at)?)?;
            }
        }
    }
    Ok(())
}

/// What the rows of a group have in common, such that equal values are equal bytes.
fn key(
    context: &Context<'_>,
    parts: &[Part],
    kinds: &[Option<Kind>],
    seen: &mut [Option<u8>],
    row: &Row,
) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    for (column, (part, kind)) in parts.iter().zip(kinds).enumerate() {
        if !matches!(part, Part::Group(_)) {
            continue;
        }
        let value = row.value(column)?;
        let mut entry = |tag: u8, bytes: &[u8]| {
            key.push(tag);
            key.extend((bytes.len() as u64).to_le_bytes());
            key.extend(bytes);
            tag
        };
        let tag = match value {
            ValueRef::Null => {
                entry(0, &[]);
                continue;
            }
            ValueRef::Bool(value) => entry(1, &[u8::from(value)]),
            ValueRef::Int(number) => entry(2, &number.to_le_bytes()),
            ValueRef::Float(number) => {
                let number = if number == 0.0 { 0.0 } else { number };
                let bits = if number.is_nan() { u64::MAX } else { number.to_bits() };
                entry(3, &bits.to_le_bytes())
            }
            ValueRef::Decimal(digits) => {
                let shorter = match digits.contains('.') {
                    true => digits.trim_end_matches('0').trim_end_matches('.'),
                    false => digits,
                };
                entry(4, shorter.as_bytes())
            }
            ValueRef::Bytes(bytes) => entry(5, bytes),
            ValueRef::Text(text) if kind.is_some() => entry(6, text.as_bytes()),
            ValueRef::Array(_) | ValueRef::Text(_) => {
                return Err(context.refused(
                    "it is not known when two texts of a column it groups by are equal: their type or collation is unknown",
                ));
            }
        };
        // To some engine 1 and 1.0 are equal.
        if *seen[column].get_or_insert(tag) != tag {
            return Err(context.refused("the shards answer values of several kinds in a column"));
        }
    }
    Ok(key)
}

fn sort(context: &Context<'_>, order: &[Sorted], rows: &mut [Vec<Value>]) -> Result<()> {
    if order.is_empty() {
        return Ok(());
    }
    for (row, by) in rows.iter().flat_map(|row| order.iter().map(move |by| (row, by))) {
        let value = row.get(by.column).map_or(ValueRef::Null, Value::as_ref);
        if !matches!(value, ValueRef::Null) && compare(value, value, by.kind).is_none() {
            return Err(context.unordered());
        }
    }
    let mut failed = None;
    rows.sort_by(|a, b| {
        for by in order {
            let value = |row: &[Value]| row.get(by.column).cloned().unwrap_or(Value::Null);
            match context.under(by, value(a).as_ref(), value(b).as_ref()) {
                Ok(Ordering::Equal) => {}
                Ok(order) => return order,
                Err(error) => {
                    failed.get_or_insert(error);
                    return Ordering::Equal;
                }
            }
        }
        Ordering::Equal
    });
    failed.map_or(Ok(()), Err)
}
