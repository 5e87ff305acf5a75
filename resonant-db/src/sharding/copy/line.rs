//! One row of the text or the csv format: where it ends, where its key stands, and what a field says.

use std::borrow::Cow;
use std::ops::Range;

use super::cutter::Cut;
use super::statement::{Copy, Format};

/// How far a row has been read.
#[derive(Debug, Default)]
pub(super) struct Line {
    at: usize,
    pub(super) field: usize,
    start: usize,
    pub(super) key: Option<Range<usize>>,
    in_quote: bool,
    escaped: bool,
    /// Whether it ends with a carriage return and a newline.
    pub(super) crlf: bool,
}

impl Line {
    /// Reads on to the end of the row; its size, or `None` when that has not come yet.
    pub(super) fn advance(&mut self, row: &[u8], copy: &Copy) -> Cut<Option<usize>> {
        let (delimiter, quotes) = match copy.format {
            Format::Text { delimiter, .. } => (delimiter, None),
            Format::Csv { delimiter, quote, escape, .. } => (delimiter, Some((quote, escape))),
            Format::Binary => return Ok(None),
        };
        while let Some(&byte) = row.get(self.at) {
            match quotes {
                None if self.escaped => {
                    if byte == b'.' {
                        match (self.at, row.get(2..)) {
                            (1, Some([b'\n', ..] | [b'\r', b'\n', ..])) => {}
                            // What follows has not come yet.
                            (1, Some([] | [b'\r'])) => return Ok(None),
                            _ => return Err("\\. stands in a row".into()),
                        }
                    }
                    self.escaped = false;
                    self.at += 1;
                    continue;
                }
                None if byte == b'\\' => {
                    self.escaped = true;
                    self.at += 1;
                    continue;
                }
                None => {}
                Some((quote, escape)) => {
                    if escape != quote && byte == escape && self.in_quote {
                        self.escaped = !self.escaped;
                    }
                    if byte == quote && !self.escaped {
                        self.in_quote = !self.in_quote;
                    }
                    if byte != escape || escape == quote {
                        self.escaped = false;
                    }
                    if self.in_quote || byte == quote {
                        self.at += 1;
                        continue;
                    }
                }
            }
            match byte {
                b'\n' => {
                    let size = self.at + 1;
                    self.end_field(self.at - usize::from(self.crlf), copy);
                    return Ok(Some(size));
                }
                b'\r' => {
                    match row.get(self.at + 1) {
                        Some(b'\n') => {
                            self.crlf = true;
                            self.at += 1;
                        }
                        Some(_) => {
                            return Err("a carriage return stands in the row: write it as \\r, or in quotes".into());
                        }
                        None => return Ok(None),
                    }
                }
                byte => {
                    if byte == delimiter {
                        self.end_field(self.at, copy);
                        self.field += 1;
                        self.start = self.at + 1;
                    }
                    self.at += 1;
                }
            }
        }
        Ok(None)
    }

    fn end_field(&mut self, end: usize, copy: &Copy) {
        if self.field == copy.key {
            self.key = Some(self.start..end.max(self.start));
        }
    }
}

/// A field of the text format without its escapes.
pub(super) fn unescaped(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match byte {
            b'\\' => bytes.next(),
            byte => {
                plain.push(byte);
                continue;
            }
        };
        let octal = |byte: &u8| (b'0'..=b'7').contains(byte);
        plain.push(match escaped {
            Some(first @ b'0'..=b'7') => {
                let mut value = first - b'0';
                for _ in 0..2 {
                    if let Some(digit) = bytes.next_if(octal) {
                        value = value.wrapping_mul(8).wrapping_add(digit - b'0');
                    }
                }
                value
            }
            Some(b'x') => {
                let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
                match bytes.peek().copied().and_then(digit) {
                    None => b'x',
                    Some(mut value) => {
                        bytes.next();
                        if let Some(low) = bytes.peek().copied().and_then(digit) {
                            bytes.next();
                            value = value * 16 + low;
                        }
                        value
                    }
                }
            }
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => other,
            None => b'\\',
        });
    }
    Cow::Owned(plain)
}

/// A field of CSV without its quotes.
pub(super) fn unquoted(field: &[u8], quote: u8, escape: u8) -> Cow<'_, [u8]> {
    if !field.contains(&quote) {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let (mut bytes, mut in_quote) = (field.iter().copied().peekable(), false);
    while let Some(byte) = bytes.next() {
        if !in_quote {
            if byte == quote {
                in_quote = true;
            } else {
                plain.push(byte);
            }
            continue;
        }
        if byte == escape
            && let Some(next) = bytes.next_if(|next| *next == quote || *next == escape)
        {
            plain.push(next);
        } else if byte == quote {
            in_quote = false;
        } else {
            plain.push(byte);
        }
    }
    Cow::Owned(plain)
}
