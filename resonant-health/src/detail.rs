//! What a failed probe really said: for logs and for code, never for a public body.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use resonant_common::error::BoxError;

/// The longest text kept of one failure, in characters.
const LONGEST: usize = 512;

/// Text from outside. It has no `Display` and no `Serialize`, and `Debug` hides it, so it reaches nobody by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Detail(Arc<str>);

impl Detail {
    /// The error and its causes on one line, without the passwords of connection strings.
    pub(crate) fn of_error(error: &BoxError) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            if text.len() > 8 * LONGEST {
                break;
            }
            cause = error.source();
        }
        Self::of_text(&text)
    }

    /// What a panic carried, if it was text.
    pub(crate) fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::of_text(text.unwrap_or("a panic without text"))
    }

    pub(crate) fn of_text(text: &str) -> Self {
        let line: String = text
            .chars()
            .take(8 * LONGEST)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        // Masked before it is cut to length: the sign that something is a password may lie behind the cut.
        Self(mask(&line).chars().take(LONGEST).collect::<String>().into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// Masks what commonly carries a password: the user part of a URL, the value after `password=` and its like, also in
/// JSON and in quotes, and what follows `Bearer` and `Basic`.
///
/// A second line of defence for logs. Public bodies do not rely on it: they hold none of this text.
fn mask(text: &str) -> String {
    let mut masked: Vec<String> = Vec::new();
    let mut next = Next::Show;
    for word in text.split(' ') {
        let (shown, after) = match next {
            _ if word.is_empty() => (String::new(), next),
            Next::HideIfMarked if MARKS.contains(&word) => (word.to_owned(), Next::Hide),
            Next::Show | Next::HideIfMarked => mask_word(word),
            Next::Hide => ("***".to_owned(), after_value(word)),
            Next::HideUntil(quote)
                if word.trim_end_matches([',', ';', '}', ')']).ends_with(quote) =>
            {
                (String::new(), Next::Show)
            }
            Next::HideUntil(_) => (String::new(), next),
        };
        masked.push(shown);
        next = after;
    }
    masked.join(" ")
}

const MARKS: [&str; 3] = ["=", ":", "=>"];
const KEYS: [&str; 7] = ["password", "passwd", "pwd", "secret", "token", "apikey", "api_key"];
const QUOTES: [char; 2] = ['"', '\''];

/// What becomes of the next word.
#[derive(Clone, Copy)]
enum Next {
    Show,
    /// The name of a secret stood alone: its value follows if a mark does.
    HideIfMarked,
    Hide,
    /// A quoted value goes on.
    HideUntil(char),
}

fn mask_word(word: &str) -> (String, Next) {
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        return (format!("{scheme}://***@{host}"), Next::Show);
    }
    // Lower-casing ASCII keeps every byte where it was.
    let lower = word.to_ascii_lowercase();
    for (at, key) in KEYS.iter().filter_map(|key| Some((lower.find(key)?, key))) {
        let name = at + key.len();
        let rest = word[name..].trim_start_matches(QUOTES);
        let value = rest.trim_start_matches(['=', ':', '>']);
        if rest.is_empty() {
            return (word.to_owned(), Next::HideIfMarked);
        }
        if value.len() == rest.len() {
            continue; // such as "tokens"
        }
        let shown = &word[..word.len() - value.len()];
        return match value {
            "" => (shown.to_owned(), Next::Hide),
            value => (format!("{shown}***"), after_value(value)),
        };
    }
    let scheme = ["bearer", "basic"].iter().any(|scheme| lower == *scheme);
    (word.to_owned(), if scheme { Next::Hide } else { Next::Show })
}

/// A value that opens a quote and does not close it goes on in the next word.
fn after_value(value: &str) -> Next {
    match value.chars().next().filter(|first| QUOTES.contains(first)) {
        Some(quote) if !value[1..].contains(quote) => Next::HideUntil(quote),
        _ => Next::Show,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_urls_and_settings_and_keeps_the_rest() {
        for (raw, shown) in [
            (
                "cannot reach postgresql://app:s3cr3t@db:5432/x",
                "cannot reach postgresql://***@db:5432/x",
            ),
            ("host=db password=hunter2 refused", "host=db password=*** refused"),
            ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer ***"),
            ("connection refused (os error 111)", "connection refused (os error 111)"),
            ("redis://cache-1:6379 timed out", "redis://cache-1:6379 timed out"),
            ("password: hunter2 refused", "password: *** refused"),
            ("Password = hunter2, refused", "Password = *** refused"),
            ("{\"token\":\"abc\"}", "{\"token\":***"),
            ("{ \"token\": \"abc\", \"n\": 1 }", "{ \"token\": *** \"n\": 1 }"),
            ("user=app password='hun ter 2' host=db", "user=app password=***   host=db"),
            ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
            ("unexpected token in line 3", "unexpected token in line 3"),
            ("3 tokens left", "3 tokens left"),
        ] {
            assert_eq!(Detail::of_text(raw).as_str(), shown);
        }
    }

    #[test]
    fn a_password_at_the_cut_is_masked_too() {
        for filler in LONGEST - 40..LONGEST {
            let text = format!("{}://app:s3cr3t@db-1 refused", "x".repeat(filler));
            let shown = Detail::of_text(&text);
            assert!(!shown.as_str().contains("s3"), "{filler}: {}", shown.as_str());
        }
    }

    #[test]
    fn is_one_bounded_line_and_debug_hides_it() {
        let detail = Detail::of_text(&"line\n".repeat(1000));
        assert!(detail.as_str().chars().count() <= LONGEST && !detail.as_str().contains('\n'));
        assert_eq!(format!("{detail:?}"), "<hidden>");
    }

    #[test]
    fn causes_are_kept_once() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ping failed")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error: BoxError = Box::new(Outer(std::io::Error::other("refused")));
        assert_eq!(Detail::of_error(&error).as_str(), "ping failed: refused");
    }
}
