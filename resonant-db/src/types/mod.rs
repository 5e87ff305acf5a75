//! The types of other crates as parameters and as values of a row, each behind the feature of its crate's name.
//!
//! What a type has no value for (infinite dates, NaN, a numeric of fifty digits, hour 24) is an error that names the column,
//! its type and the Rust type, never another value. What is finer than a microsecond is cut off, as the engines keep no more.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "jiff")]
mod jiff;
#[cfg(feature = "rust_decimal")]
mod rust_decimal;
#[cfg(feature = "time")]
mod time;
#[cfg(feature = "uuid")]
mod uuid;

/// Makes a type a parameter and a value of a row, alone and in arrays, from how it becomes the one and is read from text.
#[cfg(any(feature = "chrono", feature = "jiff", feature = "time", feature = "uuid"))]
macro_rules! foreign {
    ($type:ty, $expected:literal: |$value:ident| $param:expr, |$text:ident| $read:expr, $($pattern:pat => $other:expr,)*) => {
        impl $crate::ToParam for $type {
            fn to_param(&self) -> $crate::Param<'_> {
                let $value = self;
                $param
            }
        }

        impl $crate::row::FromText for $type {
            fn from_text($text: &str) -> Option<Self> {
                $read
            }
        }

        impl<'a> $crate::FromValue<'a> for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: $crate::ValueRef<'a>) -> Option<Self> {
                match value {
                    $crate::ValueRef::Text(text) => <$type as $crate::row::FromText>::from_text(text),
                    $($pattern => $other,)*
                    _ => None,
                }
            }
        }

        $crate::param::arrays_of!($type);
        $crate::row::vectors_of!($type);
    };
}
#[cfg(any(feature = "chrono", feature = "jiff", feature = "time", feature = "uuid"))]
use foreign;
