//! Parameters as text, in the notation of PostgreSQL.

use std::fmt::Write as _;

use crate::calendar;

use super::Param;

/// From 1970-01-01, where parameters count from, to 2000-01-01.
pub(crate) const DAYS_TO_2000: i32 = 10_957;
pub(crate) const MICROS_TO_2000: i64 = DAYS_TO_2000 as i64 * 86_400_000_000;

/// Writes a value as a server reads it; nothing for NULL.
pub(crate) fn write_text(param: Param<'_>, out: &mut String) {
    match param {
        Param::Null => {}
        Param::Bool(value) => out.push(if value { 't' } else { 'f' }),
        Param::Int(value) => put(out, value),
        Param::Float(value) => number(value, out),
        Param::Text(text) => out.push_str(text),
        Param::Bytes(bytes) => {
            out.push_str("\\x");
            hex(bytes, out);
        }
        Param::Decimal(value) => put(out, value),
        Param::Uuid(bytes) => {
            let mut rest = bytes.as_slice();
            for (place, count) in [4, 2, 2, 2, 6].into_iter().enumerate() {
                let (group, others) = rest.split_at(count);
                if place > 0 {
                    out.push('-');
                }
                hex(group, out);
                rest = others;
            }
        }
        Param::Date(days) => calendar::date(days.saturating_sub(DAYS_TO_2000), out),
        Param::Time(micros) => calendar::time(micros, out),
        Param::Timestamp(micros) => {
            calendar::timestamp(micros.saturating_sub(MICROS_TO_2000), "", out);
        }
        Param::TimestampTz(micros) => {
            calendar::timestamp(micros.saturating_sub(MICROS_TO_2000), "Z", out);
        }
        Param::Array(values) => {
            out.push('{');
            for (place, value) in values.values().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                element(value, out);
            }
            out.push('}');
        }
    }
}

fn element(value: Param<'_>, out: &mut String) {
    match value {
        Param::Null => out.push_str("NULL"),
        Param::Text(_) | Param::Bytes(_) => {
            let mut text = String::new();
            write_text(value, &mut text);
            out.push('"');
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
        Param::Timestamp(_) | Param::TimestampTz(_) | Param::Date(_) => {
            // Those before the first year have a blank in them.
            out.push('"');
            write_text(value, out);
            out.push('"');
        }
        other => write_text(other, out),
    }
}

/// The shortest digits that are this number.
fn number(value: f64, out: &mut String) {
    match value {
        value if value.is_nan() => out.push_str("NaN"),
        f64::INFINITY => out.push_str("Infinity"),
        f64::NEG_INFINITY => out.push_str("-Infinity"),
        value => {
            let _ = write!(out, "{value:e}");
        }
    }
}

fn put(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecimalParam, ToParam};

    fn text(param: Param<'_>) -> String {
        let mut out = String::new();
        write_text(param, &mut out);
        out
    }

    #[test]
    fn every_kind_is_written_as_a_server_reads_it() {
        for (param, expected) in [
            (Param::Bool(true), "t"),
            (Param::Float(-2.5e300), "-2.5e300"),
            (Param::Float(f64::NEG_INFINITY), "-Infinity"),
            (Param::Bytes(&[0, 255]), "\\x00ff"),
            (Param::Decimal(DecimalParam::new(-5, 3)), "-0.005"),
            (Param::Uuid([0xA0; 16]), "a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0"),
            (Param::Date(0), "1970-01-01"),
            (Param::Time(1), "00:00:00.000001"),
            (Param::Timestamp(-1), "1969-12-31T23:59:59.999999"),
            (Param::TimestampTz(1_700_000_000_000_000), "2023-11-14T22:13:20Z"),
        ] {
            assert_eq!(text(param), expected);
        }
    }

    #[test]
    fn arrays_quote_what_has_to_be() {
        let texts = vec![Some("a"), None, Some("x,\"y\\"), Some("NULL"), Some("")];
        assert_eq!(text(texts.to_param()), r#"{"a",NULL,"x,\"y\\","NULL",""}"#);
        assert_eq!(text(vec![1_i64, -2].to_param()), "{1,-2}");
        assert_eq!(text(Vec::<i64>::new().to_param()), "{}");
        assert_eq!(vec![1_i64, 2].to_param(), vec![1_i32, 2].to_param());
        assert_ne!(vec![1_i64, 2].to_param(), vec![1_i64].to_param());
        assert_eq!(text(vec![vec![1_u8], vec![]].to_param()), r#"{"\\x01","\\x"}"#);
    }
}
