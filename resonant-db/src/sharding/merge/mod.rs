//! One answer from the answers of several shards.

mod decimal;
mod order;

use std::cmp::Ordering;

use super::route::Fold;
use crate::backend::RowsBuilder;
use crate::{Error, ErrorKind, Result, Rows, ValueRef};

/// Puts the answers one after the other, or folds their one row each into one.
pub(super) fn merged(
    operation: &'static str,
    folds: Option<&[Fold]>,
    answers: Vec<Rows>,
) -> Result<Rows> {
    let columns = answers.first().map(|rows| rows.columns().to_vec()).unwrap_or_default();
    let Some(folds) = folds else { return Ok(concatenated(columns, &answers)) };
    let rows = || answers.iter().flat_map(Rows::iter);
    if answers.iter().any(|rows| rows.len() != 1) || columns.len() != folds.len() {
        return Err(refused(operation, "a shard answered something else than one row"));
    }
    let mut one = RowsBuilder::new(columns);
    for (column, fold) in folds.iter().enumerate() {
        let rows: Vec<_> = rows().collect();
        let mut sum = ValueRef::Null;
        for row in &rows {
            sum = folded(operation, *fold, sum, row.value(column)?)?;
        }
        one.push(sum);
    }
    Ok(one.finish())
}

fn concatenated(columns: Vec<crate::backend::Column>, answers: &[Rows]) -> Rows {
    let width = columns.len();
    let mut all = RowsBuilder::new(columns);
    for row in answers.iter().flat_map(Rows::iter) {
        for column in 0..width {
            match row.value(column) {
                Ok(value) => all.push(value),
                Err(_) => all.push_unreadable("the shard answered bytes that are no value"),
            }
        }
    }
    all.finish()
}

/// Only whole numbers are summed, and only numbers of one kind compared: sums of fractions depend on their order, and the
/// order of text on a collation that the engine knows and the program does not.
fn folded<'v>(
    operation: &'static str,
    fold: Fold,
    so_far: ValueRef<'v>,
    next: ValueRef<'v>,
) -> Result<ValueRef<'v>> {
    use ValueRef::{Float, Int, Null};
    let keep = |order: Ordering| match fold {
        Fold::Min => order == Ordering::Less,
        _ => order == Ordering::Greater,
    };
    match (fold, so_far, next) {
        (_, Null, value @ (Null | Int(_))) | (_, value, Null) => Ok(value),
        (Fold::Min | Fold::Max, Null, value @ Float(_)) => Ok(value),
        (Fold::Count | Fold::Sum, Int(a), Int(b)) => a.checked_add(b).map(Int).ok_or_else(|| {
            Error::new(ErrorKind::Rejected, operation, "the sum over the shards exceeds 64 bits")
        }),
        (Fold::Min | Fold::Max, Int(a), Int(b)) => Ok(if keep(b.cmp(&a)) { next } else { so_far }),
        (Fold::Min | Fold::Max, Float(a), Float(b)) => {
            Ok(if keep(b.total_cmp(&a)) { next } else { so_far })
        }
        (Fold::Count | Fold::Sum, ..) => Err(refused(
            operation,
            "a sum over several shards is of something else than whole numbers",
        )),
        (Fold::Min | Fold::Max, ..) => Err(refused(
            operation,
            "a minimum or maximum over several shards is of something else than numbers of one kind",
        )),
    }
}

fn refused(operation: &'static str, reason: &str) -> Error {
    let message = format!("{reason}; ask each key or each shard, and combine in the program");
    Error::new(ErrorKind::Refused, operation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_exact_or_refused() {
        use ValueRef::{Float, Int, Null, Text};
        let all = |fold, values: &[ValueRef<'static>]| {
            values.iter().try_fold(Null, |sum, next| folded("query", fold, sum, *next))
        };
        assert_eq!(all(Fold::Count, &[Int(0), Int(3)]).ok(), Some(Int(3)));
        assert_eq!(all(Fold::Sum, &[Null, Int(3), Null, Int(-4)]).ok(), Some(Int(-1)));
        assert_eq!(all(Fold::Sum, &[Null, Null]).ok(), Some(Null));
        assert_eq!(all(Fold::Min, &[Int(3), Null, Int(-4), Int(0)]).ok(), Some(Int(-4)));
        assert_eq!(all(Fold::Max, &[Null, Float(0.5), Float(2.5)]).ok(), Some(Float(2.5)));
        for (fold, values, kind) in [
            (Fold::Sum, [Int(i64::MAX), Int(1)], ErrorKind::Rejected),
            (Fold::Sum, [Float(0.1), Float(0.2)], ErrorKind::Refused),
            (Fold::Sum, [Null, Float(0.2)], ErrorKind::Refused),
            (Fold::Max, [Int(1), Float(0.5)], ErrorKind::Refused),
            (Fold::Min, [Text("a"), Text("B")], ErrorKind::Refused),
            (Fold::Min, [Null, Text("B")], ErrorKind::Refused),
        ] {
            let error = all(fold, &values).expect_err("not exact");
            assert_eq!(error.kind(), kind, "{fold:?} {values:?}");
        }
    }
}
