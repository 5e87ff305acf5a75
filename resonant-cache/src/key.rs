//! Names of values, and how they are written in a shared store.
//!
//! A stored key is `prefix:{namespace:key}`, with a suffix for what belongs to the same key (see
//! `docs/formats/cache.md`). Everything of one key stands inside one pair of braces, so a Redis Cluster puts it all in
//! one slot, and the key's own braces cannot choose that slot: `}` is escaped, and a `{` after ours means nothing.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// The full name of a value: its namespace and its key, as the user gave them.
///
/// `Debug` shows the namespace and a hash: keys may hold what must not be logged.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    namespace: Arc<str>,
    key: Arc<str>,
}

impl Key {
    /// The key `key` of the namespace `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, key: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), key: key.into() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The key inside the namespace.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// As it is written in a shared store.
    ///
    /// ```
    /// use resonant_cache::backend::Key;
    /// assert_eq!(Key::new("user", "7").encode("resonant"), "resonant:{user:7}");
    /// assert_eq!(Key::new("a:b", "{x}%").encode("resonant"), "resonant:{a%3Ab:{x%7D%25}");
    /// ```
    pub fn encode(&self, prefix: &str) -> String {
        let mut text =
            String::with_capacity(prefix.len() + self.namespace.len() + self.key.len() + 4);
        text.push_str(prefix);
        text.push_str(":{");
        escape(&self.namespace, true, &mut text);
        text.push(':');
        escape(&self.key, false, &mut text);
        text.push('}');
        text
    }

    /// The inverse of [`encode`](Key::encode), for what a store announces. `None` if `text` is no key of `prefix`.
    pub fn decode(prefix: &str, text: &str) -> Option<Self> {
        let inside = text.strip_prefix(prefix)?.strip_prefix(":{")?.strip_suffix('}')?;
        let (namespace, key) = inside.split_once(':')?;
        Some(Self::new(unescape(namespace)?, unescape(key)?))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = resonant_common::hash::key_hash(self.key.as_bytes());
        write!(f, "Key({}/#{hash:016x})", self.namespace)
    }
}

/// A namespace as it is written in a stored key.
#[cfg(feature = "redis")]
pub(crate) fn escape_namespace(namespace: &str) -> String {
    let mut text = String::with_capacity(namespace.len());
    escape(namespace, true, &mut text);
    text
}

fn escape(text: &str, colon: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '%' => out.push_str("%25"),
            '}' => out.push_str("%7D"),
            ':' if colon => out.push_str("%3A"),
            c => out.push(c),
        }
    }
}

pub(crate) fn unescape(text: &str) -> Option<String> {
    if text.contains('}') {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        out.push(match rest.get(at..at + 3)? {
            "%25" => '%',
            "%7D" => '}',
            "%3A" => ':',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(out)
}

/// A key inside this process: the namespace by number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LocalKey {
    pub(crate) namespace: u32,
    pub(crate) key: Arc<str>,
}

/// The same, borrowed, so that a lookup allocates nothing. Hashes as [`LocalKey`] does.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct LocalRef<'a> {
    pub(crate) namespace: u32,
    pub(crate) key: &'a str,
}

impl quick_cache::Equivalent<LocalKey> for LocalRef<'_> {
    fn equivalent(&self, other: &LocalKey) -> bool {
        self.namespace == other.namespace && *self.key == *other.key
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    /// Redis Cluster's rule: what stands between the first `{` and the first `}` after it, if not empty.
    fn hash_tag(stored: &str) -> Option<&str> {
        let from = stored.find('{')? + 1;
        let to = from + stored[from..].find('}')?;
        (from < to).then(|| &stored[from..to])
    }

    proptest! {
        #[test]
        fn every_key_round_trips_and_is_its_own_tag(namespace: String, key: String) {
            let name = Key::new(namespace, key);
            let stored = name.encode("p");
            prop_assert_eq!(Key::decode("p", &stored), Some(name));
            let inside = stored.strip_prefix("p:{").and_then(|rest| rest.strip_suffix('}'));
            prop_assert_eq!(hash_tag(&stored), inside, "the key's own braces chose the slot");
        }

        #[test]
        fn different_names_are_stored_apart(a: (String, String), b: (String, String)) {
            prop_assume!(a != b);
            prop_assert_ne!(
                Key::new(a.0, a.1).encode("p"),
                Key::new(b.0, b.1).encode("p")
            );
        }

        #[test]
        fn a_borrowed_key_hashes_as_the_owned_one(namespace: u32, key: String) {
            let hasher = RandomState::new();
            let owned = LocalKey { namespace, key: key.as_str().into() };
            prop_assert_eq!(
                hasher.hash_one(LocalRef { namespace, key: &key }),
                hasher.hash_one(owned)
            );
        }

        #[test]
        fn no_announcement_panics(text: String) {
            let _ = Key::decode("p", &text);
            let _ = Key::decode("p", &format!("p:{{{text}}}"));
        }
    }

    #[test]
    fn a_colon_cannot_move_a_key_into_another_namespace() {
        assert_ne!(Key::new("a:b", "c").encode("p"), Key::new("a", "b:c").encode("p"));
    }

    #[test]
    fn debug_hides_the_key() {
        let shown = format!("{:?}", Key::new("session", "secret-token"));
        assert!(shown.contains("session") && !shown.contains("secret"), "{shown}");
    }
}
