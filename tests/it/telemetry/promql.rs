//! What a PromQL expression names: metrics with the labels asked of them. Enough of a reader to hold queries against the table
//! of names; whether they are valid is promtool's to say.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// The metrics an expression names, with the labels it selects by or groups by.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Named {
    /// By name, the labels in its braces.
    pub(crate) metrics: BTreeMap<String, BTreeSet<String>>,
    /// The labels of `by`, `on` and their like.
    pub(crate) grouped: BTreeSet<String>,
}

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const AGGREGATIONS: [&str; 8] =
    ["sum", "avg", "min", "max", "count", "topk", "bottomk", "quantile"];
const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text,
    Sign(char),
}

pub(crate) fn read(expression: &str) -> Named {
    let tokens = tokens(expression);
    let mut named = Named::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1);
        at += 1;
        let Token::Word(word) = token else { continue };
        let opens = |sign| next == Some(&Token::Sign(sign));
        let groups = matches!(next, Some(Token::Word(word)) if GROUPING.contains(&word.as_str()));
        if GROUPING.contains(&word.as_str()) && opens('(') {
            let (words, end) = until(&tokens, at + 1, ')');
            named.grouped.extend(words);
            at = end;
        } else if [&WORDS[..], &GROUPING[..]].concat().contains(&word.as_str())
            || opens('(')
            || (groups && AGGREGATIONS.contains(&word.as_str()))
        {
            // A function, an aggregation, an operator.
        } else {
            let labels = named.metrics.entry(word.clone()).or_default();
            if opens('{') {
                let (words, end) = until(&tokens, at + 1, '}');
                labels.extend(words);
                at = end;
            }
        }
    }
    named
}

/// The words up to the closing sign, and the place after it.
fn until(tokens: &[Token], from: usize, close: char) -> (Vec<String>, usize) {
    let length = tokens[from..].iter().take_while(|token| **token != Token::Sign(close)).count();
    let words = tokens[from..from + length].iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    });
    (words.collect(), from + length + 1)
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        if first == '"' || first == '\'' {
            while let Some(next) = rest.next() {
                match next {
                    '\\' => drop(rest.next()),
                    _ if next == first => break,
                    _ => {}
                }
            }
            tokens.push(Token::Text);
        } else if first == '[' {
            // A duration, or a variable of the dashboard.
            rest.by_ref().find(|next| *next == ']');
        } else if first.is_ascii_digit() {
            while rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '.').is_some() {}
        } else if first.is_ascii_alphabetic() || first == '_' {
            let mut word = String::from(first);
            while let Some(next) =
                rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_' || *next == ':')
            {
                word.push(next);
            }
            tokens.push(Token::Word(word));
        } else if !first.is_whitespace() {
            tokens.push(Token::Sign(first));
        }
    }
    tokens
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let named = read(
        r#"histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{x="b{c}", y=~'d'}[5m] offset 1h)))
           / on (instance) group_left max(e) > 1e3 and absent(up) unless job:f:rate5m"#,
    );
    let expected =
        [("a_bucket", vec!["x", "y"]), ("e", vec![]), ("up", vec![]), ("job:f:rate5m", vec![])];
    let expected = expected.into_iter().map(|(name, labels)| {
        (name.to_owned(), labels.into_iter().map(str::to_owned).collect::<BTreeSet<_>>())
    });
    assert_eq!(named.metrics, expected.collect());
    assert_eq!(Vec::from_iter(named.grouped), ["instance", "job", "le"]);
}
