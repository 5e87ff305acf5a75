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
        let short: String = text
            .chars()
            .take(LONGEST)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        Self(mask(&short).into())
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

/// Masks what commonly carries a password: the user part of a URL, and the value after `password=` and its like.
///
/// A second line of defence for logs. Public bodies do not rely on it: they hold none of this text.
fn mask(text: &str) -> String {
    let mut masked: Vec<String> = Vec::new();
    let mut hide_next = false;
    for word in text.split(' ') {
        if std::mem::take(&mut hide_next) && !word.is_empty() {
            masked.push("***".into());
            continue;
        }
        hide_next = word.eq_ignore_ascii_case("bearer");
        masked.push(mask_word(word));
    }
    masked.join(" ")
}

fn mask_word(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        return format!("{scheme}://***@{host}");
    }
    let lower = word.to_ascii_lowercase();
    for key in ["password", "passwd", "pwd", "secret", "token", "apikey", "api_key"] {
        for mark in ['=', ':'] {
            let Some(at) = lower.find(&format!("{key}{mark}")) else { continue };
            // Lower-casing ASCII keeps every byte where it was.
            let end = at + key.len() + mark.len_utf8();
            return format!("{}***", &word[..end]);
        }
    }
    word.to_owned()
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
        ] {
            assert_eq!(Detail::of_text(raw).as_str(), shown);
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
