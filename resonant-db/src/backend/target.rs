//! Where a connection goes and what it may do there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::credentials::CredentialsProvider;

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
    /// Who to log in as, where the URL does not say; asked for each connection.
    pub credentials: Option<CredentialsProvider>,
}

impl Target {
    /// A target for the node at a URL.
    pub fn new(url: &str, access: Access, statement_timeout: Option<Duration>) -> Self {
        Self {
            name: name_of(url).into(),
            url: url.into(),
            access,
            statement_timeout,
            credentials: None,
        }
    }

    /// With a provider of credentials.
    #[must_use]
    pub fn with_credentials(self, credentials: Option<CredentialsProvider>) -> Self {
        Self { credentials, ..self }
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
///
/// Passwords in which `@`, `/`, `?` or `#` were not escaped are common, and so are URLs that lost their `@`, so the rule is not that
/// of the RFC: what may belong to a password is not shown, at worst less than could be.
pub(crate) fn name_of(url: &str) -> &str {
    let url = url.trim();
    let scheme = scheme_of(url);
    let rest = url.strip_prefix(scheme).unwrap_or(url);
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    if scheme == "sqlite" {
        // A path, which may hold any of these but the question mark.
        let path = rest.split('?').next().unwrap_or(rest);
        return path.strip_prefix("//").unwrap_or(path);
    }
    let head = &rest[..options_of(rest).unwrap_or(rest.len())];
    let name = match head.rsplit_once('@') {
        Some((_, host)) => host,
        None if is_host(head.trim_start_matches('/')) => head,
        None => match rest.rsplit_once('@') {
            Some((_, host)) => host,
            // A login without its host: behind the colon stands the password.
            None => head.split(':').next().unwrap_or(head),
        },
    };
    let name = name.split(['?', '#']).next().unwrap_or(name);
    name.strip_prefix("//").unwrap_or(name)
}

/// Where the options of a URL begin: at a question mark that a key and `=` follow.
fn options_of(rest: &str) -> Option<usize> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    rest.match_indices('?').map(|(at, _)| at).find(|at| {
        rest[at + 1..]
            .split_once('=')
            .is_some_and(|(key, _)| !key.is_empty() && key.chars().all(is_key))
    })
}

/// Whether a text begins like `host`, `host:port` or `[address]:port` rather than `user:password`.
fn is_host(text: &str) -> bool {
    let hosts = text.split(['/', '?', '#']).next().unwrap_or(text);
    hosts.split(',').all(|host| {
        let port = host.rsplit_once(']').map_or(host, |(_, port)| port);
        port.split_once(':')
            .is_none_or(|(_, port)| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()))
    })
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
            ("postgresql://user:s3?cr@3t@db-1/app?sslmode=require", "db-1/app"),
            ("postgresql://user:s3?k=3t@db-1/app", "db-1/app"),
            ("postgresql://user:s3#3t@db-1/app", "db-1/app"),
            ("postgresql://db-1:5432/app?user=me@s3", "db-1:5432/app"),
            ("postgresql://[::1]:5432,db-2/app?user=me@s3", "[::1]:5432,db-2/app"),
            ("postgresql://db-1/app?password=s3", "db-1/app"),
            (" postgresql://user:s3cr3t@db-1/app", "db-1/app"),
            ("//user:s3cr3t@db-1/app", "db-1/app"),
            ("user:s3cr3t@db-1/app", "db-1/app"),
            ("postgresql://user:s3cr3t/app", "user"),
            ("postgresql://user:s3cr3t?sslmode=require", "user"),
            ("postgresql://user:s3cr3t%40db-1/app", "user"),
            (" postgresql://user:s3cr3t/app", "user"),
            ("post_gres://user:s3cr3t/app", "post_gres"),
            ("sqlite:/home/me@work/app.db", "/home/me@work/app.db"),
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
