//! Values in the server's binary form as text, for types that a row has no kind of its own for.
//!
//! The text is what the server itself reads back as the same value. Dates and times are in the form of RFC 3339, which
//! is what the usual crates read.

mod nested;
mod network;
mod numeric;

use std::fmt::Write as _;

use tokio_postgres::types::{Kind, Type};

use crate::calendar as time;

use self::numeric::numeric;
pub(super) use self::numeric::numeric_of;

use super::param::base;

/// Why a value cannot be shown.
pub(super) type Fault = &'static str;

const SHORT: Fault = "its bytes end too early";
pub(super) const NOT_UTF8: Fault = "its text is not UTF-8";
const NO_TEXT_FORM: Fault = "its type has no text form here; cast it to text in the statement";

/// Writes a value as text.
pub(super) fn render(declared: &Type, raw: &[u8], out: &mut String) -> Result<(), Fault> {
    let declared = base(declared);
    let mut bytes = Bytes(raw);
    match declared.kind() {
        Kind::Array(element) => return nested::array(element, &mut bytes, out),
        Kind::Range(element) => return nested::range(element, &mut bytes, out),
        Kind::Composite(_) => return nested::composite(&mut bytes, out),
        Kind::Enum(_) => return text(raw, out),
        _ => {}
    }
    match *declared {
        Type::BOOL => out.push(if bytes.u8()? == 0 { 'f' } else { 't' }),
        Type::INT2 => write(out, bytes.i16()?),
        Type::INT4 => write(out, bytes.i32()?),
        Type::INT8 | Type::XID8 => write(out, bytes.i64()?),
        Type::OID | Type::XID | Type::CID | Type::REGCLASS | Type::REGTYPE | Type::REGPROC => {
            write(out, bytes.u32()?);
        }
        Type::FLOAT4 => float(f64::from(f32::from_bits(bytes.u32()?)), out, |out| {
            write(out, f32::from_bits(u32::from_be_bytes(raw.try_into().map_err(|_| SHORT)?)));
            Ok(())
        })?,
        Type::FLOAT8 => {
            let value = f64::from_bits(bytes.u64()?);
            float(value, out, |out| {
                write(out, value);
                Ok(())
            })?;
        }
        Type::NUMERIC => numeric(&mut bytes, out)?,
        Type::UUID => uuid(&mut bytes, out)?,
        Type::JSONB | Type::JSONPATH => {
            // The first byte is the version of the form.
            bytes.u8()?;
            text(bytes.0, out)?;
        }
        Type::BYTEA => {
            out.push_str("\\x");
            hex(raw, out);
        }
        Type::DATE => time::date(bytes.i32()?, out),
        Type::TIME => time::time(bytes.i64()?, out),
        Type::TIMETZ => time::time_with_zone(bytes.i64()?, bytes.i32()?, out),
        Type::TIMESTAMP => time::timestamp(bytes.i64()?, "", out),
        Type::TIMESTAMPTZ => time::timestamp(bytes.i64()?, "Z", out),
        Type::INTERVAL => time::interval(bytes.i64()?, bytes.i32()?, bytes.i32()?, out),
        Type::INET | Type::CIDR => network::address(&mut bytes, *declared == Type::CIDR, out)?,
        Type::MACADDR | Type::MACADDR8 => network::hardware(raw, out),
        Type::BIT | Type::VARBIT => bits(&mut bytes, out)?,
        Type::PG_LSN => {
            let (high, low) = (bytes.u32()?, bytes.u32()?);
            let _ = write!(out, "{high:X}/{low:X}");
        }
        Type::CHAR => out.push(char::from(bytes.u8()?)),
        Type::VOID => {}
        Type::RECORD => nested::composite(&mut bytes, out)?,
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UNKNOWN
        | Type::JSON
        | Type::XML => text(raw, out)?,
        _ if declared.name() == "citext" => text(raw, out)?,
        _ => return Err(NO_TEXT_FORM),
    }
    Ok(())
}

fn write(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

fn text(raw: &[u8], out: &mut String) -> Result<(), Fault> {
    out.push_str(std::str::from_utf8(raw).map_err(|_| NOT_UTF8)?);
    Ok(())
}

fn float(
    value: f64,
    out: &mut String,
    finite: impl FnOnce(&mut String) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match value {
        value if value.is_nan() => out.push_str("NaN"),
        f64::INFINITY => out.push_str("Infinity"),
        f64::NEG_INFINITY => out.push_str("-Infinity"),
        _ => finite(out)?,
    }
    Ok(())
}

fn hex(raw: &[u8], out: &mut String) {
    for byte in raw {
        let _ = write!(out, "{byte:02x}");
    }
}

fn uuid(bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    for (at, len) in [4, 2, 2, 2, 6].into_iter().enumerate() {
        if at > 0 {
            out.push('-');
        }
        hex(bytes.take(len)?, out);
    }
    Ok(())
}

fn bits(bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    let count = usize::try_from(bytes.i32()?).map_err(|_| SHORT)?;
    let packed = bytes.take(count.div_ceil(8))?;
    out.extend(
        (0..count).map(|bit| if packed[bit / 8] >> (7 - bit % 8) & 1 == 1 { '1' } else { '0' }),
    );
    Ok(())
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    /// A value with its length in front; `None` for NULL.
    fn value(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_types_read_as_the_server_writes_them() -> Result<(), Fault> {
        let cases: &[(Type, &[u8], &str)] = &[
            (Type::BOOL, &[1], "t"),
            (Type::INT4, &[255, 255, 255, 254], "-2"),
            (Type::FLOAT4, &0.1_f32.to_be_bytes(), "0.1"),
            (Type::FLOAT8, &f64::INFINITY.to_be_bytes(), "Infinity"),
            (Type::JSONB, b"\x01{}", "{}"),
            (Type::BYTEA, &[0, 255], "\\x00ff"),
            (Type::PG_LSN, &[0, 0, 0, 1, 0, 0, 0, 0xAB], "1/AB"),
            (Type::VARBIT, &[0, 0, 0, 5, 0b1011_0000], "10110"),
            (
                Type::UUID,
                &[
                    0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd,
                    0x38, 0x0a, 0x11,
                ],
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            ),
        ];
        for (declared, raw, expected) in cases {
            let mut out = String::new();
            render(declared, raw, &mut out)?;
            assert_eq!(out, *expected);
        }
        assert!(render(&Type::TS_VECTOR, b"", &mut String::new()).is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            declared in proptest::sample::select(&[
                Type::BOOL, Type::INT4, Type::NUMERIC, Type::UUID, Type::JSONB, Type::DATE, Type::TIME, Type::TIMETZ,
                Type::TIMESTAMP, Type::TIMESTAMPTZ, Type::INTERVAL, Type::INET, Type::BIT, Type::INT4_ARRAY, Type::RECORD,
                Type::INT4_RANGE, Type::TEXT_ARRAY, Type::FLOAT4, Type::MACADDR,
            ][..]),
            raw in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = render(&declared, &raw, &mut String::new());
        }
    }
}
