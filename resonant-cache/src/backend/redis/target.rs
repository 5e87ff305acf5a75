//! Where the servers are and who logs in: node URLs, read and checked.

use std::fmt;

use resonant_common::error::BoxError;

use crate::credentials::{Credentials, Provider};
use crate::error::{Error, ErrorKind, Result};

const DEFAULT_PORT: u16 = 6379;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who logs in. Never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// What the node URLs say together.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    /// Where to begin, each with its own login.
    pub(super) seeds: Vec<(Address, Login)>,
    pub(super) tls: bool,
    pub(super) database: u8,
    /// Asked for logins, if there is one.
    pub(super) provider: Option<Provider>,
}

impl Targets {
    pub(super) fn parse(nodes: &[String], cluster: bool) -> Result<Self> {
        let mut targets = Self { seeds: Vec::new(), tls: false, database: 0, provider: None };
        for (index, node) in nodes.iter().enumerate() {
            let (address, login, tls, database) = parse(node)?;
            if index > 0 && (tls, database) != (targets.tls, targets.database) {
                return Err(config("all nodes must agree on TLS and on the database number"));
            }
            (targets.tls, targets.database) = (tls, database);
            targets.seeds.push((address, login));
        }
        if cluster && targets.database != 0 {
            return Err(config("a Redis Cluster has database 0 only; leave the number out"));
        }
        if !cluster && targets.seeds.len() != 1 {
            return Err(config("cluster_mode(false) takes exactly one node"));
        }
        Ok(targets)
    }

    /// With a provider of logins, or without: then the URLs must say all of it.
    pub(super) fn asking(mut self, provider: Option<Provider>) -> Result<Self> {
        let lacks = |login: &Login| login.user.is_some() && login.password.is_none();
        if provider.is_none() && self.seeds.iter().any(|(_, login)| lacks(login)) {
            return Err(config("a node URL that names a user must have a password, too"));
        }
        self.provider = provider;
        Ok(self)
    }

    /// What to log in with at a server now.
    pub(super) async fn login(&self, address: &Address) -> Result<Login, BoxError> {
        let login = self.login_of_url(address);
        let Some(provider) = &self.provider else { return Ok(login) };
        let Credentials { user, password } = provider.ask().await?;
        Ok(Login { user: user.or(login.user), password: Some(password) })
    }

    /// A server's own login if its URL was given, otherwise the first node's.
    fn login_of_url(&self, address: &Address) -> Login {
        let own = self.seeds.iter().find(|(seed, _)| seed == address);
        own.or(self.seeds.first()).map(|(_, login)| login.clone()).unwrap_or_default()
    }
}

fn parse(node: &str) -> Result<(Address, Login, bool, u8)> {
    let (scheme, rest) = node
        .split_once("://")
        .ok_or_else(|| config("a node must be a URL such as redis://cache-1:6379, or memory:"))?;
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(config("a node's scheme must be redis, rediss, valkey or valkeys")),
    };
    if rest.contains('?') || rest.contains('#') {
        return Err(config("a node URL takes no parameters; settings have names of their own"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let database = match path.trim_end_matches('/') {
        "" => 0,
        number => number
            .parse()
            .map_err(|_| config("what follows the host must be a database number, such as /0"))?,
    };
    let (login, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (login(userinfo)?, host),
        None => (Login::default(), authority),
    };
    Ok((address(host)?, login, tls, database))
}

fn login(userinfo: &str) -> Result<Login> {
    let (user, password) = match userinfo.split_once(':') {
        Some((user, password)) => (user, Some(unescape(password)?)),
        None => (userinfo, None),
    };
    let user = Some(unescape(user)?).filter(|user| !user.is_empty());
    Ok(Login { user, password })
}

fn address(text: &str) -> Result<Address> {
    let bad = || config("a node's host or port is not valid");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':').or((rest.is_empty()).then_some("")).ok_or_else(bad)?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if host.is_empty() || host.contains(',') {
        return Err(config("a node URL names exactly one host; give one URL for each node"));
    }
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| bad())? };
    if port == 0 {
        return Err(bad());
    }
    Ok(Address { host: host.to_owned(), port })
}

/// Percent-decoding, for logins.
fn unescape(text: &str) -> Result<String> {
    let bad = || config("a node URL's user or password has a broken %-escape");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next().ok_or_else(bad)?, bytes.next().ok_or_else(bad)?];
                let digits = std::str::from_utf8(&digits).map_err(|_| bad())?;
                u8::from_str_radix(digits, 16).map_err(|_| bad())?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).map_err(|_| bad())
}

/// Never repeats the URL, which may hold a password.
fn config(message: &str) -> Error {
    Error::new(ErrorKind::Config, "build", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(node: &str) -> Result<(Address, Login, bool, u8)> {
        parse(node)
    }

    #[test]
    fn urls_of_every_kind_are_read() -> Result<()> {
        let cases = [
            ("redis://cache-1", "cache-1:6379", None, None, false, 0),
            ("valkey://cache-1:7000/", "cache-1:7000", None, None, false, 0),
            ("rediss://u%40x:p%2F%3a@h:1/3", "h:1", Some("u@x"), Some("p/:"), true, 3),
            ("redis://:secret@[::1]:7000", "[::1]:7000", None, Some("secret"), false, 0),
            ("valkeys://[::1]", "[::1]:6379", None, None, true, 0),
        ];
        for (url, address, user, password, tls, database) in cases {
            let (found, login, found_tls, found_database) = one(url)?;
            assert_eq!(found.to_string(), address, "{url}");
            assert_eq!((login.user.as_deref(), login.password.as_deref()), (user, password));
            assert_eq!((found_tls, found_database), (tls, database), "{url}");
        }
        Ok(())
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_them() {
        let cases = [
            "cache-1",
            "http://secret@x",
            "redis://",
            "redis://secret:pw@",
            "redis://a:secret",
            "redis://a,secret",
            "redis://u:secret%4@h",
            "redis://h/secret",
            "redis://h?secret=1",
            "redis://h:0",
        ];
        for url in cases {
            let Err(error) = one(url) else { panic!("{url} was taken") };
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn nodes_have_their_own_logins_and_others_the_first_ones() -> Result<()> {
        let nodes = ["redis://a:1@h1".to_owned(), "redis://b:2@h2".to_owned()];
        let targets = Targets::parse(&nodes, true)?;
        let at = |host: &str| Address { host: host.into(), port: 6379 };
        assert_eq!(targets.login_of_url(&at("h2")).user.as_deref(), Some("b"));
        assert_eq!(targets.login_of_url(&at("h3")).user.as_deref(), Some("a"));
        let user_only = Targets::parse(&["redis://user@h".to_owned()], true)?;
        assert!(user_only.clone().asking(None).is_err(), "nobody says the password");
        let provider = Provider::new(async || Ok::<_, std::io::Error>(Credentials::password("x")));
        assert!(user_only.asking(Some(provider)).is_ok());
        assert!(!format!("{targets:?}").contains('1') || !format!("{targets:?}").contains("pass"));
        for (nodes, cluster) in [(&nodes[..], false), (&["redis://h/1".to_owned()][..], true)] {
            assert!(Targets::parse(nodes, cluster).is_err());
        }
        Ok(())
    }
}
