//! Values that are kept while rows are folded, and how two of them become one.

use std::cmp::Ordering;

use super::Context;
use super::decimal::Decimal;
use super::order::compare;
use crate::sharding::catalogue::Kind;
use crate::sharding::route::Fold;
use crate::{Error, ErrorKind, Result, ValueRef};

/// A value of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal(String),
    Array(String),
    Text(String),
    Bytes(Vec<u8>),
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::Int(value) => Self::Int(value),
            ValueRef::Float(value) => Self::Float(value),
            ValueRef::Decimal(digits) => Self::Decimal(digits.to_owned()),
            ValueRef::Array(text) => Self::Array(text.to_owned()),
            ValueRef::Text(text) => Self::Text(text.to_owned()),
            ValueRef::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }
}

impl Value {
    pub(super) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Decimal(digits) => ValueRef::Decimal(digits),
            Self::Array(text) => ValueRef::Array(text),
            Self::Text(text) => ValueRef::Text(text),
            Self::Bytes(bytes) => ValueRef::Bytes(bytes),
        }
    }
}

/// Folds the next value in. Only numbers that are exact are summed: a sum of fractions in binary depends on its order.
pub(super) fn fold(
    context: &Context<'_>,
    fold: Fold,
    kind: Option<Kind>,
    so_far: &Value,
    next: ValueRef<'_>,
) -> Result<Value> {
    let keeps = |order: Ordering| match fold {
        Fold::Min => order != Ordering::Greater,
        _ => order != Ordering::Less,
    };
    Ok(match (fold, so_far.as_ref(), next) {
        (_, value, ValueRef::Null) => value.into(),
        (
            Fold::Count | Fold::Sum,
            ValueRef::Null,
            value @ (ValueRef::Int(_) | ValueRef::Decimal(_)),
        ) => value.into(),
        (Fold::Count | Fold::Sum, ValueRef::Int(a), ValueRef::Int(b)) => {
            let sum = a.checked_add(b).ok_or_else(|| {
                let message = "the sum over the shards exceeds 64 bits";
                Error::new(ErrorKind::Rejected, context.operation, message)
            })?;
            Value::Int(sum)
        }
        (Fold::Sum, ValueRef::Decimal(a), ValueRef::Decimal(b)) => {
            match (Decimal::parse(a), Decimal::parse(b)) {
                (Some(a), Some(b)) => Value::Decimal(a.plus(b).to_string()),
                _ => {
                    return Err(
                        context.refused("a shard answered a decimal number in an unknown form")
                    );
                }
            }
        }
        (Fold::Count | Fold::Sum, ..) => {
            return Err(context.refused(
                "a sum over several shards is of something else than whole or decimal numbers",
            ));
        }
        (Fold::Min | Fold::Max, so_far, next) => {
            let first = matches!(so_far, ValueRef::Null);
            let order = compare(if first { next } else { so_far }, next, kind).ok_or_else(|| {
                context.refused(
                    "a minimum or maximum over several shards is of something else than numbers of one kind, timestamps \
                     or text in the order of bytes",
                )
            })?;
            if !first && keeps(order) { so_far.into() } else { next.into() }
        }
    })
}

/// The average, as the engine would have it of all rows.
pub(super) fn average(
    context: &Context<'_>,
    postgres: bool,
    sum: &Value,
    count: &Value,
) -> Result<Value> {
    /// Whole numbers up to here are floats without loss, and so is a running sum of them.
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    let refused = || {
        context.refused(
            "an average over several shards is of something else than whole or decimal numbers",
        )
    };
    let count = match count {
        Value::Int(count) => u64::try_from(*count).map_err(|_| refused())?,
        Value::Null => 0,
        _ => return Err(refused()),
    };
    Ok(match sum {
        Value::Null => Value::Null,
        Value::Int(sum) if postgres => Value::Decimal(Decimal::from(*sum).over(count).to_string()),
        Value::Int(sum) if sum.unsigned_abs() <= EXACT => Value::Float(*sum as f64 / count as f64),
        Value::Decimal(digits) if postgres => {
            Value::Decimal(Decimal::parse(digits).ok_or_else(refused)?.over(count).to_string())
        }
        _ => return Err(refused()),
    })
}
