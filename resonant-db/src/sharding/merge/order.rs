//! The order of two values, as the engines have it.

use std::cmp::Ordering;

use super::decimal::Decimal;
use crate::ValueRef;
use crate::sharding::catalogue::Kind;

/// Compares two values that are not NULL; `None` when their order is not known for certain.
///
/// Numbers compare by value, a float that is no number after all others, bytes byte by byte. Text compares only when it is
/// known what it stands for: the order of words is the engine's.
pub(super) fn compare(a: ValueRef<'_>, b: ValueRef<'_>, kind: Option<Kind>) -> Option<Ordering> {
    use ValueRef::{Bool, Bytes, Decimal as Digits, Float, Int, Text};
    Some(match (a, b) {
        (Int(a), Int(b)) => a.cmp(&b),
        (Bool(a), Bool(b)) => a.cmp(&b),
        (Bytes(a), Bytes(b)) => a.cmp(b),
        (Float(a), Float(b)) => match a.partial_cmp(&b) {
            Some(order) => order,
            None => a.is_nan().cmp(&b.is_nan()),
        },
        (Digits(a), Digits(b)) => Decimal::parse(a)?.compare(&Decimal::parse(b)?),
        (Text(a), Text(b)) => match kind? {
            Kind::Bytewise => a.cmp(b),
            Kind::Moment => moment(a)?.cmp(&moment(b)?),
            Kind::Exact => return None,
        },
        _ => return None,
    })
}

/// A date or a timestamp: what of it decides first, its year, the rest.
fn moment(text: &str) -> Option<(i8, i64, &str)> {
    match text {
        "infinity" => return Some((1, 0, "")),
        "-infinity" => return Some((-1, 0, "")),
        _ => {}
    }
    let (text, before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (year, rest) = text.split_once('-')?;
    let year: i64 = year.parse().ok()?;
    // Without the zone, which is the same for all, a shorter fraction is the smaller one.
    Some((0, if before_christ { 1 - year } else { year }, rest.trim_end_matches('Z')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_the_order_of_time() {
        let sorted = [
            "-infinity",
            "0044-03-15T00:00:00Z BC",
            "0001-01-01T00:00:00Z BC",
            "0001-01-01T00:00:00Z",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.5Z",
            "2026-01-02T03:04:06Z",
            "10000-01-01T00:00:00Z",
            "infinity",
        ];
        for pair in sorted.windows(2) {
            let order = |a: &str, b: &str| {
                compare(ValueRef::Text(a), ValueRef::Text(b), Some(Kind::Moment))
            };
            assert_eq!(order(pair[0], pair[1]), Some(Ordering::Less), "{pair:?}");
            assert_eq!(order(pair[1], pair[0]), Some(Ordering::Greater), "{pair:?}");
        }
    }

    #[test]
    fn words_are_compared_where_their_order_is_known_alone() {
        let (a, b) = (ValueRef::Text("a"), ValueRef::Text("B"));
        assert_eq!(compare(a, b, None), None);
        assert_eq!(compare(a, b, Some(Kind::Exact)), None);
        assert_eq!(compare(a, b, Some(Kind::Bytewise)), Some(Ordering::Greater));
        assert_eq!(compare(ValueRef::Int(1), ValueRef::Float(1.5), None), None);
        let (nan, one) = (ValueRef::Float(f64::NAN), ValueRef::Float(1.0));
        assert_eq!(compare(nan, one, None), Some(Ordering::Greater));
        assert_eq!(compare(nan, nan, None), Some(Ordering::Equal));
        assert_eq!(
            compare(ValueRef::Float(-0.0), ValueRef::Float(0.0), None),
            Some(Ordering::Equal)
        );
    }
}
