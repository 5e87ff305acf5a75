//! `synchronous_standby_names`, read as the server reads it.

use crate::region::CommitsWaitFor;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    /// Digits, which may be a count or a name.
    Number(String),
    Any,
    First,
    Open,
    Close,
    Comma,
}

/// Whom commits wait for with these two settings. What the server would refuse waits for nobody.
pub(super) fn commits(names: &str, commit: &str) -> CommitsWaitFor {
    if matches!(commit, "off" | "local") {
        return CommitsWaitFor::nobody();
    }
    tokens(names).and_then(|tokens| read(&tokens)).unwrap_or_default()
}

fn read(tokens: &[Token]) -> Option<CommitsWaitFor> {
    let (count, list) = match tokens {
        [Token::Any | Token::First, Token::Number(count), Token::Open, list @ .., Token::Close]
        | [Token::Number(count), Token::Open, list @ .., Token::Close] => {
            (count.parse().ok()?, list)
        }
        list => (1, list),
    };
    let names = list.split(|token| *token == Token::Comma).map(|part| match part {
        [Token::Name(name) | Token::Number(name)] => Some(name.clone()),
        _ => None,
    });
    let names = names.collect::<Option<Vec<_>>>()?;
    Some(CommitsWaitFor { count, names })
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = |bytes: usize| rest.get(bytes..).unwrap_or_default();
        match first {
            ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C' => rest = after(1),
            '"' => {
                let (name, length) = quoted(after(1))?;
                tokens.push(Token::Name(name));
                rest = after(1 + length);
            }
            ',' | '(' | ')' | '*' => {
                tokens.push(match first {
                    ',' => Token::Comma,
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Name("*".to_owned()),
                });
                rest = after(1);
            }
            '0'..='9' => {
                let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                tokens.push(Token::Number(rest.get(..length)?.to_owned()));
                rest = after(length);
            }
            'a'..='z' | 'A'..='Z' | '_' | '\u{80}'.. => {
                let of_a_name =
                    |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '\u{80}'..);
                let length = rest.find(|c: char| !of_a_name(c)).unwrap_or(rest.len());
                let word = rest.get(..length)?;
                tokens.push(match word {
                    _ if word.eq_ignore_ascii_case("any") => Token::Any,
                    _ if word.eq_ignore_ascii_case("first") => Token::First,
                    _ => Token::Name(word.to_owned()),
                });
                rest = after(length);
            }
            _ => return None,
        }
    }
    Some(tokens)
}

/// What stands up to the closing quote, two of which are one, and how long it was with that.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(rest.get(..end)?);
        rest = rest.get(end + 1..)?;
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, text.len() - rest.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(count: u32, names: &[&str]) -> CommitsWaitFor {
        CommitsWaitFor { count, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn every_form_of_the_setting_is_read() {
        for (setting, read) in [
            ("", wait(0, &[])),
            ("  ", wait(0, &[])),
            ("ANY 2 (a, b, c)", wait(2, &["a", "b", "c"])),
            ("any 2(a,b,c)", wait(2, &["a", "b", "c"])),
            ("FIRST 1 (a, b)", wait(1, &["a", "b"])),
            ("2 (a, b)", wait(2, &["a", "b"])),
            ("a, b", wait(1, &["a", "b"])),
            ("*", wait(1, &["*"])),
            ("ANY 1 (*)", wait(1, &["*"])),
            ("ANY 1 (\"*\")", wait(1, &["*"])),
            ("any 1(\"x (y)\", \"say \"\"hi\"\"\")", wait(1, &["x (y)", "say \"hi\""])),
            ("us_east, \"us-east-1\"", wait(1, &["us_east", "us-east-1"])),
            ("1, 2", wait(1, &["1", "2"])),
            ("FIRST 10 (a)", wait(10, &["a"])),
            ("bücher", wait(1, &["bücher"])),
        ] {
            assert_eq!(commits(setting, "on"), read, "{setting}");
            assert_eq!(commits(setting, "remote_apply"), read, "{setting}");
            assert_eq!(commits(setting, "local"), CommitsWaitFor::nobody(), "{setting}");
        }
    }

    #[test]
    fn what_the_server_would_refuse_waits_for_nobody() {
        for setting in
            ["us-east-1", "ANY (a)", "ANY 2 a, b", "2 (a", "a,, b", "\"open", "ANY x (a)", "any"]
        {
            assert_eq!(commits(setting, "on"), CommitsWaitFor::nobody(), "{setting}");
        }
    }
}
