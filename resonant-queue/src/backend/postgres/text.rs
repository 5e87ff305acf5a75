//! Arrays in PostgreSQL's text form: what a parameter of an array type is given as.

use std::fmt::Write;

/// `{"a","b \" c",NULL}`
pub(super) fn texts<'a>(items: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut out = String::from("{");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        let Some(item) = item else {
            out.push_str("NULL");
            continue;
        };
        out.push('"');
        let mut rest = item;
        while let Some(at) = rest.find(['"', '\\']) {
            out.push_str(&rest[..at]);
            out.push('\\');
            out.push_str(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        out.push_str(rest);
        out.push('"');
    }
    out.push('}');
    out
}

/// `{1,2,NULL}`
pub(super) fn numbers(items: impl Iterator<Item = Option<i64>>) -> String {
    let mut out = String::from("{");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        match item {
            // Writing to text does not fail.
            Some(number) => drop(write!(out, "{number}")),
            None => out.push_str("NULL"),
        }
    }
    out.push('}');
    out
}

/// A count or a sequence as the database has it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_quoted() {
        let items = [Some("a"), None, Some(r#"{"k":"\n"}"#), Some(""), Some("NULL"), Some("ü,}")];
        let expected = r#"{"a",NULL,"{\"k\":\"\\n\"}","","NULL","ü,}"}"#;
        assert_eq!(texts(items.into_iter()), expected);
        assert_eq!(texts(std::iter::empty()), "{}");
        assert_eq!(numbers([Some(1), None, Some(-3)].into_iter()), "{1,NULL,-3}");
    }
}
