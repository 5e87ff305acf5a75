//! Which parameter stands at which place.
//!
//! SQLite numbers `$1` by where it appears first, not by its digits: in `SELECT $2, $1` the engine's parameter 1 is
//! `$2`. So each place is looked up by its name.

/// The position (counted from 0) of the parameter that belongs at a place with this name.
pub(super) fn position(name: Option<&str>) -> Result<usize, String> {
    let number = name.and_then(|name| name.strip_prefix('$'));
    match number.map(str::parse::<usize>) {
        Some(Ok(number @ 1..)) => Ok(number - 1),
        _ => Err(match name {
            Some(cast) if cast.contains("::") => {
                format!("{cast} is PostgreSQL's cast; write CAST($1 AS …)")
            }
            Some(name) => format!("placeholders are $1, $2, …, not {name}"),
            None => "placeholders are $1, $2, …, not ?".into(),
        }),
    }
}

/// Checks that the statement's highest placeholder is the last parameter.
pub(super) fn check(highest: usize, given: usize) -> Result<(), String> {
    match highest == given {
        true => Ok(()),
        false => Err(format!("the statement takes {highest} parameters and was given {given}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_dollars_are_placeholders() {
        assert_eq!(position(Some("$1")), Ok(0));
        assert_eq!(position(Some("$12")), Ok(11));
        for name in
            [None, Some("$0"), Some("?1"), Some(":id"), Some("@id"), Some("$id"), Some("$1::int")]
        {
            assert!(position(name).is_err(), "{name:?}");
        }
        assert!(position(Some("$1::int")).is_err_and(|fault| fault.contains("CAST")));
    }
}
