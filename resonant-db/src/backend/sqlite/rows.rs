//! The rows of a statement that runs: all at once, or piece by piece.

use rusqlite::types::ValueRef as SqliteValue;
use rusqlite::{Row, Statement};
use tokio::sync::mpsc;

use crate::backend::{Column, RowsBuilder};
use crate::{Rows, ValueRef};

/// The most rows, and about the most bytes, of one piece.
const ROWS: usize = 256;
const BYTES: usize = 1 << 20;

/// Where pieces go.
pub(super) type Pieces = mpsc::Sender<Option<Rows>>;

/// Runs a bound statement to its end.
pub(super) fn step(statement: &mut Statement<'_>) -> rusqlite::Result<()> {
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

pub(super) fn collect(statement: &mut Statement<'_>) -> rusqlite::Result<Rows> {
    let mut builder: Option<RowsBuilder> = None;
    {
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            // Only after the first step is the statement compiled against the schema as it is now.
            let builder = match &mut builder {
                Some(builder) => builder,
                None => builder.insert(RowsBuilder::new(columns(row.as_ref())?)),
            };
            push(builder, row)?;
        }
    }
    match builder {
        Some(builder) => Ok(builder.finish()),
        None => Ok(RowsBuilder::new(columns(statement)?).finish()),
    }
}

/// Hands the rows over as they are taken, until nobody takes any more.
pub(super) fn pour(statement: &mut Statement<'_>, to: &Pieces) -> rusqlite::Result<()> {
    if to.blocking_send(None).is_err() {
        return Ok(());
    }
    let mut rows = statement.raw_query();
    let mut piece: Option<(RowsBuilder, usize, usize)> = None;
    while let Some(row) = rows.next()? {
        let (builder, count, bytes) = match &mut piece {
            Some(piece) => piece,
            None => piece.insert((RowsBuilder::new(columns(row.as_ref())?), 0, 0)),
        };
        *bytes += push(builder, row)?;
        *count += 1;
        if (*count >= ROWS || *bytes >= BYTES)
            && let Some((builder, ..)) = piece.take()
            && to.blocking_send(Some(builder.finish())).is_err()
        {
            return Ok(());
        }
    }
    if let Some((builder, ..)) = piece {
        let _ = to.blocking_send(Some(builder.finish()));
    }
    Ok(())
}

/// Copies a row. Answers about how many bytes it has.
fn push(builder: &mut RowsBuilder, row: &Row<'_>) -> rusqlite::Result<usize> {
    let mut bytes = 0;
    for column in 0..row.as_ref().column_count() {
        bytes += match row.get_ref(column)? {
            SqliteValue::Null => {
                builder.push(ValueRef::Null);
                0
            }
            SqliteValue::Integer(value) => {
                builder.push(ValueRef::Int(value));
                size_of_val(&value)
            }
            SqliteValue::Real(value) => {
                builder.push(ValueRef::Float(value));
                size_of_val(&value)
            }
            SqliteValue::Blob(value) => {
                builder.push(ValueRef::Bytes(value));
                value.len()
            }
            SqliteValue::Text(value) => {
                match std::str::from_utf8(value) {
                    Ok(value) => builder.push(ValueRef::Text(value)),
                    Err(_) => builder.push_unreadable("its text is not UTF-8; cast it to a blob"),
                }
                value.len()
            }
        };
    }
    Ok(bytes)
}

fn columns(statement: &Statement<'_>) -> rusqlite::Result<Vec<Column>> {
    (0..statement.column_count()).map(|at| statement.column_name(at).map(Column::new)).collect()
}
