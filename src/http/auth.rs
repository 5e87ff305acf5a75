//! Who asks.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// The shortest token taken.
pub(super) const SHORTEST: usize = 16;

/// Names and the digests of their tokens.
#[derive(Default)]
pub(super) struct Tokens(Vec<(String, [u8; 32])>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Tokens {
    pub(super) fn add(&mut self, name: String, token: &str) {
        self.0.push((name, digest(token.as_bytes())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token the request carries. All are compared, each in full, whichever it is.
    pub(super) fn holder(&self, headers: &HeaderMap) -> Option<&str> {
        let presented = digest(bearer(headers)?);
        let mut found = 0_u32;
        for (index, (_, known)) in self.0.iter().enumerate() {
            let same: Choice = known.ct_eq(&presented);
            let place = u32::try_from(index).ok()? + 1;
            found = u32::conditional_select(&found, &place, same);
        }
        let place = usize::try_from(found).ok()?.checked_sub(1)?;
        self.0.get(place).map(|(name, _)| name.as_str())
    }
}

/// Whether the request presents any token at all.
pub(super) fn presents(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Digests have one length, so that comparing them tells nothing of the tokens'.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn only_a_whole_token_opens() {
        let mut tokens = Tokens::default();
        tokens.add("ada".into(), "a long secret of ada's");
        tokens.add("bob".into(), "another secret of bob");
        let holder = |values: &[&str]| tokens.holder(&headers(values)).map(str::to_owned);
        assert_eq!(holder(&["Bearer a long secret of ada's"]).as_deref(), Some("ada"));
        assert_eq!(holder(&["bearer  another secret of bob "]).as_deref(), Some("bob"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a long secret of ada",
            "Bearer a long secret of ada's!",
            "Basic a long secret of ada's",
            "Digest another secret of bob",
            "a long secret of ada's",
        ] {
            assert_eq!(holder(&[wrong]), None, "{wrong}");
        }
        let twice = ["Bearer a long secret of ada's", "Bearer a long secret of ada's"];
        assert_eq!(holder(&twice), None, "two are one too many");
        assert_eq!(holder(&[]), None);
        assert_eq!(format!("{tokens:?}"), r#"["ada", "bob"]"#);
    }
}
