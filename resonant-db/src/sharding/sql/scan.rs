//! The scan before the parser: bounds what the parser sees, and refuses text two engines read differently.
//!
//! A recursive parser inside the user's process must never meet text that can exhaust the stack, and a proof about a
//! statement is worth nothing if the engine cuts the text into other tokens than we did. So this scanner accepts the part
//! of SQL's lexis on which PostgreSQL, SQLite and the parser agree and names the rest: nested comments, backslashes in
//! strings, prefixed and dollar-quoted strings, `?` and `:name` placeholders, operators outside a list, numbers that run
//! into letters. Everything refused here can be written another way, usually as a parameter.

use std::ops::Range;

use super::measure::{measure, opening};
use crate::sharding::refusal::{Checked, refuse};

/// The longest statement. Longer ones are refused.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// The most tokens: 600 rows of 50 columns fit.
const MAX_TOKENS: usize = 1 << 16;

/// A token: what it is and where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) range: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Close,
    Comma,
    Dot,
    Number,
    Open,
    Operator,
    /// `$n`, with `n` at least 1.
    Parameter(u32),
    Quoted,
    Semicolon,
    String,
    Word,
}

/// A scanned statement.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) tokens: Vec<Token>,
    /// An upper bound on the depth of its tree.
    pub(crate) depth: usize,
    /// What nests by more than a step in the parser: the most parentheses, brackets and CASEs open at once, and every JOIN.
    pub(crate) steep: usize,
}

/// Scans one statement.
pub(crate) fn scan(sql: &str) -> Checked<Scan> {
    if sql.len() > MAX_BYTES {
        return refuse(
            format!("the statement has {} bytes and the limit is {MAX_BYTES}", sql.len()),
            "pass values as parameters, or split it",
        );
    }
    let tokens = tokens(sql)?;
    opening(sql, &tokens)?;
    let (depth, steep) = measure(sql, &tokens)?;
    Ok(Scan { tokens, depth, steep })
}

/// The tokens of a statement of any kind, in the common part of the lexis.
pub(crate) fn tokens(sql: &str) -> Checked<Vec<Token>> {
    let mut scanner = Scanner { sql, bytes: sql.as_bytes(), at: 0, tokens: Vec::new() };
    scanner.run()?;
    Ok(scanner.tokens)
}

struct Scanner<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    at: usize,
    tokens: Vec<Token>,
}

impl Scanner<'_> {
    fn run(&mut self) -> Checked {
        while let Some(byte) = self.peek(0) {
            let start = self.at;
            let kind = match byte {
                b' ' | b'\t' | b'\n' => {
                    self.at += 1;
                    continue;
                }
                b'\r' if self.peek(1) == Some(b'\n') => {
                    self.at += 2;
                    continue;
                }
                b'-' if self.peek(1) == Some(b'-') => {
                    self.line_comment()?;
                    continue;
                }
                b'/' if self.peek(1) == Some(b'*') => {
                    self.block_comment()?;
                    continue;
                }
                b'\'' => self.string()?,
                b'"' => self.quoted()?,
                b'$' => self.parameter()?,
                b'0'..=b'9' => self.number()?,
                b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit()) => {
                    return refuse("a number starts with a point", "write 0 before the point");
                }
                b'(' | b'[' => self.open(byte)?,
                b')' | b']' => self.single(TokenKind::Close),
                b',' => self.single(TokenKind::Comma),
                b'.' => self.single(TokenKind::Dot),
                b';' => self.single(TokenKind::Semicolon),
                _ if self.word_length(self.at) > 0 => self.word()?,
                _ => self.operator()?,
            };
            if self.tokens.len() >= MAX_TOKENS {
                return refuse(
                    format!("the statement has more than {MAX_TOKENS} tokens"),
                    "split it",
                );
            }
            self.tokens.push(Token { kind, range: start..self.at });
        }
        Ok(())
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn single(&mut self, kind: TokenKind) -> TokenKind {
        self.at += 1;
        kind
    }

    fn line_comment(&mut self) -> Checked {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let comment = rest.get(..end).unwrap_or_default();
        let comment = comment.strip_suffix(b"\r").unwrap_or(comment);
        if comment.iter().any(|byte| matches!(byte, b'\r' | 0)) {
            return refuse("a comment holds a control character", "remove it");
        }
        self.at += end;
        Ok(())
    }

    fn block_comment(&mut self) -> Checked {
        let rest = self.sql.get(self.at + 2..).unwrap_or_default();
        let Some(end) = rest.find("*/") else {
            return refuse("a comment is not closed", "close it with */");
        };
        let inside = rest.get(..end).unwrap_or_default();
        // Right before the end a slash and the star of the end would look like an opening to nobody but a nesting lexer.
        if inside.contains("/*") || inside.ends_with('/') || inside.contains('\0') {
            return refuse(
                "a comment holds another, and engines differ on where it ends",
                "remove the inner one",
            );
        }
        self.at += 2 + end + 2;
        Ok(())
    }

    fn string(&mut self) -> Checked<TokenKind> {
        if self.tokens.last().is_some_and(|last| last.kind == TokenKind::String) {
            return refuse(
                "two strings stand side by side",
                "write one string, or pass it as a parameter",
            );
        }
        self.delimited(b'\'')?;
        Ok(TokenKind::String)
    }

    fn quoted(&mut self) -> Checked<TokenKind> {
        self.delimited(b'"')?;
        Ok(TokenKind::Quoted)
    }

    /// Moves past a string or a quoted name, in which a doubled delimiter stands for itself.
    fn delimited(&mut self, delimiter: u8) -> Checked {
        self.at += 1;
        loop {
            match self.peek(0) {
                None => return refuse("a quote is not closed", "close it"),
                Some(byte) if byte == delimiter => {
                    if self.peek(1) != Some(delimiter) {
                        self.at += 1;
                        return Ok(());
                    }
                    self.at += 2;
                }
                Some(b'\\') => {
                    return refuse(
                        "a quoted text holds a backslash, which servers read by their settings",
                        "pass the text as a parameter",
                    );
                }
                Some(0) => return refuse("the statement holds a zero byte", "remove it"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn parameter(&mut self) -> Checked<TokenKind> {
        let digits = self.bytes.get(self.at + 1..).unwrap_or_default();
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = self.sql.get(self.at + 1..self.at + 1 + length).unwrap_or_default();
        self.at += 1 + length;
        let number = match number.parse::<u32>() {
            Ok(number) if (1..=65_535).contains(&number) && !number_is_padded(digits) => number,
            _ => {
                return refuse("$ is not followed by the number of a parameter", "write $1, $2, …");
            }
        };
        self.no_word_here()?;
        Ok(TokenKind::Parameter(number))
    }

    fn number(&mut self) -> Checked<TokenKind> {
        self.digits();
        if self.peek(0) == Some(b'.') {
            self.at += 1;
            self.digits();
        }
        let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
        if matches!(self.peek(0), Some(b'e' | b'E'))
            && self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit())
        {
            self.at += 1 + sign;
            self.digits();
        }
        self.no_word_here()?;
        if self.peek(0) == Some(b'.') {
            return refuse("a number has two points", "write one");
        }
        Ok(TokenKind::Number)
    }

    fn digits(&mut self) {
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn no_word_here(&self) -> Checked {
        if self.word_length(self.at) > 0 || self.peek(0) == Some(b'$') {
            return refuse("a number runs into a word", "put a blank between them");
        }
        Ok(())
    }

    /// The bytes of the word that starts at `at`; 0 when none does.
    fn word_length(&self, at: usize) -> usize {
        let rest = self.sql.get(at..).unwrap_or_default();
        let mut length = 0;
        for character in rest.chars() {
            let fits = character.is_alphabetic()
                || character == '_'
                || (length > 0 && (character.is_ascii_digit() || character == '$'));
            if !fits {
                break;
            }
            length += character.len_utf8();
        }
        length
    }

    fn word(&mut self) -> Checked<TokenKind> {
        let length = self.word_length(self.at);
        let word = self.sql.get(self.at..self.at + length).unwrap_or_default();
        self.at += length;
        let unicode = word.eq_ignore_ascii_case("u") && self.peek(0) == Some(b'&');
        if self.peek(0) == Some(b'\'') || (unicode && matches!(self.peek(1), Some(b'\'' | b'"'))) {
            return refuse(
                "a string has a prefix, and engines differ on what it means",
                "pass the value as a parameter",
            );
        }
        Ok(TokenKind::Word)
    }

    fn open(&mut self, byte: u8) -> Checked<TokenKind> {
        if byte == b'[' {
            let after_array = self.tokens.last().is_some_and(|last| {
                last.kind == TokenKind::Word
                    && self
                        .sql
                        .get(last.range.clone())
                        .is_some_and(|word| word.eq_ignore_ascii_case("array"))
            });
            // The brackets of a type, behind which nothing can stand: `$1::text[]`.
            let of_type = self.bytes.get(self.at + 1) == Some(&b']')
                && matches!(
                    self.tokens.as_slice(),
                    [.., cast, of] if of.kind == TokenKind::Word
                        && self.sql.get(cast.range.clone()) == Some("::")
                );
            if !after_array && !of_type {
                return refuse(
                    "a bracket is a quoted name to one engine and a subscript to another",
                    "use brackets after ARRAY only",
                );
            }
        }
        Ok(self.single(TokenKind::Open))
    }

    fn operator(&mut self) -> Checked<TokenKind> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        if rest.starts_with(b"::") {
            self.at += 2;
            return Ok(TokenKind::Operator);
        }
        let mut length = 0;
        while let Some(byte) = rest.get(length) {
            let comment =
                matches!((byte, rest.get(length + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*')));
            if !b"+-*/<>=~!@#%^&|".contains(byte) || comment {
                break;
            }
            length += 1;
        }
        let run = self.sql.get(start..start + length).unwrap_or_default();
        // As PostgreSQL cuts them: an operator of plain characters does not end in a sign, so the sign is the operand's.
        let mut operator = run;
        if !run.contains(|c: char| "~!@#%^&|".contains(c)) {
            while operator.len() > 1 && operator.ends_with(['+', '-']) && !matches!(operator, "->")
            {
                operator = operator.get(..operator.len() - 1).unwrap_or_default();
            }
        }
        if !OPERATORS.contains(&operator) {
            return refuse(
                "the statement holds a character or an operator that engines read differently",
                "use $1 placeholders, plain operators and double quotes around names",
            );
        }
        self.at += operator.len();
        Ok(TokenKind::Operator)
    }
}

const OPERATORS: [&str; 29] = [
    "+", "-", "*", "/", "%", "<", ">", "<=", ">=", "<>", "!=", "=", "||", "->", "->>", "#>", "#>>",
    "@>", "<@", "&&", "&", "|", "<<", ">>", "~", "~*", "!~", "!~*", "^",
];

fn number_is_padded(digits: &[u8]) -> bool {
    digits.first() == Some(&b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_statements_pass() {
        for sql in [
            "SELECT * FROM agents WHERE org_id = $1",
            "SELECT a.x, 'it''s' FROM \"agents\" a WHERE k=-1 AND b >= 2.5e3 -- why\n LIMIT 5;",
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) /* two */ ON CONFLICT (a) DO NOTHING",
            "SELECT a FROM t WHERE k = ANY($1::text[])",
            "SELECT $1::text, data->>'a', ARRAY[$2, $3] FROM t WHERE größe <> 4",
            "SELECT 1\r\nFROM t",
        ] {
            assert!(scan(sql).is_ok(), "{sql}: {:?}", scan(sql));
        }
    }

    #[test]
    fn what_engines_read_differently_is_refused() {
        for sql in [
            "SELECT 1 /* a /* b */ OR 1=1 --*/",
            "SELECT 1 /* a /*/ FROM t */",
            "SELECT 'a\\' OR 1=1 --'",
            "SELECT E'a', 1",
            "SELECT x'00'",
            "SELECT U&\"a\"",
            "SELECT $$text$$",
            "SELECT $tag$text$tag$",
            "SELECT $1abc",
            "SELECT $01",
            "SELECT 1a",
            "SELECT 0x10",
            "SELECT 1_000",
            "SELECT ?",
            "SELECT :name",
            "SELECT @name",
            "SELECT #name",
            "SELECT `a`",
            "SELECT [a] FROM t",
            "SELECT a[1] FROM t",
            "SELECT a[] FROM t",
            "SELECT $1::text[1]",
            "SELECT $1::text[ ]",
            "SELECT 'a' 'b'",
            "SELECT 'a'\n'b'",
            "SELECT 1 -- a\rFROM t",
            "SELECT 1\u{a0}FROM t",
            "SELECT 1\u{b}FROM t",
            "SELECT 1 == 1",
            "SELECT 1 =@ 1",
            "SELECT 'open",
            "SELECT 1 /* open",
            "SELECT (1",
            "SELECT 1)",
            "SELECT 1; SELECT 2",
            "SELECT '\0'",
            "SELECT {a}",
            "SELECT \\",
        ] {
            assert!(scan(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn the_bound_grows_with_what_can_nest_and_not_with_lists() {
        let depth = |sql: &str| scan(sql).map(|scan| scan.depth);
        let list = format!("SELECT 1 IN ({})", vec!["$1"; 5000].join(", "));
        assert!(depth(&list).unwrap() < 20);
        let rows = format!("INSERT INTO t (a, b) VALUES {}", vec!["($1, -2)"; 5000].join(", "));
        assert!(depth(&rows).unwrap() < 30);
        let chain = format!("SELECT {}", vec!["1"; 1000].join(" + "));
        assert!(depth(&chain).unwrap() > 1000);
        assert!(scan(&format!("SELECT {}", vec!["1"; 5000].join(" + "))).is_err());
        assert!(scan(&vec!["SELECT 1, 2"; 300].join(" UNION ")).is_err());
        assert!(scan(&format!("SELECT {}1{}", "(".repeat(50), ")".repeat(50))).is_err());
    }
}
