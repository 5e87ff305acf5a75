//! The parser behind its bounds.

use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};

use super::scan::Scan;
use crate::sharding::refusal::{Checked, Refusal, refuse};

/// Up to this depth the tree is small enough for the caller's stack.
const SHALLOW: usize = 160;
/// And up to this many levels of what costs the parser most: 170 KiB each in a debug build.
const SHALLOW_STEEP: usize = 3;
/// And up to this count of the parser's own steps, where it counts them: 80 KiB each in a debug build.
const SHALLOW_RECURSION: usize = 10;
/// The stack for deeper ones: memory is only touched as far as the parser really goes.
const DEEP_STACK: usize = 64 << 20;
/// Nesting the parser allows itself there. The scan bounds parentheses; this bounds what recurses without them.
const DEEP_RECURSION: usize = 100;

/// Parses one scanned statement and hands the tree to `read`, on a stack that is large enough for both and for dropping
/// the tree.
pub(crate) fn parse<T: Send>(
    sql: &str,
    scan: &Scan,
    read: impl Fn(&Statement) -> Checked<T> + Sync,
) -> Checked<T> {
    if scan.depth <= SHALLOW
        && scan.steep <= SHALLOW_STEEP
        && let Some(done) = parse_here(sql, SHALLOW_RECURSION, &read)
    {
        return done;
    }
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("resonant-route".to_owned())
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, || parse_here(sql, DEEP_RECURSION, &read));
        let refusal = || {
            Refusal::new(
                "the statement needs a thread of its own to be parsed and none could be started",
                "try again, or write a shorter statement",
            )
        };
        let done = worker.map_err(|_| refusal())?.join().map_err(|_| refusal())?;
        done.unwrap_or_else(|| refuse("the statement nests too deeply", "split it"))
    })
}

/// `None` when the statement nests deeper than `recursion`.
fn parse_here<T>(
    sql: &str,
    recursion: usize,
    read: impl FnOnce(&Statement) -> Checked<T>,
) -> Option<Checked<T>> {
    let dialect = PostgreSqlDialect {};
    let parsed = Parser::new(&dialect)
        .with_recursion_limit(recursion)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_statements());
    Some(match parsed {
        Ok(statements) => match statements.as_slice() {
            [statement] => read(statement),
            [] => refuse("the statement is empty", "write one"),
            _ => refuse("there is more than one statement", "send them one by one"),
        },
        Err(ParserError::RecursionLimitExceeded) => return None,
        Err(ParserError::TokenizerError(text) | ParserError::ParserError(text)) => refuse(
            format!("the statement is not understood{}", position(&text)),
            "write it in the common part of SQL, or send it to a shard by name",
        ),
    })
}

/// The position in a parser's message. The rest of it may quote a literal.
fn position(message: &str) -> String {
    let place = message.rfind(" at Line: ").and_then(|at| message.get(at + 4..));
    match place {
        Some(place) if place.len() < 60 => format!(" (at {})", place.to_lowercase()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::sharding::key::KeyType;
    use crate::sharding::route::{Goal, compile};
    use crate::sharding::schema::Schema;

    /// Half of what a worker thread has; enough in a debug build, whose frames are the largest.
    const STACK: usize = 1 << 20;

    /// What bombs are made of: every keyword the parser knows, and what repeats or nests without a keyword.
    fn fragments() -> impl Iterator<Item = String> {
        const OTHERS: &[&str] = &[
            "(",
            "((",
            "x(",
            "ARRAY[",
            "- ",
            "+ ",
            "NOT ",
            "1 + ",
            "a.",
            "a, ",
            "x = ",
            "x AND ",
            "x OR ",
            "x IS NULL ",
            "::text",
            "x COLLATE c ",
            "CASE WHEN ",
            "CASE WHEN 1 THEN ",
            "x IN (",
            "EXISTS (",
            "(SELECT ",
            "SELECT * FROM (",
            "a JOIN ",
            "a JOIN b JOIN ",
            "LEFT JOIN a ",
            "UNION SELECT 1 ",
            "UNION ALL ",
            "(VALUES (",
            "WITH a AS (",
            "DATE ",
            "INTERVAL ",
            "x BETWEEN ",
            "x BETWEEN 1 AND ",
            "x LIKE ",
            "x NOT ",
            "NOT EXISTS (",
            "ANY(",
            "x = ANY(",
            "f(x, ",
            "CAST(x AS ",
            "x AT TIME ZONE ",
            "|| ",
            "x -> ",
            "x OVER (",
            "FILTER (WHERE ",
            "GROUPING SETS (",
            "EXPLAIN ",
            "x[",
            "ROW(",
            "int[",
            "INSERT INTO t ",
            "UPDATE t SET a = ",
            "STRUCT(",
            "MAP{",
            "LATERAL (",
            "TABLE(",
        ];
        let keywords = sqlparser::keywords::ALL_KEYWORDS.iter().map(|word| format!("{word} "));
        keywords.chain(OTHERS.iter().map(|text| (*text).to_owned()))
    }

    /// A stack that overflows ends the process, and this test with it.
    #[test]
    fn no_bomb_needs_more_than_half_of_a_workers_stack() {
        const PLACES: [(&str, &str); 5] = [
            ("", " SELECT 1"),
            ("SELECT ", "1"),
            ("SELECT * FROM ", "a"),
            ("SELECT * FROM a WHERE ", "x"),
            ("INSERT INTO t (a) VALUES (", "1)"),
        ];
        let bombs = || {
            let mut schema = Schema::default();
            schema.add_table("a", "x", KeyType::Int).expect("a plain name");
            let (mut passed, mut sent) = (0, 0);
            for fragment in fragments() {
                for (head, tail) in PLACES {
                    for times in [300, 35, 6, 3] {
                        let middle = fragment.repeat(times);
                        let closing =
                            |open: char, close: &str| close.repeat(middle.matches(open).count());
                        let ends = closing('(', ")") + &closing('[', "]");
                        for end in [ends.clone(), ends + &" END".repeat(times)] {
                            sent += 1;
                            let sql = format!("{head}{middle}{tail}{end}");
                            passed += usize::from(compile(&sql, &schema, Goal::Keys).is_ok());
                        }
                    }
                }
            }
            (passed, sent)
        };
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(bombs);
        let (passed, sent) = thread.expect("a thread").join().expect("no panic");
        assert!(
            sent > 10_000 && passed < sent / 10,
            "{passed} of {sent} were taken for statements"
        );
    }
}
