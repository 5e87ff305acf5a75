//! A multi-row INSERT, cut so that each shard gets its own rows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

use super::program::KeyUse;
use crate::Param;
use crate::sharding::function::ShardBy;
use crate::sharding::refusal::Checked;
use crate::sharding::sql::{Scan, Token, TokenKind};

/// Where the rows of a VALUES list stand in the text, and which key each has.
#[derive(Debug, Clone)]
pub(crate) struct RowSplit {
    /// The text before the first row.
    head: Range<usize>,
    rows: Box<[Row]>,
    /// The text after the last row.
    tail: Range<usize>,
    /// Placeholders of the whole statement in ascending order of position: where, and which parameter.
    placeholders: Box<[(Range<usize>, usize)]>,
}

#[derive(Debug, Clone)]
struct Row {
    range: Range<usize>,
    key: KeyUse,
}

/// One shard's part of a statement.
#[derive(Debug)]
pub(crate) struct Part<'p> {
    pub(crate) shard: u32,
    pub(crate) sql: String,
    pub(crate) params: Vec<Param<'p>>,
}

impl RowSplit {
    /// Finds the rows in the text; `None` when they are not where they are expected, and the statement is then not split.
    pub(crate) fn find(sql: &str, scan: &Scan, keys: Vec<KeyUse>) -> Option<Self> {
        let word = |token: &Token| sql.get(token.range.clone()).unwrap_or_default();
        let mut tokens = scan.tokens.iter();
        let mut level = 0usize;
        tokens.find(|token| {
            match token.kind {
                TokenKind::Open => level += 1,
                TokenKind::Close => level = level.saturating_sub(1),
                _ => {}
            }
            level == 0
                && token.kind == TokenKind::Word
                && word(token).eq_ignore_ascii_case("values")
        })?;
        let mut ranges = Vec::with_capacity(keys.len());
        let mut start = 0;
        let mut after_row = false;
        for token in tokens {
            match token.kind {
                TokenKind::Open => {
                    if level == 0 {
                        if after_row {
                            return None;
                        }
                        start = token.range.start;
                    }
                    level += 1;
                }
                TokenKind::Close => {
                    level = level.saturating_sub(1);
                    if level == 0 {
                        ranges.push(start..token.range.end);
                        after_row = true;
                    }
                }
                TokenKind::Comma if level == 0 => after_row = false,
                _ if level == 0 => break,
                _ => {}
            }
        }
        if ranges.len() != keys.len() {
            return None;
        }
        let (first, last) = (ranges.first()?.start, ranges.last()?.end);
        let end = match scan.tokens.last() {
            Some(token) if token.kind == TokenKind::Semicolon => token.range.start,
            _ => sql.len(),
        };
        let placeholders = scan.tokens.iter().filter_map(|token| match token.kind {
            TokenKind::Parameter(number) => Some((token.range.clone(), number as usize - 1)),
            _ => None,
        });
        let placeholders = placeholders.collect();
        let rows = ranges.into_iter().zip(keys).map(|(range, key)| Row { range, key }).collect();
        Some(Self { head: 0..first, rows, tail: last..end, placeholders })
    }

    /// The parts, in ascending order of shards. Rows keep their order within a part.
    pub(crate) fn parts<'p>(
        &self,
        sql: &str,
        function: &dyn ShardBy,
        shards: u32,
        params: &[Param<'p>],
    ) -> Checked<Vec<Part<'p>>> {
        let mut by_shard: Vec<(u32, Vec<&Range<usize>>)> = Vec::new();
        for row in &self.rows {
            let shard = row.key.shard(function, shards, params)?;
            match by_shard.iter_mut().find(|(owner, _)| *owner == shard) {
                Some((_, rows)) => rows.push(&row.range),
                None => by_shard.push((shard, vec![&row.range])),
            }
        }
        by_shard.sort_unstable_by_key(|(shard, _)| *shard);
        let parts = by_shard.into_iter().map(|(shard, rows)| {
            let mut writer = Writer {
                split: self,
                sql,
                out: String::with_capacity(sql.len()),
                used: Vec::new(),
                numbers: HashMap::new(),
            };
            writer.copy(&self.head);
            for (at, row) in rows.into_iter().enumerate() {
                if at > 0 {
                    writer.out.push_str(", ");
                }
                writer.copy(row);
            }
            writer.copy(&self.tail);
            let taken = writer.used.iter().filter_map(|index| params.get(*index).copied());
            Part { shard, params: taken.collect(), sql: writer.out }
        });
        Ok(parts.collect())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.placeholders)
    }
}

/// Copies text and numbers its placeholders anew.
struct Writer<'a> {
    split: &'a RowSplit,
    sql: &'a str,
    out: String,
    /// The parameter behind each new number.
    used: Vec<usize>,
    numbers: HashMap<usize, usize>,
}

impl Writer<'_> {
    fn copy(&mut self, range: &Range<usize>) {
        let placeholders = &self.split.placeholders;
        let from = placeholders.partition_point(|(at, _)| at.start < range.start);
        let mut at = range.start;
        for (place, index) in placeholders.iter().skip(from) {
            if place.start >= range.end {
                break;
            }
            self.text(at..place.start);
            let number = self.number(*index);
            // Writing to a string does not fail.
            let _ = write!(self.out, "${number}");
            at = place.end;
        }
        self.text(at..range.end);
    }

    fn text(&mut self, range: Range<usize>) {
        self.out.push_str(self.sql.get(range).unwrap_or_default());
    }

    fn number(&mut self, index: usize) -> usize {
        if let Some(number) = self.numbers.get(&index) {
            return *number;
        }
        self.used.push(index);
        self.numbers.insert(index, self.used.len());
        self.used.len()
    }
}
