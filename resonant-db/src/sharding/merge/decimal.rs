//! Exact decimal numbers: what sums and averages of several shards are made of.

use std::cmp::Ordering;

/// A decimal number with the digits after its point that it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decimal {
    NegativeInfinity,
    Finite(Finite),
    Infinity,
    NotANumber,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finite {
    negative: bool,
    /// Most significant first, none in front that is 0; all digits after the point are among them.
    digits: Vec<u8>,
    scale: usize,
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self::Finite(Finite::new(number < 0, number.unsigned_abs().to_string().bytes(), 0))
    }
}

impl Decimal {
    /// Reads what a server writes: `-12.50`, `NaN`, `Infinity`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        match (digits, negative) {
            ("NaN", _) => return Some(Self::NotANumber),
            ("Infinity", false) => return Some(Self::Infinity),
            ("Infinity", true) => return Some(Self::NegativeInfinity),
            _ => {}
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = whole.bytes().chain(fraction.bytes());
        if digits.is_empty() || !all.clone().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self::Finite(Finite::new(negative, all, fraction.len())))
    }

    /// The sum, with as many digits after the point as the longer of both.
    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::NotANumber, _)
            | (_, Self::NotANumber)
            | (Self::Infinity, Self::NegativeInfinity)
            | (Self::NegativeInfinity, Self::Infinity) => Self::NotANumber,
            (Self::Infinity, _) | (_, Self::Infinity) => Self::Infinity,
            (Self::NegativeInfinity, _) | (_, Self::NegativeInfinity) => Self::NegativeInfinity,
            (Self::Finite(a), Self::Finite(b)) => Self::Finite(a.plus(&b)),
        }
    }

    /// The quotient by a count, with as many digits as PostgreSQL gives it: at least sixteen that count.
    pub(super) fn over(self, count: u64) -> Self {
        match self {
            Self::Finite(sum) if count > 0 => Self::Finite(sum.over(count)),
            other => other,
        }
    }

    /// The order of the server: what is no number comes last.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let rank = |of: &Self| match of {
            Self::NegativeInfinity => 0,
            Self::Finite(_) => 1,
            Self::Infinity => 2,
            Self::NotANumber => 3,
        };
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.compare(b),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finite { negative, digits, scale } = match self {
            Self::NotANumber => return f.write_str("NaN"),
            Self::Infinity => return f.write_str("Infinity"),
            Self::NegativeInfinity => return f.write_str("-Infinity"),
            Self::Finite(finite) => finite,
        };
        if *negative {
            f.write_str("-")?;
        }
        let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let text = format!("{text:0>width$}", width = scale + 1);
        let (whole, fraction) = text.split_at(text.len() - scale);
        f.write_str(whole)?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl Finite {
    fn new(negative: bool, digits: impl Iterator<Item = u8>, scale: usize) -> Self {
        let digits = digits.map(|digit| digit - b'0').skip_while(|digit| *digit == 0);
        let digits: Vec<u8> = digits.collect();
        Self { negative: negative && !digits.is_empty(), digits, scale }
    }

    /// The digits with at least this many after the point.
    fn scaled(&self, scale: usize) -> Vec<u8> {
        let mut digits = self.digits.clone();
        if !digits.is_empty() {
            digits.resize(digits.len() + scale.saturating_sub(self.scale), 0);
        }
        digits
    }

    fn plus(&self, other: &Self) -> Self {
        let scale = self.scale.max(other.scale);
        let (a, b) = (self.scaled(scale), other.scaled(scale));
        if self.negative == other.negative {
            return Self { negative: self.negative, digits: added(&a, &b), scale };
        }
        let (negative, digits) = match magnitude(&a, &b) {
            Ordering::Less => (other.negative, less(&b, &a)),
            Ordering::Equal => (false, Vec::new()),
            Ordering::Greater => (self.negative, less(&a, &b)),
        };
        Self { negative, digits, scale }
    }

    fn over(&self, count: u64) -> Self {
        let scale = self.quotient_scale(count);
        let (mut quotient, mut rest) = (Vec::new(), 0_u128);
        let count = u128::from(count);
        for digit in self.scaled(scale) {
            rest = rest * 10 + u128::from(digit);
            // A digit of a quotient is below ten.
            quotient.push((rest / count) as u8);
            rest %= count;
        }
        let rounded = if rest * 2 >= count { added(&quotient, &[1]) } else { quotient };
        Self::new(self.negative, rounded.into_iter().map(|digit| digit + b'0'), scale)
    }

    /// The digits after the point of a quotient: sixteen that count, reckoned in groups of four, and never fewer than
    /// there were.
    fn quotient_scale(&self, count: u64) -> usize {
        let (weight, first) = self.leading_group();
        let Self { digits, .. } = Self::new(false, count.to_string().bytes(), 0);
        let by = Self { negative: false, digits, scale: 0 };
        let (by_weight, by_first) = by.leading_group();
        let quotient_weight = weight - by_weight - i64::from(first <= by_first);
        let wanted = (16 - quotient_weight * 4).clamp(0, 1000);
        usize::try_from(wanted).unwrap_or(0).max(self.scale).min(1000)
    }

    /// Of the groups of four digits counted from the point, the place and value of the first that is not 0.
    fn leading_group(&self) -> (i64, u32) {
        let whole = self.digits.len() as i64 - self.scale as i64;
        if self.digits.is_empty() {
            return (0, 0);
        }
        // The first digit stands `whole` digits before the point; below 1 it is behind it.
        let weight = (whole - 1).div_euclid(4);
        let in_group = (whole - 1).rem_euclid(4) + 1;
        let digit = |at: i64| {
            usize::try_from(at).ok().and_then(|at| self.digits.get(at)).copied().unwrap_or(0)
        };
        let value = (0..in_group).fold(0, |value, at| value * 10 + u32::from(digit(at)));
        (weight, value)
    }

    fn compare(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        let order = magnitude(&self.scaled(scale), &other.scaled(scale));
        match (self.negative, other.negative) {
            (false, false) => order,
            (true, true) => order.reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

fn magnitude(a: &[u8], b: &[u8]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn added(a: &[u8], b: &[u8]) -> Vec<u8> {
    let (mut sum, mut carry) = (Vec::with_capacity(a.len().max(b.len()) + 1), 0);
    let (mut a, mut b) = (a.iter().rev(), b.iter().rev());
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() && carry == 0 {
            break;
        }
        let digit = x.copied().unwrap_or(0) + y.copied().unwrap_or(0) + carry;
        sum.push(digit % 10);
        carry = digit / 10;
    }
    sum.reverse();
    sum
}

/// `a` less `b`, which is smaller.
fn less(a: &[u8], b: &[u8]) -> Vec<u8> {
    let (mut difference, mut borrow) = (Vec::with_capacity(a.len()), 0);
    let mut b = b.iter().rev();
    for x in a.iter().rev() {
        let y = b.next().copied().unwrap_or(0) + borrow;
        borrow = u8::from(*x < y);
        difference.push(x + 10 * borrow - y);
    }
    while difference.last() == Some(&0) {
        difference.pop();
    }
    difference.reverse();
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).expect("a number")
    }

    #[test]
    fn sums_are_exact_and_keep_the_longer_fraction() {
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("1.50", "-1.5", "0.00"),
            ("-1", "0.999", "-0.001"),
            ("99999999999999999999", "1", "100000000000000000000"),
            ("1000", "-1", "999"),
            ("-0.05", "-0.95", "-1.00"),
            ("NaN", "1", "NaN"),
            ("Infinity", "-Infinity", "NaN"),
            ("-Infinity", "5", "-Infinity"),
        ] {
            assert_eq!(decimal(a).plus(decimal(b)).to_string(), sum, "{a} + {b}");
            assert_eq!(decimal(b).plus(decimal(a)).to_string(), sum, "{b} + {a}");
        }
        assert!(Decimal::parse("1e5").is_none() && Decimal::parse("").is_none());
    }

    #[test]
    fn order_is_that_of_the_numbers() {
        let sorted =
            ["-Infinity", "-10", "-9.5", "0", "0.001", "0.01", "2", "10", "Infinity", "NaN"];
        for pair in sorted.windows(2) {
            assert_eq!(decimal(pair[0]).compare(&decimal(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert_eq!(decimal("1.50").compare(&decimal("1.5")), Ordering::Equal);
    }

    /// Quotients as PostgreSQL 15 answers them.
    #[test]
    fn quotients_have_the_digits_of_the_server() {
        for (sum, count, quotient) in [
            ("10", 4, "2.5000000000000000"),
            ("1", 3, "0.33333333333333333333"),
            ("0", 3, "0.00000000000000000000"),
            ("-2", 3, "-0.66666666666666666667"),
        ] {
            assert_eq!(decimal(sum).over(count).to_string(), quotient, "{sum} / {count}");
        }
    }
}
