//! Where a connection goes and what it may do there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// Only read; the engine refuses the rest.
    ReadOnly,
    /// Read and write. Default.
    #[default]
    ReadWrite,
}

/// Where a connection goes and what it may do there. `Debug` does not show the URL, which may hold a password.
#[derive(Clone)]
#[non_exhaustive]
pub struct Target {
    /// The node's name in messages and metrics: the URL without scheme, user, password and options.
    pub name: Arc<str>,
    /// The URL as the user wrote it.
    pub url: Arc<str>,
    /// What the connection may do.
    pub access: Access,
    /// How long one statement may run; `None` is for ever.
    pub statement_timeout: Option<Duration>,
}

impl Target {
    /// A target for the node at a URL.
    pub fn new(url: &str, access: Access, statement_timeout: Option<Duration>) -> Self {
        Self { name: name_of(url).into(), url: url.into(), access, statement_timeout }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("name", &self.name)
            .field("access", &self.access)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}

/// The scheme of a URL, without the colon.
pub(crate) fn scheme_of(url: &str) -> &str {
    match url.split_once(':') {
        Some((scheme, _))
            if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) =>
        {
            scheme
        }
        _ => "",
    }
}

/// What may be shown of a URL: neither scheme nor user, password or options.
pub(crate) fn name_of(url: &str) -> &str {
    let rest = url.strip_prefix(scheme_of(url)).unwrap_or(url);
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    match rest.strip_prefix("//") {
        // An unescaped @ or / in a password must not leave half of it behind: what is behind the last @ is safe.
        Some(authority) => authority.rsplit_once('@').map_or(authority, |(_, host)| host),
        None => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_no_secret() {
        let cases = [
            ("postgresql://user:s3cr3t@db-1:5432/app?sslpassword=s3cr3t", "db-1:5432/app"),
            ("postgresql://user:s3/cr@3t@db-1/app", "db-1/app"),
            ("postgresql://db-1:5432/app", "db-1:5432/app"),
            ("sqlite:/var/lib/app.db?synchronous=normal", "/var/lib/app.db"),
            ("sqlite://data/app.db", "data/app.db"),
            ("sqlite::memory:", ":memory:"),
        ];
        for (url, name) in cases {
            assert_eq!(name_of(url), name);
            let shown = format!("{:?}", Target::new(url, Access::ReadOnly, None));
            assert!(!shown.contains("s3"), "{shown}");
        }
    }

    #[test]
    fn the_scheme_is_what_stands_before_the_colon() {
        assert_eq!(scheme_of("postgresql://db"), "postgresql");
        assert_eq!(scheme_of("sqlite::memory:"), "sqlite");
        assert_eq!(scheme_of("/no/scheme"), "");
        assert_eq!(scheme_of("/odd/path:x"), "");
    }
}
