//! What a statement leaves behind in a session for the next who uses it.
//!
//! Two signs, both free. The command tag tells what the server really did, also inside a batch. Where the tag tells too
//! little (a temporary table has the tag of any other, a function call that of a SELECT) the text is searched for the
//! few words without which it cannot be done. A false alarm costs a round trip off the caller's path.
//!
//! What neither sees is what a function of the user's own does inside: one that calls `set_config(…, false)` or takes a
//! session-level advisory lock. For such a schema there is `session_reset=always`.

/// What a command leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    None,
    /// Something in the session that a reset undoes.
    Session,
    /// The prepared statements are not what the driver takes them for.
    Statements,
}

/// What the tag of a command tells.
pub(super) fn judge(tag: &[u8]) -> Trace {
    const SESSION: [&[u8]; 8] =
        [b"SET", b"RESET", b"LISTEN", b"UNLISTEN", b"DECLARE CURSOR", b"LOAD", b"DO", b"CALL"];
    const STATEMENTS: [&[u8]; 4] = [b"PREPARE", b"DEALLOCATE", b"DEALLOCATE ALL", b"DISCARD ALL"];
    if SESSION.contains(&tag) {
        Trace::Session
    } else if STATEMENTS.contains(&tag) {
        Trace::Statements
    } else {
        Trace::None
    }
}

/// Whether the text of a statement gives reason to reset the session after it.
pub(super) fn is_suspicious(sql: &str) -> bool {
    let has = |word: &str| contains(sql.as_bytes(), word.as_bytes());
    has("set_config") || has("pg_advisory_") || has("pg_try_advisory_") || {
        // A temporary table, view or sequence: it lives in pg_temp.
        has("temp") && (has("create") || has("into"))
    }
}

/// Whether a statement is of the kind that is run once and not worth preparing.
pub(super) fn is_utility(sql: &str) -> bool {
    let word = first_word(sql);
    !word.is_empty()
        && !["select", "insert", "update", "delete", "with", "values", "table", "merge"]
            .iter()
            .any(|planned| word.eq_ignore_ascii_case(planned))
}

/// Whether a statement changes the session for whoever has it next.
pub(super) fn outlasts(sql: &str) -> bool {
    let word = first_word(sql);
    let is = |other: &str| word.eq_ignore_ascii_case(other);
    if is("set") {
        let rest = sql.split_once(word).map_or("", |(_, rest)| rest);
        return !first_word(rest).eq_ignore_ascii_case("local");
    }
    let has = |word: &str| contains(sql.as_bytes(), word.as_bytes());
    (is("create") && has("temp") && !has("on commit drop"))
        || ["reset", "listen", "unlisten", "load", "prepare", "deallocate", "discard"]
            .into_iter()
            .any(is)
}

/// Whether a statement changes no rows by itself, as far as its first word tells.
pub(super) fn only_reads(sql: &str) -> bool {
    let word = first_word(sql);
    ["select", "values", "table"].iter().any(|reads| word.eq_ignore_ascii_case(reads))
}

/// Whether a statement is a COPY from or to the client, which answers no rows but a stream.
pub(super) fn is_copy(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("copy") && has_copy(sql)
}

/// Whether there may be such a COPY among several statements.
pub(super) fn has_copy(sql: &str) -> bool {
    let has = |word: &str| contains(sql.as_bytes(), word.as_bytes());
    has("copy") && (has("stdin") || has("stdout"))
}

/// The first word behind spaces and comments; empty when it begins with something else.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            // They nest, so this one is left to the server.
            return "";
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// Whether a text holds a word, in either case.
fn contains(text: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else { return true };
    let (lower, upper) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
    text.len() >= word.len()
        && (0..=text.len() - word.len()).any(|at| {
            (text[at] == lower || text[at] == upper)
                && text[at..at + word.len()].eq_ignore_ascii_case(word)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_what_is_left() {
        for tag in ["SET", "LISTEN", "DECLARE CURSOR", "DO"] {
            assert_eq!(judge(tag.as_bytes()), Trace::Session, "{tag}");
        }
        for tag in ["DEALLOCATE ALL", "DISCARD ALL", "PREPARE"] {
            assert_eq!(judge(tag.as_bytes()), Trace::Statements, "{tag}");
        }
        for tag in ["INSERT 0 1", "SELECT 7", "BEGIN", "SAVEPOINT", "CREATE TABLE", "DISCARD TEMP"]
        {
            assert_eq!(judge(tag.as_bytes()), Trace::None, "{tag}");
        }
    }

    #[test]
    fn texts_tell_the_rest() {
        for sql in [
            "SELECT SET_CONFIG('a.b', 'c', false)",
            "create temp table t (n int)",
            "SELECT 1 INTO TEMPORARY t",
            "SELECT pg_try_advisory_lock(1)",
        ] {
            assert!(is_suspicious(sql), "{sql}");
        }
        for sql in ["SELECT temperature FROM room", "CREATE TABLE t (n int)", ""] {
            assert!(!is_suspicious(sql), "{sql}");
        }
    }

    #[test]
    fn what_outlasts_a_transaction_is_told_by_its_first_words() {
        for sql in
            ["SET a.b = 1", "set session characteristics as transaction read only", "Listen x"]
        {
            assert!(outlasts(sql), "{sql}");
        }
        for sql in ["SET LOCAL a.b = 1", "set local x = 2", "SELECT 1", "VACUUM", "settle"] {
            assert!(!outlasts(sql), "{sql}");
        }
    }

    #[test]
    fn utilities_are_told_from_what_is_planned() {
        for sql in ["SAVEPOINT a", " -- now\n begin", "CREATE TABLE t (n int)", "Show all"] {
            assert!(is_utility(sql), "{sql}");
        }
        for sql in ["select 1", "WITH a AS (SELECT 1) SELECT 1", "/* x */ BEGIN", "(SELECT 1)", ""]
        {
            assert!(!is_utility(sql), "{sql}");
        }
    }
}
