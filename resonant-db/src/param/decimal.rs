//! Decimal numbers as parameters.

use std::fmt;

/// A decimal number: a whole number, divided by a power of ten. `Display` writes all its digits; `Debug` none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DecimalParam {
    /// In bytes, so that a parameter stays as small as a text.
    unscaled: [u8; 16],
    scale: u32,
}

impl DecimalParam {
    /// `unscaled` divided by ten to the power of `scale`.
    pub fn new(unscaled: i128, scale: u32) -> Self {
        Self { unscaled: unscaled.to_ne_bytes(), scale }
    }
}

impl fmt::Display for DecimalParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unscaled = i128::from_ne_bytes(self.unscaled);
        let sign = if unscaled < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

impl fmt::Debug for DecimalParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecimalParam")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_is_written() {
        for (unscaled, scale, expected) in [
            (1250, 2, "12.50"),
            (-5, 3, "-0.005"),
            (0, 0, "0"),
            (0, 2, "0.00"),
            (7, 0, "7"),
            (i128::MIN, 38, "-1.70141183460469231731687303715884105728"),
        ] {
            assert_eq!(DecimalParam::new(unscaled, scale).to_string(), expected);
        }
    }
}
