//! What carries a token: a cookie or a header.

use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// No token is longer; what is longer is not read.
const LONGEST: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Carrier {
    Cookie { name: String, max_age: Duration, secure: bool },
    Header(HeaderName),
}

impl Carrier {
    /// The same under another name; `None` when it cannot have that one.
    pub(super) fn named(&self, name: &str) -> Option<Self> {
        // What may be the name of a header may be the name of a cookie, and the other way round.
        let header = HeaderName::try_from(name).ok()?;
        Some(match self {
            Self::Header(_) => Self::Header(header),
            Self::Cookie { max_age, secure, .. } => {
                Self::Cookie { name: name.into(), max_age: *max_age, secure: *secure }
            }
        })
    }

    /// The token a request brings.
    pub(super) fn read<'r>(&self, request: &'r HeaderMap) -> Option<&'r str> {
        let token = match self {
            Self::Header(name) => request.get(name)?.to_str().ok()?,
            // HTTP/2 may bring each cookie in a header of its own.
            Self::Cookie { name, .. } => {
                let lines = request.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
                let mut cookies = lines.flat_map(|line| line.split(';'));
                cookies.find_map(|cookie| {
                    let (found, value) = cookie.trim().split_once('=')?;
                    (found == name).then(|| value.trim_matches('"'))
                })?
            }
        };
        (!token.is_empty() && token.len() <= LONGEST).then_some(token)
    }

    /// Gives an answer a token to take along; `None` clears it.
    pub(super) fn write(&self, answer: &mut HeaderMap, token: Option<&str>) {
        match self {
            Self::Header(name) => {
                if let Some(Ok(value)) = token.map(HeaderValue::from_str) {
                    answer.insert(name.clone(), value);
                }
            }
            Self::Cookie { name, max_age, secure } => {
                let (token, age) = token.map_or(("", 0), |token| (token, max_age.as_secs()));
                let secure = if *secure { "; Secure" } else { "" };
                let cookie = format!(
                    "{name}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"
                );
                if let Ok(value) = HeaderValue::from_str(&cookie) {
                    answer.append(SET_COOKIE, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie() -> Carrier {
        Carrier::Cookie { name: "s".into(), max_age: Duration::from_secs(60), secure: true }
    }

    fn asked(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn the_cookie_is_found_among_others_on_one_line_or_several() {
        for lines in [
            &["s=1:2:3"][..],
            &["a=b; s=1:2:3; c=d"],
            &["ss=no;s=\"1:2:3\""],
            &["a=b", "xs=no", "s=1:2:3"],
        ] {
            assert_eq!(cookie().read(&asked(lines)), Some("1:2:3"), "{lines:?}");
        }
        for lines in [&[][..], &["s"], &["s="], &["S=1:2:3"], &["as=1:2:3"]] {
            assert_eq!(cookie().read(&asked(lines)), None, "{lines:?}");
        }
        let long = HeaderValue::from_str(&format!("s={}", "1".repeat(200))).expect("a value");
        assert_eq!(cookie().read(&HeaderMap::from_iter([(COOKIE, long)])), None);
    }

    #[test]
    fn an_answer_keeps_its_own_cookies_and_takes_the_token_along() {
        let mut answer = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static("own=1"))]);
        cookie().write(&mut answer, Some("1:2:3"));
        cookie().write(&mut answer, None);
        let cookies: Vec<_> = answer.get_all(SET_COOKIE).iter().collect();
        assert_eq!(
            cookies,
            [
                "own=1",
                "s=1:2:3; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure",
                "s=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
            ]
        );
    }

    #[test]
    fn a_header_is_taken_as_it_is() {
        let carrier = Carrier::Header(HeaderName::from_static("x-token"));
        let mut headers = HeaderMap::new();
        assert_eq!(carrier.read(&headers), None);
        carrier.write(&mut headers, Some("1:2:3"));
        assert_eq!(carrier.read(&headers), Some("1:2:3"));
        carrier.write(&mut headers, None);
        assert_eq!(carrier.read(&headers), Some("1:2:3"), "there is nothing to clear");
    }

    #[test]
    fn a_name_is_one_that_http_allows() {
        assert!(cookie().named("app-session").is_some());
        for wrong in ["", "a b", "a=b", "a;b", "ä"] {
            assert_eq!(cookie().named(wrong), None, "{wrong:?}");
        }
    }
}
