//! Parameters of a statement.

mod array;
mod decimal;
#[allow(dead_code, reason = "engines write, each behind a feature")]
mod text;

use std::fmt;

pub use self::array::ArrayParam;
pub(crate) use self::array::arrays_of;
pub use self::decimal::DecimalParam;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use self::text::write_text;
#[cfg(feature = "postgres")]
pub(crate) use self::text::{DAYS_TO_2000, MICROS_TO_2000};

/// A borrowed value given to a statement in place of `$1`, `$2`, …
///
/// Make a list of them with [`params!`](crate::params). The backend encodes each by the type the engine declared for
/// the placeholder. `Debug` shows the kind and size of a value, never the value.
#[derive(Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Param<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// Any whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A decimal number, exactly.
    Decimal(DecimalParam),
    /// A UUID.
    Uuid([u8; 16]),
    /// A day, counted from 1970-01-01.
    Date(i32),
    /// A time of day, in microseconds since midnight.
    Time(i64),
    /// A day and a time of day without a zone, in microseconds since 1970-01-01T00:00:00.
    Timestamp(i64),
    /// A moment, in microseconds since 1970-01-01T00:00:00Z.
    TimestampTz(i64),
    /// Several values of one type: a vector.
    Array(&'a dyn ArrayParam),
}

impl Param<'_> {
    /// The kind of the value in words, for messages: `a whole number`.
    pub fn kind(&self) -> &'static str {
        match self {
            Param::Null => "null",
            Param::Bool(_) => "a boolean",
            Param::Int(_) => "a whole number",
            Param::Float(_) => "a floating-point number",
            Param::Text(_) => "text",
            Param::Bytes(_) => "bytes",
            Param::Decimal(_) => "a decimal number",
            Param::Uuid(_) => "a UUID",
            Param::Date(_) => "a date",
            Param::Time(_) => "a time of day",
            Param::Timestamp(_) => "a timestamp without a zone",
            Param::TimestampTz(_) => "a moment",
            Param::Array(_) => "an array",
        }
    }
}

impl fmt::Debug for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Param::Null => f.write_str("null"),
            Param::Bool(_) => f.write_str("bool"),
            Param::Int(_) => f.write_str("int"),
            Param::Float(_) => f.write_str("float"),
            Param::Text(text) => write!(f, "text({} bytes)", text.len()),
            Param::Bytes(bytes) => write!(f, "bytes({})", bytes.len()),
            Param::Array(values) => write!(f, "array({} values)", values.len()),
            other => f.write_str(other.kind().rsplit(' ').next().unwrap_or_default()),
        }
    }
}

/// What can be given to a statement.
///
/// `u64` is not: it does not fit every engine's integers. Convert it to `i64`, or to text, as your schema has it.
pub trait ToParam {
    /// Borrows the value as a parameter.
    fn to_param(&self) -> Param<'_>;
}

/// Makes the parameters of a statement: `params![7, "Ada", None::<i64>]`.
///
/// It borrows what it is given, so write it where the statement is called, not in a `let` before it.
///
/// ```
/// use resonant_db::{Param, params};
/// let name = String::from("Ada");
/// let list: &[Param<'_>] = params![7, name, true];
/// assert_eq!(list[1], Param::Text("Ada"));
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::ToParam::to_param(&$value)),*] as &[$crate::Param<'_>]
    };
}

macro_rules! to_param {
    ($($type:ty => |$value:ident| $param:expr;)*) => {$(
        impl ToParam for $type {
            fn to_param(&self) -> Param<'_> {
                let $value = self;
                $param
            }
        }
    )*};
}

to_param! {
    bool => |value| Param::Bool(*value);
    i8 => |value| Param::Int(i64::from(*value));
    i16 => |value| Param::Int(i64::from(*value));
    i32 => |value| Param::Int(i64::from(*value));
    i64 => |value| Param::Int(*value);
    u8 => |value| Param::Int(i64::from(*value));
    u16 => |value| Param::Int(i64::from(*value));
    u32 => |value| Param::Int(i64::from(*value));
    f32 => |value| Param::Float(f64::from(*value));
    f64 => |value| Param::Float(*value);
    str => |value| Param::Text(value);
    String => |value| Param::Text(value);
    [u8] => |value| Param::Bytes(value);
    Vec<u8> => |value| Param::Bytes(value);
}

/// What can be borrowed as a parameter: `Param::from(&name)`.
impl<'a, T: ToParam + ?Sized> From<&'a T> for Param<'a> {
    fn from(value: &'a T) -> Self {
        value.to_param()
    }
}

impl<'a, T: Into<Param<'a>>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Param::Null, Into::into)
    }
}

macro_rules! from_plain_values {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Param<'_> {
            fn from(value: $type) -> Self {
                Param::$variant(value.into())
            }
        }
    )*};
}

from_plain_values! {
    bool => Bool,
    i8 => Int, i16 => Int, i32 => Int, i64 => Int,
    u8 => Int, u16 => Int, u32 => Int,
    f32 => Float, f64 => Float,
}

impl ToParam for Param<'_> {
    fn to_param(&self) -> Param<'_> {
        *self
    }
}

impl<T: ToParam + ?Sized> ToParam for &T {
    fn to_param(&self) -> Param<'_> {
        (**self).to_param()
    }
}

impl<T: ToParam> ToParam for Option<T> {
    fn to_param(&self) -> Param<'_> {
        self.as_ref().map_or(Param::Null, ToParam::to_param)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_macro_takes_what_users_have() {
        let (owned, missing) = (String::from("x"), None::<i64>);
        let expected = [
            Param::Int(1),
            Param::Float(2.5),
            Param::Text("x"),
            Param::Text("x"),
            Param::Text("y"),
            Param::Null,
            Param::Int(3),
            Param::Bytes(b"z"),
            Param::Null,
        ];
        assert_eq!(
            params![1_i16, 2.5, owned, &owned, "y", missing, Some(3), b"z".as_slice(), Param::Null],
            expected
        );
        assert!(params![].is_empty());
    }

    #[test]
    fn debug_never_shows_a_value() {
        let shown = format!("{:?}", params!["hunter2", 4_711, b"hunter2".as_slice(), 3.75]);
        assert_eq!(shown, "[text(7 bytes), int, bytes(7), float]");
    }
}
