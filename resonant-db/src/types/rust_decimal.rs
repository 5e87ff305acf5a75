//! `rust_decimal`.

use ::rust_decimal::Decimal;

use crate::row::FromText;
use crate::{DecimalParam, FromValue, Param, ToParam, ValueRef};

/// The digits as a decimal, exactly or not at all.
fn decimal(digits: &str) -> Option<Decimal> {
    Decimal::from_str_exact(digits).ok().or_else(|| {
        // Zeros at the end say nothing of the value.
        digits
            .contains('.')
            .then(|| digits.trim_end_matches('0'))
            .and_then(|digits| Decimal::from_str_exact(digits).ok())
    })
}

impl ToParam for Decimal {
    fn to_param(&self) -> Param<'_> {
        Param::Decimal(DecimalParam::new(self.mantissa(), self.scale()))
    }
}

impl FromText for Decimal {
    fn from_text(text: &str) -> Option<Self> {
        decimal(text)
    }
}

impl<'a> FromValue<'a> for Decimal {
    const EXPECTED: &'static str = "decimal number of up to 28 digits";

    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        match value {
            ValueRef::Decimal(digits) => decimal(digits),
            ValueRef::Int(value) => Some(value.into()),
            _ => None,
        }
    }
}

crate::param::arrays_of!(Decimal);
crate::row::vectors_of!(Decimal);
