//! Parameters, encoded by the type the server declared for the placeholder.
//!
//! The driver's own rule is that the Rust type must be the declared one, so that a bare `7` against `bigint` or a text
//! against `uuid` is refused. Here whole numbers widen and narrow where they fit, and text is sent as text, for the server
//! to read as whatever it declared. What would change a value silently is refused: a number or a boolean for a text, text
//! for `bytea`.

use std::error::Error as StdError;
use std::fmt;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type};

use crate::ArrayParam;
use crate::Param;
use crate::param::{DAYS_TO_2000, MICROS_TO_2000, write_text};

/// A parameter on its way to the server. `Debug`, which the driver writes to its log, shows no value.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a>(pub(super) Param<'a>);

impl fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a value travels.
#[derive(Clone, Copy)]
enum Form<'a> {
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Oid(u32),
    Float4(f32),
    Float8(f64),
    Bytes(&'a [u8]),
    Uuid([u8; 16]),
    Text(&'a str),
    /// In digits, or as an array.
    Written(Param<'a>),
}

/// The declared type behind any domains.
pub(super) fn base(declared: &Type) -> &Type {
    let mut declared = declared;
    while let Kind::Domain(inner) = declared.kind() {
        declared = inner;
    }
    declared
}

fn is_text(declared: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN, Type::XML]
        .contains(declared)
}

/// The form of a value for a declared type, or why there is none.
fn form<'a>(param: Param<'a>, declared: &Type) -> Result<Form<'a>, Refusal> {
    let declared = base(declared);
    let refuse = |hint: &'static str| Refusal {
        found: param.kind(),
        declared: declared.name().to_owned(),
        hint,
    };
    let narrow = "it does not fit";
    Ok(match param {
        Param::Null => Form::Null,
        Param::Bool(value) if *declared == Type::BOOL => Form::Bool(value),
        Param::Int(value) => match *declared {
            Type::INT8 => Form::Int8(value),
            Type::INT4 => Form::Int4(value.try_into().map_err(|_| refuse(narrow))?),
            Type::INT2 => Form::Int2(value.try_into().map_err(|_| refuse(narrow))?),
            Type::OID => Form::Oid(value.try_into().map_err(|_| refuse(narrow))?),
            Type::FLOAT8 | Type::FLOAT4 | Type::NUMERIC | Type::MONEY => Form::Written(param),
            _ => return Err(refuse("give it as text, or cast the placeholder: $1::bigint")),
        },
        Param::Float(value) => match *declared {
            Type::FLOAT8 => Form::Float8(value),
            // The nearest one, as the engine itself would store it.
            Type::FLOAT4 => Form::Float4(value as f32),
            Type::NUMERIC => Form::Written(param),
            _ => return Err(refuse("cast the placeholder: $1::double precision")),
        },
        Param::Text(_) if *declared == Type::BYTEA => return Err(refuse("give it as bytes")),
        Param::Text(value) => Form::Text(value),
        Param::Bytes(value) if *declared == Type::BYTEA => Form::Bytes(value),
        Param::Bytes(value) if *declared == Type::UUID && value.len() == 16 => Form::Bytes(value),
        Param::Decimal(_) if *declared == Type::NUMERIC => Form::Written(param),
        Param::Uuid(value) if *declared == Type::UUID => Form::Uuid(value),
        Param::Date(days) if *declared == Type::DATE => {
            Form::Int4(days.checked_sub(DAYS_TO_2000).ok_or_else(|| refuse(narrow))?)
        }
        Param::Time(micros) if *declared == Type::TIME => Form::Int8(micros),
        Param::Timestamp(micros) if *declared == Type::TIMESTAMP => {
            Form::Int8(micros.checked_sub(MICROS_TO_2000).ok_or_else(|| refuse(narrow))?)
        }
        Param::TimestampTz(micros) if *declared == Type::TIMESTAMPTZ => {
            Form::Int8(micros.checked_sub(MICROS_TO_2000).ok_or_else(|| refuse(narrow))?)
        }
        Param::Array(values) => match declared.kind() {
            Kind::Array(element) => {
                elements(values, element)?;
                Form::Written(param)
            }
            _ => return Err(refuse("cast the placeholder, such as $1::text[]")),
        },
        Param::Decimal(_) => return Err(refuse("cast the placeholder: $1::numeric")),
        Param::Uuid(_) => return Err(refuse("cast the placeholder: $1::uuid")),
        Param::Date(_) => return Err(refuse("cast the placeholder: $1::date")),
        Param::Time(_) => return Err(refuse("cast the placeholder: $1::time")),
        // The server would take the zone of the session, or leave it out.
        Param::Timestamp(_) => return Err(refuse("cast the placeholder: $1::timestamp")),
        Param::TimestampTz(_) => return Err(refuse("cast the placeholder: $1::timestamptz")),
        Param::Bool(_) if is_text(declared) => {
            return Err(refuse("give it as text, or cast the placeholder: $1::boolean"));
        }
        Param::Bool(_) => return Err(refuse("cast the placeholder: $1::boolean")),
        Param::Bytes(_) => return Err(refuse("cast the placeholder: $1::bytea")),
    })
}

/// Whether each value of an array is of its type.
fn elements(values: &dyn ArrayParam, declared: &Type) -> Result<(), Refusal> {
    for value in values.values() {
        match value {
            // Arrays of arrays have the type of their elements.
            Param::Array(inner) => elements(inner, declared)?,
            value => drop(form(value, declared)?),
        }
    }
    Ok(())
}

/// A parameter that is not of the declared type.
#[derive(Debug)]
pub(super) struct Refusal {
    found: &'static str,
    declared: String,
    hint: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is {}, the statement wants {}; {}", self.found, self.declared, self.hint)
    }
}

impl StdError for Refusal {}

/// Whether the parameters are what the statement wants, before anything is sent.
pub(super) fn check<'a>(
    params: impl ExactSizeIterator<Item = Param<'a>>,
    declared: &[Type],
) -> Result<(), String> {
    if params.len() != declared.len() {
        return Err(format!(
            "the statement has {} parameters, {} were given",
            declared.len(),
            params.len()
        ));
    }
    for (place, (param, declared)) in params.zip(declared).enumerate() {
        form(param, declared).map_err(|refusal| format!("parameter ${} {refusal}", place + 1))?;
    }
    Ok(())
}

impl ToSql for Encoded<'_> {
    fn to_sql(
        &self,
        declared: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match form(self.0, declared)? {
            Form::Null => return Ok(IsNull::Yes),
            Form::Bool(value) => out.extend_from_slice(&[u8::from(value)]),
            Form::Int2(value) => out.extend_from_slice(&value.to_be_bytes()),
            Form::Int4(value) => out.extend_from_slice(&value.to_be_bytes()),
            Form::Int8(value) => out.extend_from_slice(&value.to_be_bytes()),
            Form::Oid(value) => out.extend_from_slice(&value.to_be_bytes()),
            Form::Float4(value) => out.extend_from_slice(&value.to_be_bytes()),
            Form::Float8(value) => out.extend_from_slice(&value.to_be_bytes()),
            Form::Bytes(value) => out.extend_from_slice(value),
            Form::Text(value) => out.extend_from_slice(value.as_bytes()),
            Form::Uuid(value) => out.extend_from_slice(&value),
            Form::Written(param) => {
                let mut text = String::new();
                write_text(param, &mut text);
                out.extend_from_slice(text.as_bytes());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        declared: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.to_sql(declared, out)
    }

    fn encode_format(&self, declared: &Type) -> Format {
        match form(self.0, declared) {
            Ok(Form::Text(_) | Form::Written(_)) => Format::Text,
            _ => Format::Binary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(param: Param<'_>, declared: &Type) -> Result<(Vec<u8>, bool), String> {
        let mut out = BytesMut::new();
        let encoded = Encoded(param);
        let text = matches!(encoded.encode_format(declared), Format::Text);
        encoded
            .to_sql_checked(declared, &mut out)
            .map(|_| (out.to_vec(), text))
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn whole_numbers_take_the_declared_width() {
        assert_eq!(encode(Param::Int(7), &Type::INT8), Ok((7_i64.to_be_bytes().to_vec(), false)));
        assert_eq!(encode(Param::Int(7), &Type::INT4), Ok((vec![0, 0, 0, 7], false)));
        assert_eq!(encode(Param::Int(-2), &Type::INT2), Ok((vec![255, 254], false)));
        assert_eq!(encode(Param::Int(7), &Type::NUMERIC), Ok((b"7".to_vec(), true)));
        assert_eq!(encode(Param::Int(7), &Type::FLOAT8), Ok((b"7".to_vec(), true)));
        let refused = encode(Param::Int(70_000), &Type::INT2).expect_err("too wide");
        assert!(refused.contains("int2") && !refused.contains("70000"), "{refused}");
    }

    #[test]
    fn text_is_for_the_server_to_read_and_nothing_becomes_text_by_itself() {
        for declared in [Type::UUID, Type::JSONB, Type::TIMESTAMPTZ, Type::INT4_ARRAY, Type::TEXT] {
            assert_eq!(encode(Param::Text("x"), &declared), Ok((b"x".to_vec(), true)));
        }
        for param in [Param::Int(1), Param::Float(1.0), Param::Bool(true), Param::Bytes(b"x")] {
            let refused = encode(param, &Type::TEXT).expect_err("no text");
            assert!(refused.contains("wants text"), "{refused}");
        }
        assert!(encode(Param::Text("x"), &Type::BYTEA).is_err());
        assert!(encode(Param::Null, &Type::BYTEA).is_ok());
    }

    #[test]
    fn a_domain_is_what_it_is_made_of() {
        let domain = Type::new("cents".into(), 70_000, Kind::Domain(Type::INT4), "public".into());
        assert_eq!(encode(Param::Int(7), &domain), Ok((vec![0, 0, 0, 7], false)));
    }

    #[test]
    fn moments_and_the_like_are_only_what_they_are() {
        let moment = Param::TimestampTz(946_684_800_000_001);
        assert_eq!(encode(moment, &Type::TIMESTAMPTZ), Ok((1_i64.to_be_bytes().to_vec(), false)));
        for (param, declared) in [
            (moment, Type::TIMESTAMP),
            (Param::Timestamp(0), Type::TIMESTAMPTZ),
            (Param::Date(0), Type::TIMESTAMP),
            (Param::Uuid([0; 16]), Type::TEXT),
            (Param::Decimal(crate::DecimalParam::new(1, 1)), Type::FLOAT8),
            (Param::Timestamp(i64::MIN), Type::TIMESTAMP),
            (Param::Array(&vec![1_i64]), Type::INT8),
            (Param::Array(&vec![1_i64]), Type::TEXT_ARRAY),
            (Param::Array(&vec![70_000_i64]), Type::INT2_ARRAY),
        ] {
            let refused = encode(param, &declared).expect_err("another type");
            assert!(refused.starts_with("is "), "{refused}");
        }
        let list = vec![Some("a"), None];
        assert_eq!(
            encode(Param::Array(&list), &Type::TEXT_ARRAY),
            Ok((b"{\"a\",NULL}".to_vec(), true))
        );
        assert_eq!(encode(Param::Date(10_957), &Type::DATE), Ok((vec![0; 4], false)));
    }

    #[test]
    fn the_check_names_the_placeholder_and_no_value() {
        let params = [Param::Int(1), Param::Text("s3cr3t")];
        let refused = check(params.iter().copied(), &[Type::INT4, Type::BYTEA]).expect_err("text");
        assert!(refused.starts_with("parameter $2 is text") && !refused.contains("s3cr3t"));
        assert!(check(params.iter().copied(), &[Type::INT4]).is_err());
        assert_eq!(format!("{:?}", Encoded(params[1])), "text(6 bytes)");
    }
}
