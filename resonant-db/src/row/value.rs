//! A value of a row, and what Rust types it can become.

use std::fmt;

use crate::Param;

/// A value of a row, borrowed from it. `Debug` shows the kind and size of a value, never the value.
#[derive(Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ValueRef<'a> {
    /// SQL NULL.
    Null,
    /// A boolean. Engines without booleans answer whole numbers instead.
    Bool(bool),
    /// Any whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A decimal number of any size, in digits: `-12.50`, or `NaN`, `Infinity`, `-Infinity`.
    Decimal(&'a str),
    /// An array in the notation of PostgreSQL: `{1,NULL,"a b"}`. Serde reads it as a sequence.
    Array(&'a str),
    /// Text.
    Text(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
}

impl ValueRef<'_> {
    /// The kind of the value in one word, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            ValueRef::Null => "null",
            ValueRef::Bool(_) => "a boolean",
            ValueRef::Int(_) => "a whole number",
            ValueRef::Float(_) => "a floating-point number",
            ValueRef::Decimal(_) => "a decimal number",
            ValueRef::Array(_) => "an array",
            ValueRef::Text(_) => "text",
            ValueRef::Bytes(_) => "bytes",
        }
    }
}

impl<'a> From<ValueRef<'a>> for Param<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Param::Null,
            ValueRef::Bool(value) => Param::Bool(value),
            ValueRef::Int(value) => Param::Int(value),
            ValueRef::Float(value) => Param::Float(value),
            ValueRef::Array(value) | ValueRef::Decimal(value) | ValueRef::Text(value) => {
                Param::Text(value)
            }
            ValueRef::Bytes(value) => Param::Bytes(value),
        }
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueRef::Array(text) => write!(f, "array({} bytes)", text.len()),
            ValueRef::Decimal(digits) => write!(f, "decimal({} bytes)", digits.len()),
            value => fmt::Debug::fmt(&Param::from(*value), f),
        }
    }
}

/// What a value of a row can be taken as.
///
/// Whole numbers fit any integer type that holds them, and a float when it holds them exactly; `0` and `1` are booleans
/// too, because some engines have no others. A decimal number is its digits as a `String`, the nearest float, and an
/// integer when it is whole and fits. An array is its text as a `String`, and a vector of booleans, numbers or texts, of an
/// `Option` of them where there may be NULLs. NULL is only an `Option`.
///
/// With the features `uuid`, `chrono`, `time`, `jiff` and `rust_decimal` the types of these crates are read from what engines
/// write for theirs, alone and in vectors. Other text is never parsed. Who decodes through serde needs what the crates
/// offer for it: `uuid`, `chrono`, `jiff` and `rust_decimal` their feature `serde`, `time` its `serde::rfc3339`.
pub trait FromValue<'a>: Sized {
    /// What is expected, as messages say it: `"whole number that fits i32"`.
    const EXPECTED: &'static str;

    /// The value as this type, or `None` when it is not one.
    fn from_value(value: ValueRef<'a>) -> Option<Self>;
}

impl<'a> FromValue<'a> for ValueRef<'a> {
    const EXPECTED: &'static str = "value";

    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        Some(value)
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        match value {
            ValueRef::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

macro_rules! from_value {
    ($($type:ty, $expected:literal: $($pattern:pat => $value:expr),+;)*) => {$(
        impl<'a> FromValue<'a> for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: ValueRef<'a>) -> Option<Self> {
                match value {
                    $($pattern => $value,)+
                    _ => None,
                }
            }
        }
    )*};
}

macro_rules! integers {
    ($($type:ident)*) => {
        from_value! {$(
            $type, "whole number that fits":
                ValueRef::Int(value) => $type::try_from(value).ok(),
                ValueRef::Decimal(digits) => whole(digits)?.parse().ok();
        )*}
    };
}

integers!(i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 usize isize);

from_value! {
    bool, "boolean": ValueRef::Bool(value) => Some(value), ValueRef::Int(0) => Some(false), ValueRef::Int(1) => Some(true);
    f64, "number": ValueRef::Float(value) => Some(value), ValueRef::Int(value) => exact(value),
        ValueRef::Decimal(digits) => digits.parse().ok();
    f32, "number that fits":
        // The nearest f32, as `as` gives it.
        ValueRef::Float(value) => Some(value as f32),
        ValueRef::Int(value) => exact(value).map(|value| value as f32),
        ValueRef::Decimal(digits) => digits.parse().ok();
    &'a str, "text": ValueRef::Text(value) | ValueRef::Decimal(value) | ValueRef::Array(value) => Some(value);
    String, "text": ValueRef::Text(value) | ValueRef::Decimal(value) | ValueRef::Array(value) => Some(value.to_owned());
    Box<str>, "text": ValueRef::Text(value) | ValueRef::Decimal(value) | ValueRef::Array(value) => Some(value.into());
    &'a [u8], "bytes": ValueRef::Bytes(value) => Some(value);
    Vec<u8>, "bytes": ValueRef::Bytes(value) => Some(value.to_vec());
}

/// The digits of a decimal number that is whole: those before the point.
pub(super) fn whole(digits: &str) -> Option<&str> {
    match digits.split_once('.') {
        None => Some(digits),
        Some((whole, fraction)) => fraction.bytes().all(|digit| digit == b'0').then_some(whole),
    }
}

/// A whole number as a float, when the float holds it exactly.
fn exact(value: i64) -> Option<f64> {
    const LIMIT: u64 = 1 << f64::MANTISSA_DIGITS;
    (value.unsigned_abs() <= LIMIT).then_some(value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_widen_and_never_wrap() {
        assert_eq!(u8::from_value(ValueRef::Int(255)), Some(255));
        assert_eq!(u8::from_value(ValueRef::Int(256)), None);
        assert_eq!(u64::from_value(ValueRef::Int(-1)), None);
        assert_eq!(f64::from_value(ValueRef::Int(1 << 53)), Some(9_007_199_254_740_992.0));
        assert_eq!(f64::from_value(ValueRef::Int((1 << 53) + 1)), None);
        assert_eq!(i64::from_value(ValueRef::Float(1.0)), None);
    }

    #[test]
    fn null_is_only_an_option_and_text_is_never_parsed() {
        assert_eq!(i64::from_value(ValueRef::Null), None);
        assert_eq!(Option::<i64>::from_value(ValueRef::Null), Some(None));
        assert_eq!(i64::from_value(ValueRef::Text("1")), None);
        assert_eq!(String::from_value(ValueRef::Int(1)), None);
        assert_eq!(bool::from_value(ValueRef::Int(1)), Some(true));
        assert_eq!(bool::from_value(ValueRef::Int(2)), None);
    }

    #[test]
    fn decimals_keep_their_digits_and_widen_when_whole() {
        let decimal = ValueRef::Decimal;
        assert_eq!(i64::from_value(decimal("-12.00")), Some(-12));
        assert_eq!(i64::from_value(decimal("12.01")), None);
        assert_eq!(u8::from_value(decimal("256")), None);
        assert_eq!(i64::from_value(decimal("NaN")), None);
        assert_eq!(f64::from_value(decimal("0.1")), Some(0.1));
        assert_eq!(f64::from_value(decimal("-Infinity")), Some(f64::NEG_INFINITY));
        assert_eq!(String::from_value(decimal("0.10")), Some("0.10".into()));
    }

    #[test]
    fn debug_shows_kind_and_size() {
        assert_eq!(format!("{:?}", ValueRef::Text("secret")), "text(6 bytes)");
    }
}
