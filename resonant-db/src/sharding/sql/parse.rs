//! The parser behind its bounds.

use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};

use super::scan::Scan;
use crate::sharding::refusal::{Checked, Refusal, refuse};

/// Up to this depth the caller's stack is certainly enough.
const SHALLOW: usize = 160;
/// The stack for deeper ones: memory is only touched as far as the parser really goes.
const DEEP_STACK: usize = 64 << 20;
/// Nesting the parser itself allows. The scan bounds parentheses; this bounds what recurses without them.
const RECURSION: usize = 100;

/// Parses one scanned statement and hands the tree to `read`, on a stack that is large enough for both and for dropping
/// the tree.
pub(crate) fn parse<T: Send>(
    sql: &str,
    scan: &Scan,
    read: impl FnOnce(&Statement) -> Checked<T> + Send,
) -> Checked<T> {
    if scan.depth <= SHALLOW {
        return parse_here(sql, read);
    }
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("resonant-route".to_owned())
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, || parse_here(sql, read));
        let refusal = || {
            Refusal::new(
                "the statement needs a thread of its own to be parsed and none could be started",
                "try again, or write a shorter statement",
            )
        };
        worker.map_err(|_| refusal())?.join().map_err(|_| refusal())?
    })
}

fn parse_here<T>(sql: &str, read: impl FnOnce(&Statement) -> Checked<T>) -> Checked<T> {
    let dialect = PostgreSqlDialect {};
    let parsed = Parser::new(&dialect)
        .with_recursion_limit(RECURSION)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_statements());
    match parsed {
        Ok(statements) => match statements.as_slice() {
            [statement] => read(statement),
            [] => refuse("the statement is empty", "write one"),
            _ => refuse("there is more than one statement", "send them one by one"),
        },
        Err(ParserError::RecursionLimitExceeded) => {
            refuse("the statement nests too deeply", "split it")
        }
        Err(ParserError::TokenizerError(text) | ParserError::ParserError(text)) => refuse(
            format!("the statement is not understood{}", position(&text)),
            "write it in the common part of SQL, or send it to a shard by name",
        ),
    }
}

/// The position in a parser's message. The rest of it may quote a literal.
fn position(message: &str) -> String {
    let place = message.rfind(" at Line: ").and_then(|at| message.get(at + 4..));
    match place {
        Some(place) if place.len() < 60 => format!(" (at {})", place.to_lowercase()),
        _ => String::new(),
    }
}
