//! What a `COPY … FROM STDIN` says: into which columns, in which format.
//!
//! Only the form with options in parentheses is taken, and of these only such as leave no doubt about where a row ends.

use crate::sharding::key::KeyType;
use crate::sharding::refusal::{Checked, refuse};
use crate::sharding::schema::Schema;
use crate::sharding::sql::{Token, TokenKind, tokens};

/// A COPY that can be cut by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// Where the key stands among the columns, and how many there are.
    pub(super) key: usize,
    pub(super) width: usize,
    pub(super) key_type: KeyType,
    pub(super) format: Format,
    /// Whether the first row names the columns.
    pub(super) header: bool,
}

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    Text { delimiter: u8, null: Box<[u8]> },
    Csv { delimiter: u8, null: Box<[u8]>, quote: u8, escape: u8 },
    Binary,
}

struct Reader<'a> {
    sql: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

/// Reads the statement.
pub(super) fn read(sql: &str, schema: &Schema) -> Checked<Copy> {
    let mut reader = Reader { sql, tokens: tokens(sql)?.into_iter().peekable() };
    reader.word("copy")?;
    let mut table = reader.name()?;
    if reader.take(TokenKind::Dot) {
        table = format!("{table}.{}", reader.name()?);
    }
    let Some(declared) = schema.table(&table) else {
        let reason = format!("the table {table} is not declared with a key");
        return refuse(reason, "declare it, or copy on a shard by name");
    };
    let columns = reader.columns()?;
    let mut places = columns.iter().enumerate().filter(|(_, name)| **name == *declared.key);
    let (Some((key, _)), None) = (places.next(), places.next()) else {
        return refuse(
            format!("the columns of the COPY do not name {table}.{} once", declared.key),
            "list the columns, with the key among them",
        );
    };
    reader.word("from")?;
    reader.word("stdin")?;
    let (format, header) = reader.options()?;
    Ok(Copy { key, width: columns.len(), key_type: declared.key_type, format, header })
}

const FORM: &str = "write COPY table (columns) FROM STDIN WITH (FORMAT …, …)";

fn unknown<T>() -> Checked<T> {
    refuse("the statement is no COPY FROM STDIN in a form the router reads", FORM)
}

impl Reader<'_> {
    fn next(&mut self) -> Checked<(TokenKind, &str)> {
        match self.tokens.next() {
            Some(Token { kind, range }) => Ok((kind, self.sql.get(range).unwrap_or_default())),
            None => unknown(),
        }
    }

    fn take(&mut self, kind: TokenKind) -> bool {
        self.tokens.next_if(|token| token.kind == kind).is_some()
    }

    fn is(&mut self, word: &str) -> bool {
        let sql = self.sql;
        let same = |token: &Token| {
            token.kind == TokenKind::Word
                && sql.get(token.range.clone()).is_some_and(|text| text.eq_ignore_ascii_case(word))
        };
        self.tokens.next_if(same).is_some()
    }

    fn word(&mut self, word: &str) -> Checked {
        if self.is(word) { Ok(()) } else { unknown() }
    }

    /// A name as the engine folds it.
    fn name(&mut self) -> Checked<String> {
        match self.next()? {
            (TokenKind::Word, name) => Ok(name.to_ascii_lowercase()),
            (TokenKind::Quoted, name) => {
                let name = name.trim_matches('"');
                match name.contains('"') {
                    false => Ok(name.to_owned()),
                    true => refuse("a name holds a quotation mark", "rename it"),
                }
            }
            _ => unknown(),
        }
    }

    fn columns(&mut self) -> Checked<Vec<String>> {
        let mut columns = Vec::new();
        if !self.take(TokenKind::Open) {
            return refuse("the COPY does not list its columns", FORM);
        }
        loop {
            columns.push(self.name()?);
            if self.take(TokenKind::Close) {
                return Ok(columns);
            }
            if !self.take(TokenKind::Comma) {
                return unknown();
            }
        }
    }

    /// The text of a string, with doubled quotes made one.
    fn string(&mut self) -> Checked<String> {
        match self.next()? {
            (TokenKind::String, text) => {
                let inside = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                Ok(inside.unwrap_or_default().replace("''", "'"))
            }
            _ => unknown(),
        }
    }

    fn byte(&mut self) -> Checked<u8> {
        match self.string()?.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | b'\\') => Ok(*byte),
            _ => refuse("a delimiter or a quote of the COPY is no single ASCII character", FORM),
        }
    }

    fn options(&mut self) -> Checked<(Format, bool)> {
        let (mut kind, mut header) = (String::from("text"), false);
        let (mut delimiter, mut null, mut quote, mut escape) = (None, None, None, None);
        let listed = self.is("with");
        if self.take(TokenKind::Open) {
            loop {
                match self.name()?.as_str() {
                    "format" => kind = self.name()?,
                    "delimiter" => delimiter = Some(self.byte()?),
                    "null" => null = Some(self.string()?),
                    "quote" => quote = Some(self.byte()?),
                    "escape" => escape = Some(self.byte()?),
                    "header" => header = self.header()?,
                    option => {
                        return refuse(
                            format!("the option {option} of COPY is not one the router reads"),
                            "leave it out, or copy on a shard by name",
                        );
                    }
                }
                if self.take(TokenKind::Close) {
                    break;
                }
                if !self.take(TokenKind::Comma) {
                    return unknown();
                }
            }
        } else if listed {
            return unknown();
        }
        self.take(TokenKind::Semicolon);
        if self.tokens.next().is_some() {
            return unknown();
        }
        let bytes = |text: Option<String>, or: &str| {
            text.unwrap_or_else(|| or.to_owned()).into_bytes().into_boxed_slice()
        };
        let format = match (kind.as_str(), quote, escape) {
            ("text", None, None) => {
                let delimiter = delimiter.unwrap_or(b'\t');
                // As PostgreSQL has it: these could be meant as escapes or as numbers.
                if delimiter.is_ascii_lowercase() || delimiter.is_ascii_digit() || delimiter == b'.'
                {
                    return refuse("the delimiter is a letter, a digit or a point", "use another");
                }
                Format::Text { delimiter, null: bytes(null, "\\N") }
            }
            ("csv", quote, escape) => {
                let quote = quote.unwrap_or(b'"');
                let delimiter = delimiter.unwrap_or(b',');
                if delimiter == quote {
                    return refuse("the delimiter is the quote", "use another");
                }
                let escape = escape.unwrap_or(quote);
                Format::Csv { delimiter, null: bytes(null, ""), quote, escape }
            }
            ("binary", None, None) if delimiter.is_none() && null.is_none() && !header => {
                Format::Binary
            }
            _ => return refuse("the options of the COPY do not go together", FORM),
        };
        Ok((format, header))
    }

    fn header(&mut self) -> Checked<bool> {
        if !matches!(self.tokens.peek(), Some(token) if token.kind == TokenKind::Word) {
            return Ok(true);
        }
        match self.name()?.as_str() {
            "true" | "on" | "match" => Ok(true),
            "false" | "off" => Ok(false),
            _ => unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let mut schema = Schema::default();
        schema.add_table("agents", "org_id", KeyType::Text).expect("a table");
        schema
    }

    #[test]
    fn the_key_and_the_format_are_read() {
        let read = |sql| read(sql, &schema()).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        let copy = read("COPY agents (id, org_id, name) FROM STDIN");
        assert_eq!((copy.key, copy.width, copy.header), (1, 3, false));
        assert_eq!(copy.format, Format::Text { delimiter: b'\t', null: b"\\N"[..].into() });
        let copy = read(
            "copy \"agents\" (\"org_id\") from stdin with (format csv, header, delimiter ';', null 'NULL')",
        );
        assert!(copy.header);
        let format =
            Format::Csv { delimiter: b';', null: b"NULL"[..].into(), quote: b'"', escape: b'"' };
        assert_eq!(copy.format, format);
        assert_eq!(read("COPY agents (org_id) FROM STDIN (FORMAT binary);").format, Format::Binary);
        assert!(!read("COPY agents (org_id) FROM STDIN (HEADER false, FORMAT csv)").header);
    }

    #[test]
    fn what_is_in_doubt_is_refused() {
        for sql in [
            "COPY agents FROM STDIN",
            "COPY agents (id) FROM STDIN",
            "COPY agents (org_id, org_id) FROM STDIN",
            "COPY others (org_id) FROM STDIN",
            "COPY agents (org_id) TO STDOUT",
            "COPY agents (org_id) FROM '/tmp/x'",
            "COPY agents (org_id) FROM PROGRAM 'x'",
            "COPY agents (org_id) FROM STDIN CSV",
            "COPY agents (org_id) FROM STDIN WITH CSV HEADER",
            "COPY agents (org_id) FROM STDIN WHERE id > 1",
            "COPY agents (org_id) FROM STDIN (FORMAT csv, FORCE_NULL (org_id))",
            "COPY agents (org_id) FROM STDIN (ENCODING 'latin1')",
            "COPY agents (org_id) FROM STDIN (DELIMITER 'x')",
            "COPY agents (org_id) FROM STDIN (FORMAT binary, HEADER)",
            "COPY agents (org_id) FROM STDIN (FORMAT csv, QUOTE ',')",
            "COPY agents (org_id) FROM STDIN; SELECT 1",
            "SELECT 1",
            "",
        ] {
            assert!(read(sql, &schema()).is_err(), "{sql}");
        }
    }
}
