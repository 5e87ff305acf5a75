//! Values made of values, in the server's own notation: `{1,NULL,"a b"}`, `[1,5)`, `(7,"a,b",)`.

use tokio_postgres::types::Type;

use super::{Bytes, Fault, render};

/// The deepest an array may be nested, which is also the server's limit.
const MOST_DIMENSIONS: usize = 6;
const NOT_AN_ARRAY: Fault = "it has more dimensions than an array can";
const UNKNOWN_FIELD: Fault =
    "it has a field of a type that is not built in; name its fields in the statement";

/// An array of one or more dimensions.
pub(super) fn array(element: &Type, bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    let dimensions = usize::try_from(bytes.i32()?).map_err(|_| NOT_AN_ARRAY)?;
    if dimensions > MOST_DIMENSIONS {
        return Err(NOT_AN_ARRAY);
    }
    // Whether there are NULLs, and the type of the elements, which is known.
    bytes.take(8)?;
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lengths.push(bytes.u32()?);
        bytes.take(4)?; // where counting begins
    }
    match lengths.as_slice() {
        [] => out.push_str("{}"),
        lengths => elements(element, lengths, bytes, out)?,
    }
    Ok(())
}

fn elements(
    element: &Type,
    lengths: &[u32],
    bytes: &mut Bytes<'_>,
    out: &mut String,
) -> Result<(), Fault> {
    let Some((length, inner)) = lengths.split_first() else { return Ok(()) };
    out.push('{');
    for at in 0..*length {
        if at > 0 {
            out.push(',');
        }
        if !inner.is_empty() {
            elements(element, inner, bytes, out)?;
            continue;
        }
        match bytes.value()? {
            None => out.push_str("NULL"),
            Some(raw) => quoted(element, raw, out, |text| {
                text.is_empty()
                    || text.eq_ignore_ascii_case("null")
                    || text.contains(|c: char| "{},\"\\".contains(c) || c.is_ascii_whitespace())
            })?,
        }
    }
    out.push('}');
    Ok(())
}

/// A range, or empty.
pub(super) fn range(element: &Type, bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    const EMPTY: u8 = 1;
    const LOWER_INCLUSIVE: u8 = 2;
    const UPPER_INCLUSIVE: u8 = 4;
    const LOWER_INFINITE: u8 = 8;
    const UPPER_INFINITE: u8 = 16;
    let flags = bytes.u8()?;
    if flags & EMPTY != 0 {
        out.push_str("empty");
        return Ok(());
    }
    out.push(if flags & LOWER_INCLUSIVE == 0 { '(' } else { '[' });
    if flags & LOWER_INFINITE == 0 {
        bound(element, bytes, out)?;
    }
    out.push(',');
    if flags & UPPER_INFINITE == 0 {
        bound(element, bytes, out)?;
    }
    out.push(if flags & UPPER_INCLUSIVE == 0 { ')' } else { ']' });
    Ok(())
}

fn bound(element: &Type, bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    match bytes.value()? {
        Some(raw) => quoted(element, raw, out, is_special_in_row),
        None => Ok(()),
    }
}

/// A row: each field says its type, which must be built in for it to be known here.
pub(super) fn composite(bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Fault> {
    let count = bytes.i32()?;
    out.push('(');
    for at in 0..count {
        if at > 0 {
            out.push(',');
        }
        let declared = bytes.u32()?;
        if let Some(raw) = bytes.value()? {
            let declared = Type::from_oid(declared).ok_or(UNKNOWN_FIELD)?;
            quoted(&declared, raw, out, is_special_in_row)?;
        }
    }
    out.push(')');
    Ok(())
}

fn is_special_in_row(text: &str) -> bool {
    text.is_empty() || text.contains(|c: char| "(),[]\"\\".contains(c) || c.is_ascii_whitespace())
}

/// Writes a part, in quotes where the notation needs them.
fn quoted(
    declared: &Type,
    raw: &[u8],
    out: &mut String,
    is_special: impl FnOnce(&str) -> bool,
) -> Result<(), Fault> {
    let mut part = String::new();
    render(declared, raw, &mut part)?;
    if !is_special(&part) {
        out.push_str(&part);
        return Ok(());
    }
    out.push('"');
    for c in part.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(())
}
