//! Where a server is, and whether the way to it is encrypted.

use std::fmt;

use tokio_postgres::Config;

#[cfg(feature = "tls")]
use super::tls::Connector;
use crate::error::{Error, ErrorKind, Result};

/// A server's URL, read when it is used.
pub(super) struct Address {
    url: String,
    /// Kept for as long as it works: certificates that were replaced are read anew after a failure.
    #[cfg(feature = "tls")]
    kept: std::sync::Mutex<Option<Connector>>,
}

/// How to talk to a server.
#[derive(Clone)]
pub(super) enum Wire {
    Plain,
    #[cfg(feature = "tls")]
    Encrypted(Connector),
}

/// What the URL says beside what the driver reads.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Without the keys that are ours.
    url: String,
    encrypted: bool,
    root: Option<String>,
}

impl Address {
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            #[cfg(feature = "tls")]
            kept: std::sync::Mutex::default(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn read(&self, operation: &'static str) -> Result<(Config, Wire)> {
        let bad = |what: &str| Error::new(ErrorKind::Config, operation, what.to_owned());
        let asked = read(&self.url).map_err(bad)?;
        // The driver's words may hold a part of the URL.
        let config = asked.url.parse().map_err(|_| bad("the URL of the server cannot be read"));
        let mut config: Config = config?;
        if !asked.encrypted {
            config.ssl_mode(tokio_postgres::config::SslMode::Disable);
            return Ok((config, Wire::Plain));
        }
        #[cfg(not(feature = "tls"))]
        return Err(bad("the URL asks for TLS; turn on the feature tls of resonant-ha"));
        #[cfg(feature = "tls")]
        {
            use std::sync::PoisonError;

            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let connector = match kept.take() {
                Some(connector) => connector,
                None => Connector::new(asked.root.as_deref()).map_err(|why| bad(&why))?,
            };
            *kept = Some(connector.clone());
            Ok((config, Wire::Encrypted(connector)))
        }
    }

    /// A connection could not be made: what was kept is not used again.
    pub(super) fn failed(&self) {
        #[cfg(feature = "tls")]
        drop(self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

/// Takes the keys out that say whether and to whom the way is encrypted.
fn read(url: &str) -> Result<Asked, &'static str> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut encrypted, mut root, mut rest) = (false, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            // A standby that gets the URL may be content with less; a manager looks who is there.
            ("sslmode", "require" | "verify-ca" | "verify-full") => encrypted = true,
            ("sslmode", "disable" | "prefer" | "allow") => encrypted = false,
            ("sslmode", _) => {
                return Err(
                    "sslmode must be verify-full, verify-ca or require, all of which verify \
                            the server's certificate and name, or disable, prefer or allow, which \
                            do without TLS",
                );
            }
            ("sslrootcert", path) => root = Some(decoded(path).ok_or("sslrootcert is no text")?),
            _ => rest.push(pair),
        }
    }
    let mark = if rest.is_empty() { "" } else { "?" };
    Ok(Asked { url: format!("{place}{mark}{}", rest.join("&")), encrypted, root })
}

/// `%2F` and the like as what they stand for.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = behind;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_tls_are_taken_out_and_unknown_modes_refused() {
        let asked = |url: &str, encrypted, root: Option<&str>| {
            Ok(Asked { url: url.to_owned(), encrypted, root: root.map(str::to_owned) })
        };
        assert_eq!(read("postgresql://a@b/c"), asked("postgresql://a@b/c", false, None));
        let url = "postgresql://a@b/c?sslmode=verify-full&application_name=x&sslrootcert=%2Fca.crt";
        let rest = "postgresql://a@b/c?application_name=x";
        assert_eq!(read(url), asked(rest, true, Some("/ca.crt")));
        for mode in ["require", "verify-ca"] {
            let asked = read(&format!("postgresql://a@b/c?sslmode={mode}"));
            assert!(asked.is_ok_and(|asked| asked.encrypted), "{mode}");
        }
        for mode in ["nonsense", ""] {
            assert!(read(&format!("postgresql://a@b/c?sslmode={mode}")).is_err(), "{mode}");
        }
        assert!(read("postgresql://a@b/c?sslrootcert=%zz").is_err());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn what_is_not_compiled_in_is_named() {
        let address = Address::new("postgresql://a@b/c?sslmode=verify-full");
        let refused = address.read("test").map(drop).unwrap_err();
        assert!(refused.message().contains("feature tls"), "{refused}");
    }
}
