//! Which statements may share a connection, as far as their text tells.
//!
//! The question is not what a statement does but whether it can be proven harmless: it only reads, calls nothing but
//! built-in functions of a list, touches nothing of the session and waits for nobody. Whatever this scanner does not
//! know is refused, which is always right. What text cannot tell (a view, a function or an operator of the user's own
//! behind an innocent name) the catalogue is asked about afterwards, by the names found here.

use super::words::{BEFORE_PARENTHESES, FIRST, FUNCTIONS, NEVER};

/// The longest statement that is looked at.
pub(super) const MAX_BYTES: usize = 16 << 10;

/// The words a statement names, in lower case and with commas between them; `None` when it is not plainly a read.
pub(super) fn names(sql: &str) -> Option<String> {
    if sql.len() > MAX_BYTES {
        return None;
    }
    let mut scanner = Scanner { sql, at: 0, last: Last::Nothing, names: String::new() };
    scanner.run()?;
    Some(scanner.names)
}

/// What stands before the present token.
#[derive(Clone, Copy, PartialEq)]
enum Last<'a> {
    Nothing,
    Word(&'a str),
    /// A word or a name behind a dot, or a name in quotes: never the name of a function that is known.
    Name,
    Dot,
    Other,
    End,
}

struct Scanner<'a> {
    sql: &'a str,
    at: usize,
    last: Last<'a>,
    names: String,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Option<()> {
        while let Some(byte) = self.peek(0) {
            if byte.is_ascii_whitespace() {
                self.at += 1;
                continue;
            }
            if self.comment()? {
                continue;
            }
            if self.last == Last::End || (self.last == Last::Nothing && !starts_word(byte)) {
                return None;
            }
            self.last = match byte {
                b'\'' => self.string()?,
                b'"' => self.quoted()?,
                b'$' => self.parameter()?,
                b'0'..=b'9' => self.number()?,
                b'.' => self.single(Last::Dot),
                b';' => self.single(Last::End),
                b'(' => self.open()?,
                b')' | b',' | b'[' | b']' => self.single(Last::Other),
                _ if OPERATORS.contains(&byte) => self.single(Last::Other),
                _ if starts_word(byte) => self.word()?,
                _ => return None,
            };
        }
        (!matches!(self.last, Last::Nothing)).then_some(())
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'a str {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn single(&mut self, last: Last<'a>) -> Last<'a> {
        self.at += 1;
        last
    }

    /// Moves past a comment, if there is one.
    fn comment(&mut self) -> Option<bool> {
        let rest = self.rest();
        if rest.starts_with("--") {
            self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            return Some(true);
        }
        let Some(inside) = rest.strip_prefix("/*") else { return Some(false) };
        let end = inside.find("*/")?;
        // They nest.
        if inside[..end].contains("/*") || inside[..end].ends_with('/') {
            return None;
        }
        self.at += end + 4;
        Some(true)
    }

    fn string(&mut self) -> Option<Last<'a>> {
        self.delimited(b'\'')?;
        Some(Last::Other)
    }

    fn quoted(&mut self) -> Option<Last<'a>> {
        let start = self.at + 1;
        self.delimited(b'"')?;
        let name = self.sql.get(start..self.at - 1)?;
        if name.contains(['"', ',']) {
            return None;
        }
        self.name(name, false)?;
        Some(Last::Name)
    }

    /// Moves past something between delimiters, in which a doubled one stands for itself. Right behind a word they mean
    /// something else, and so may a backslash.
    fn delimited(&mut self, delimiter: u8) -> Option<()> {
        let before = self.at.checked_sub(1).and_then(|at| self.sql.as_bytes().get(at));
        if before.is_some_and(|before| in_word(*before) || *before == b'&' || *before == delimiter)
        {
            return None;
        }
        self.at += 1;
        loop {
            match self.peek(0)? {
                b'\\' | 0 => return None,
                byte if byte != delimiter => self.at += 1,
                _ if self.peek(1) == Some(delimiter) => self.at += 2,
                _ => break,
            }
        }
        self.at += 1;
        Some(())
    }

    fn parameter(&mut self) -> Option<Last<'a>> {
        self.at += 1;
        let digits = self.digits();
        (digits > 0 && !self.peek(0).is_some_and(in_word)).then_some(Last::Other)
    }

    fn number(&mut self) -> Option<Last<'a>> {
        self.digits();
        if self.peek(0) == Some(b'.') {
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            self.at += 1 + usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return None;
            }
        }
        (!self.peek(0).is_some_and(in_word)).then_some(Last::Other)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn word(&mut self) -> Option<Last<'a>> {
        let rest = self.rest();
        let length = rest.bytes().take_while(|byte| in_word(*byte)).count();
        let word = &rest[..length];
        self.at += length;
        if self.last == Last::Nothing && !is_any(word, FIRST) {
            return None;
        }
        // How other letters fold depends on the server.
        if is_any(word, NEVER) || !word.is_ascii() {
            return None;
        }
        self.name(word, true)?;
        Some(if self.last == Last::Dot { Last::Name } else { Last::Word(word) })
    }

    fn open(&mut self) -> Option<Last<'a>> {
        let known = match self.last {
            Last::Word(word) => is_any(word, BEFORE_PARENTHESES) || is_any(word, FUNCTIONS),
            Last::Name | Last::Dot => false,
            _ => true,
        };
        self.at += 1;
        known.then_some(Last::Other)
    }

    /// Notes a name. What belongs to the server shows the state of the session, or of others.
    fn name(&mut self, name: &str, folds: bool) -> Option<()> {
        let start = self.names.len();
        if start > 0 {
            self.names.push(',');
        }
        let first = self.names.len();
        self.names.push_str(name);
        if folds {
            self.names[first..].make_ascii_lowercase();
        }
        let name = &self.names[first..];
        let theirs = ["pg_", "current_setting", "information_schema"];
        if name.is_empty() || theirs.iter().any(|theirs| name.starts_with(theirs)) {
            return None;
        }
        Some(())
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn in_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$' || !byte.is_ascii()
}

fn is_any(word: &str, list: &str) -> bool {
    list.split(' ').any(|known| word.eq_ignore_ascii_case(known))
}

const OPERATORS: &[u8] = b"+-*/<>=~!@#%^&|?:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_reads_are_known() {
        for sql in [
            "SELECT id, name FROM item WHERE id = $1",
            "-- name: by_id\nselect i.name, count(*) FROM item AS i JOIN org o ON (o.id = i.org) GROUP BY 1;",
            "WITH a AS (SELECT 1 AS n) SELECT * FROM a WHERE n IN (1, $2) AND b LIKE 'it''s' /* why */",
            "VALUES (1, 'a'), (2, 'b')",
            "TABLE item",
            "SELECT data->>'a', tags[1], x::numeric(10, 2), coalesce(y, 0) FROM \"Item\" ORDER BY 1 LIMIT 10",
            "SELECT now(), 1.5e3, -2, ARRAY[1, 2] && $1",
            "SELECT sum(n) OVER (PARTITION BY a ORDER BY b), EXISTS (SELECT 1) FROM t",
        ] {
            assert!(names(sql).is_some(), "{sql}");
        }
        assert_eq!(names("SELECT A.\"B c\" FROM a").as_deref(), Some("select,a,B c,from,a"));
    }

    #[test]
    fn whatever_is_not_known_is_refused() {
        for sql in [
            "",
            ";",
            "BEGIN",
            "(SELECT 1)",
            "SELECT 1; SELECT 2",
            "INSERT INTO t VALUES (1)",
            "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
            "WITH d AS (/**/delete from t returning *) SELECT * FROM d",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t FOR KEY SHARE",
            "SELECT 1 INTO TEMP x",
            "SELECT set_config('a.b', 'c', false)",
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_catalog.set_config('a.b', 'c', false)",
            "SELECT \"set_config\"('a.b', 'c', false)",
            "SELECT set_config /* */ ('a.b', 'c', false)",
            "SELECT nextval('s')",
            "SELECT currval('s')",
            "SELECT lastval()",
            "SELECT my_function(1)",
            "SELECT public.lower('A')",
            "SELECT pg_sleep(1)",
            "SELECT current_setting('a.b')",
            "SELECT * FROM pg_stat_activity",
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM \"pg_settings\"",
            "SELECT E'a\\'b'",
            "SELECT 'a\\'",
            "SELECT U&'a'",
            "SELECT $$a$$",
            "SELECT 1 /* a /* b */ */",
            "SELECT 1 /* a /*/",
            "SELECT $1x",
            "SELECT 1x",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT größe FROM t",
            "LISTEN x",
            "SET a.b = 1",
            "EXPLAIN ANALYZE DELETE FROM t",
            "SHOW all",
            "COPY t TO STDOUT",
            "FETCH 1 FROM c",
            "DECLARE c CURSOR FOR SELECT 1",
            "SELECT dblink('x', 'y')",
            "SELECT lo_create(0)",
            "SELECT * FROM t TABLESAMPLE mine (1)",
        ] {
            assert!(names(sql).is_none(), "{sql}");
        }
        assert!(names(&format!("SELECT {}1", " ".repeat(MAX_BYTES))).is_none());
    }
}
