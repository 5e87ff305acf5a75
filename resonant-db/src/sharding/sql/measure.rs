//! What a scanned statement may ask of the parser: how it starts, and how deep its tree can be.
//!
//! Depth is bounded without building anything: what can nest in a tree is limited by the tokens between two commas at
//! each open parenthesis, so their running sum bounds the depth of any tree the parser can build.

use super::scan::{Token, TokenKind};
use crate::sharding::refusal::{Checked, refuse};

/// The most parentheses, brackets and CASEs open at once.
const MAX_NESTING: usize = 40;
/// The most keywords that start a clause or join at one level; these build trees across commas.
const MAX_CLAUSES: usize = 200;
/// The bound on the depth of the tree.
const MAX_DEPTH: usize = 4096;

/// Checks nesting and returns a bound on the depth of the tree, and its steep part.
pub(super) fn measure(sql: &str, tokens: &[Token]) -> Checked<(usize, usize)> {
    let too_deep = || {
        refuse(
            "the statement nests too deeply",
            "write long chains as lists (IN, VALUES) or split the statement",
        )
    };
    // Of each open level: tokens since the last comma, and keywords that nest across commas.
    let mut levels: Vec<(usize, usize)> = vec![(0, 0)];
    let (mut open, mut deepest, mut cases) = (0usize, 0usize, 0usize);
    let (mut nested, mut joins) = (0usize, 0usize);
    for (position, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Open => {
                if let Some((run, _)) = levels.last_mut() {
                    *run += 1;
                    open += 1;
                }
                levels.push((0, 0));
            }
            TokenKind::Close => {
                let Some((run, _)) = levels.pop().filter(|_| !levels.is_empty()) else {
                    return refuse("a parenthesis is closed that was not opened", "balance them");
                };
                open -= run.min(open);
            }
            TokenKind::Comma => {
                if let Some((run, _)) = levels.last_mut() {
                    open -= (*run).min(open);
                    *run = 0;
                }
            }
            TokenKind::Semicolon => {
                if position + 1 < tokens.len() {
                    return refuse("there is more than one statement", "send them one by one");
                }
            }
            kind => {
                if kind == TokenKind::Word {
                    let word = sql.get(token.range.clone()).unwrap_or_default();
                    match keyword(word) {
                        Keyword::Case => cases += 1,
                        Keyword::End => cases = cases.saturating_sub(1),
                        Keyword::Clause => {
                            joins += usize::from(word.eq_ignore_ascii_case("join"));
                            if let Some((_, clauses)) = levels.last_mut() {
                                *clauses += 1;
                                if *clauses > MAX_CLAUSES {
                                    return too_deep();
                                }
                            }
                        }
                        Keyword::Other => {}
                    }
                }
                if let Some((run, _)) = levels.last_mut() {
                    *run += 1;
                    open += 1;
                }
            }
        }
        deepest = deepest.max(open);
        nested = nested.max(levels.len() - 1 + cases);
        if levels.len() + cases > MAX_NESTING || deepest > MAX_DEPTH {
            return too_deep();
        }
    }
    if levels.len() != 1 {
        return refuse("a parenthesis is not closed", "balance them");
    }
    Ok((deepest, nested + joins))
}

/// Lets pass what starts like a statement that is routed, so that the parser's other statements, some of which nest by
/// keywords alone, are never reached.
pub(super) fn opening(sql: &str, tokens: &[Token]) -> Checked {
    const OPENINGS: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES"];
    let first = tokens.iter().find(|token| token.kind != TokenKind::Open);
    let word = first.and_then(|token| sql.get(token.range.clone())).unwrap_or_default();
    if OPENINGS.iter().any(|opening| word.eq_ignore_ascii_case(opening)) {
        Ok(())
    } else if tokens.is_empty() {
        refuse("the statement is empty", "write one")
    } else {
        refuse(
            "only SELECT, INSERT, UPDATE and DELETE are routed",
            "run schema changes with on_all, and anything else on a shard by name",
        )
    }
}

enum Keyword {
    Case,
    Clause,
    End,
    Other,
}

fn keyword(word: &str) -> Keyword {
    const CLAUSES: [&str; 14] = [
        "SELECT",
        "FROM",
        "JOIN",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "MINUS",
        "WITH",
        "WINDOW",
        "INSERT",
        "UPDATE",
        "DELETE",
        "VALUES",
        "EXPLAIN",
    ];
    if word.len() > 9 {
        Keyword::Other
    } else if word.eq_ignore_ascii_case("case") {
        Keyword::Case
    } else if word.eq_ignore_ascii_case("end") {
        Keyword::End
    } else if CLAUSES.iter().any(|clause| word.eq_ignore_ascii_case(clause)) {
        Keyword::Clause
    } else {
        Keyword::Other
    }
}
