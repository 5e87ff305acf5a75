//! The settings in a SQLite URL.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resonant_common::duration;

use crate::backend::target::name_of;
use crate::{Error, ErrorKind, Result};

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    File(PathBuf),
    /// In memory, under a name of this process.
    Memory(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Create,
    Existing,
    Read,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) location: Location,
    pub(super) mode: Mode,
    pub(super) synchronous: &'static str,
    pub(super) busy_timeout: Duration,
    pub(super) cache_kib: u32,
    pub(super) statements: usize,
}

impl Options {
    /// Reads a URL as the module describes it.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let refuse = |rule: String| {
            Error::new(ErrorKind::Config, "connect", format!("{}: {rule}", name_of(url)))
        };
        let rest = url
            .strip_prefix("sqlite:")
            .ok_or_else(|| refuse("a SQLite URL starts with sqlite:".into()))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Self {
            location: location(path).map_err(refuse)?,
            mode: Mode::Create,
            synchronous: "FULL",
            busy_timeout: Duration::from_secs(5),
            cache_kib: 2048,
            statements: 128,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            options.set(key, value).map_err(refuse)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        match key {
            "mode" => {
                self.mode = match value {
                    "rwc" => Mode::Create,
                    "rw" => Mode::Existing,
                    "ro" => Mode::Read,
                    _ => return Err("mode is rwc, rw or ro".into()),
                }
            }
            "synchronous" => {
                self.synchronous = match value {
                    "full" => "FULL",
                    "extra" => "EXTRA",
                    "normal" => "NORMAL",
                    "off" => "OFF",
                    _ => return Err("synchronous is full, extra, normal or off".into()),
                }
            }
            "busy_timeout" => {
                let wait =
                    duration::parse(value).map_err(|fault| format!("busy_timeout: {fault}"))?;
                if wait > Duration::from_secs(24 * 60 * 60) {
                    return Err("busy_timeout is at most a day".into());
                }
                self.busy_timeout = wait;
            }
            "cache" => {
                self.cache_kib = match value.parse() {
                    Ok(kib @ 1..=1_048_576) => kib,
                    _ => return Err("cache is 1 to 1048576 KiB".into()),
                }
            }
            "statements" => {
                self.statements = match value.parse() {
                    Ok(count @ 1..=10_000) => count,
                    _ => return Err("statements is 1 to 10000".into()),
                }
            }
            _ => {
                return Err(format!(
                    "unknown key {key:?}; there are mode, synchronous, busy_timeout, cache, statements"
                ));
            }
        }
        Ok(())
    }
}

fn location(path: &str) -> std::result::Result<Location, String> {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    if path == ":memory:" {
        return Ok(Location::Memory(NAMES.fetch_add(1, Ordering::Relaxed)));
    }
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err("the path is missing: write sqlite:/path/file.db or sqlite::memory:".into());
    }
    let decoded = decode(path).ok_or("a % in the path is followed by two hexadecimal digits")?;
    if decoded.contains('\0') {
        return Err("a path holds no NUL".into());
    }
    Ok(Location::File(decoded.into()))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let [high, low, tail @ ..] = rest else { return None };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() -> Result<()> {
        let options = Options::parse(
            "sqlite:/tmp/my%20file.db?synchronous=normal&busy_timeout=250ms&mode=rw&cache=64&statements=3",
        )?;
        let expected = Options {
            location: Location::File("/tmp/my file.db".into()),
            mode: Mode::Existing,
            synchronous: "NORMAL",
            busy_timeout: Duration::from_millis(250),
            cache_kib: 64,
            statements: 3,
        };
        assert_eq!(options, expected);
        for (url, path) in
            [("sqlite:a.db", "a.db"), ("sqlite://a.db", "a.db"), ("sqlite:///a.db", "/a.db")]
        {
            assert_eq!(Options::parse(url)?.location, Location::File(path.into()), "{url}");
        }
        let (one, other) = (Options::parse("sqlite::memory:")?, Options::parse("sqlite::memory:")?);
        assert_ne!(one.location, other.location);
        assert_eq!((one.synchronous, one.mode), ("FULL", Mode::Create));
        Ok(())
    }

    #[test]
    fn a_bad_one_names_the_rule() {
        let cases = [
            ("postgresql://x", "starts with sqlite:"),
            ("sqlite:", "the path is missing"),
            ("sqlite:/a%2.db", "two hexadecimal digits"),
            ("sqlite:/a?mode=x", "mode is rwc, rw or ro"),
            ("sqlite:/a?synchronous=never", "synchronous is full"),
            ("sqlite:/a?busy_timeout=soon", "no duration"),
            ("sqlite:/a?busy_timeout=9999999", "at most a day"),
            ("sqlite:/a?cache=0", "cache is 1 to"),
            ("sqlite:/a?statements=x", "statements is 1 to"),
            ("sqlite:/a?sync=full", "unknown key \"sync\""),
        ];
        for (url, rule) in cases {
            let error = Options::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(rule), "{error}");
        }
    }

    #[test]
    fn every_path_survives_its_url() -> Result<()> {
        for path in ["/a b/100%?#.db", "/ä/ö.db", "rel/x.db"] {
            let options = Options::parse(&super::super::url(path))?;
            assert_eq!(options.location, Location::File(path.into()));
        }
        Ok(())
    }
}
