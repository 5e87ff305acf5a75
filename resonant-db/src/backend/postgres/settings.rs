//! A node's URL: what libpq's parameters say, and a few of our own.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslMode as DriverMode};

use crate::backend::target::name_of;
use crate::{Error, ErrorKind, Result};

use super::environment;

/// What `sslmode` asks for, in libpq's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Which nodes of a URL with several hosts will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// Files of certificates. Nothing is read before a connection needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Certificates {
    /// The authorities trusted; `None` is those of the system.
    pub(super) root: Option<PathBuf>,
    /// The client's own, with its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// The settings a URL holds.
#[derive(Clone)]
pub(super) struct Settings {
    /// Hosts, login, options: what the driver knows. Its TLS mode is never asked.
    pub(super) config: Config,
    /// The ports of parameters, for hosts of which the URL's address names none.
    ports: Option<Vec<u16>>,
    pub(super) ssl_mode: SslMode,
    pub(super) ssl_direct: bool,
    pub(super) certificates: Certificates,
    pub(super) attrs: SessionAttrs,
    pub(super) tcp_user_timeout: Option<Duration>,
    /// How many statements a connection keeps prepared.
    pub(super) statements: usize,
    /// Reset the session after every use, not only where there is reason to.
    pub(super) always_reset: bool,
    /// Parameters of the URL that nobody knows.
    pub(super) unknown: Vec<String>,
    /// Variables of the environment that mean something to libpq and nothing here.
    pub(super) unheeded: Vec<&'static str>,
}

/// What an idle connection sends to see whether the other side is still there, unless the URL says otherwise.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
const STATEMENTS: usize = 256;

/// Parameters of libpq that cannot be left out without being less safe than was asked for.
const REFUSED: [&str; 12] = [
    "gssencmode",
    "krbsrvname",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

const UNREADABLE: &str = "the URL cannot be read: postgresql://user:password@host:5432/database, with %-escapes for special characters";

impl Settings {
    /// Reads a URL, and where it is silent the environment (`PGUSER`, `PGSSLMODE`, …), as libpq does.
    pub(super) fn parse(url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let name = name_of(url);
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut settings = Self {
            config: address.parse().map_err(|_| bad(name, UNREADABLE))?,
            ports: None,
            ssl_mode: SslMode::Prefer,
            ssl_direct: false,
            certificates: Certificates::default(),
            attrs: SessionAttrs::Any,
            tcp_user_timeout: Some(TCP_USER_TIMEOUT),
            statements: STATEMENTS,
            always_reset: false,
            unknown: Vec::new(),
            unheeded: Vec::new(),
        };
        let (idle, interval, retries) = KEEPALIVE;
        settings
            .config
            .keepalives_idle(idle)
            .keepalives_interval(interval)
            .keepalives_retries(retries);
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(name, key)?;
            // What is no key may be the end of a password.
            if !key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
                return Err(bad(name, UNREADABLE));
            }
            pairs.push((key, decode(name, value)?));
        }
        let mut given: Vec<&str> = Vec::new();
        for (key, value) in &pairs {
            given.push(canonical(key));
            settings.apply(name, canonical(key), value)?;
        }
        if names_a_port(address) {
            given.push("port");
        }
        settings.fill_in(name, &given, env)?;
        settings.finish(name)
    }

    /// Takes from the environment what the URL leaves out.
    fn fill_in(
        &mut self,
        name: &str,
        given: &[&str],
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let env = |variable: &str| env(variable).filter(|value| !value.is_empty());
        self.unheeded = environment::unheeded(env);
        let placed = !self.config.get_hosts().is_empty() || !self.config.get_hostaddrs().is_empty();
        let place = environment::PLACE.iter().filter(|_| !placed);
        for (variable, key) in place.chain(&environment::HEEDED) {
            let Some(value) = env(variable) else { continue };
            if given.contains(key) || self.has(key) {
                continue;
            }
            // Meant for other programs: what travels is UTF-8 all the same.
            if *key == "client_encoding" && !environment::is_our_encoding(&value) {
                self.unheeded.push(variable);
            } else if *key != "client_encoding" {
                self.apply(name, key, &value)?;
            }
        }
        let is_given = given.contains(&"sslmode") || env("PGSSLMODE").is_some();
        if !is_given && env(environment::REQUIRE_SSL).as_deref() == Some("1") {
            self.ssl_mode = SslMode::Require;
        }
        Ok(())
    }

    /// Whether the address part of the URL has already said it.
    fn has(&self, key: &str) -> bool {
        match key {
            "user" => self.config.get_user().is_some(),
            "password" => self.config.get_password().is_some(),
            "dbname" => self.config.get_dbname().is_some(),
            "host" => !self.config.get_hosts().is_empty(),
            _ => false,
        }
    }

    /// The port of the host at this place.
    pub(super) fn port(&self, at: usize) -> u16 {
        let ports = self.ports.as_deref().unwrap_or(self.config.get_ports());
        ports.get(at).or(ports.first()).copied().unwrap_or(5432)
    }

    fn apply(&mut self, name: &str, key: &str, value: &str) -> Result<()> {
        let wrong = || bad_value(name, key);
        let path = || PathBuf::from(value);
        match key {
            "sslmode" => {
                self.ssl_mode = match value {
                    "disable" => SslMode::Disable,
                    "allow" => SslMode::Allow,
                    "prefer" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    _ => {
                        let message =
                            "sslmode is disable, allow, prefer, require, verify-ca or verify-full";
                        return Err(bad(name, message));
                    }
                }
            }
            "sslnegotiation" => {
                self.ssl_direct = match value {
                    "postgres" => false,
                    "direct" => true,
                    _ => return Err(wrong()),
                }
            }
            "sslrootcert" if value == "system" => self.certificates.root = None,
            "sslrootcert" => self.certificates.root = Some(path()),
            "sslcert" => self.certificates.client.get_or_insert_default().0 = path(),
            "sslkey" => self.certificates.client.get_or_insert_default().1 = path(),
            "sslsni" | "sslcompression" => {}
            "target_session_attrs" => {
                self.attrs = match value {
                    "any" => SessionAttrs::Any,
                    "read-write" => SessionAttrs::ReadWrite,
                    "read-only" => SessionAttrs::ReadOnly,
                    "primary" => SessionAttrs::Primary,
                    "standby" => SessionAttrs::Standby,
                    "prefer-standby" => SessionAttrs::PreferStandby,
                    _ => return Err(wrong()),
                }
            }
            "tcp_user_timeout" => {
                let millis: u64 = value.parse().map_err(|_| wrong())?;
                self.tcp_user_timeout = (millis > 0).then(|| Duration::from_millis(millis));
            }
            "statements" => self.statements = value.parse().map_err(|_| wrong())?,
            "session_reset" => {
                self.always_reset = match value {
                    "always" => true,
                    "needed" => false,
                    _ => return Err(wrong()),
                }
            }
            "client_encoding" if value.eq_ignore_ascii_case("utf8") || value == "auto" => {}
            "client_encoding" => return Err(bad(name, "client_encoding is always UTF8")),
            "fallback_application_name" => {
                if self.config.get_application_name().is_none() {
                    self.config.application_name(value);
                }
            }
            key if REFUSED.contains(&key) => {
                let message =
                    format!("{name}: {key} of libpq is not supported here; take it out of the URL");
                return Err(Error::new(ErrorKind::Unsupported, "connect", message));
            }
            _ => return self.hand_on(name, key, value),
        }
        Ok(())
    }

    /// A parameter the driver reads.
    fn hand_on(&mut self, name: &str, key: &str, value: &str) -> Result<()> {
        const DRIVER: [&str; 14] = [
            "application_name",
            "channel_binding",
            "connect_timeout",
            "dbname",
            "host",
            "hostaddr",
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_retries",
            "load_balance_hosts",
            "options",
            "password",
            "port",
        ];
        if key == "user" {
            self.config.user(value);
            return Ok(());
        }
        if key == "password" {
            self.config.password(value);
            return Ok(());
        }
        if !DRIVER.contains(&key) {
            self.unknown.push(key.to_owned());
            return Ok(());
        }
        // The driver reads a single parameter in libpq's other notation.
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let one: Config = format!("{key}='{quoted}'").parse().map_err(|_| bad_value(name, key))?;
        let config = &mut self.config;
        match key {
            "application_name" => {
                config.application_name(value);
            }
            "channel_binding" => {
                config.channel_binding(one.get_channel_binding());
            }
            "connect_timeout" => {
                if let Some(limit) = one.get_connect_timeout() {
                    config.connect_timeout(*limit);
                }
            }
            "dbname" => {
                config.dbname(value);
            }
            "host" => {
                for host in one.get_hosts() {
                    match host {
                        Host::Tcp(host) => config.host(host),
                        #[cfg(unix)]
                        Host::Unix(path) => config.host_path(path),
                    };
                }
            }
            "hostaddr" => {
                for address in one.get_hostaddrs() {
                    config.hostaddr(*address);
                }
            }
            "keepalives" => {
                config.keepalives(one.get_keepalives());
            }
            "keepalives_idle" => {
                config.keepalives_idle(one.get_keepalives_idle());
            }
            "keepalives_interval" => {
                if let Some(interval) = one.get_keepalives_interval() {
                    config.keepalives_interval(interval);
                }
            }
            "keepalives_retries" => {
                if let Some(retries) = one.get_keepalives_retries() {
                    config.keepalives_retries(retries);
                }
            }
            "load_balance_hosts" => {
                config.load_balance_hosts(one.get_load_balance_hosts());
            }
            "options" => {
                config.options(value);
            }
            _ => self.ports = Some(one.get_ports().to_vec()),
        }
        Ok(())
    }

    fn finish(mut self, name: &str) -> Result<Self> {
        if self.config.get_hosts().is_empty() && self.config.get_hostaddrs().is_empty() {
            return Err(bad(
                name,
                "the URL names no host: postgresql://host:5432/database, or ?host=/var/run/postgresql",
            ));
        }
        if let Some((certificate, key)) = &self.certificates.client
            && (certificate.as_os_str().is_empty() || key.as_os_str().is_empty())
        {
            return Err(bad(name, "sslcert and sslkey come together"));
        }
        // As in libpq: whoever names the authorities wants the certificate checked against them.
        if self.ssl_mode == SslMode::Require && self.certificates.root.is_some() {
            self.ssl_mode = SslMode::VerifyCa;
        }
        let required = self.ssl_mode >= SslMode::Require;
        if self.ssl_direct && !required {
            return Err(bad(name, "sslnegotiation=direct needs sslmode=require or stronger"));
        }
        if self.config.get_channel_binding() == ChannelBinding::Require
            && self.ssl_mode == SslMode::Disable
        {
            return Err(bad(
                name,
                "channel_binding=require needs TLS: set sslmode=require or stronger",
            ));
        }
        if cfg!(not(feature = "tls")) && required {
            let message = format!(
                "{name}: this sslmode needs the feature `tls` of resonant-db; add it to Cargo.toml"
            );
            return Err(Error::new(ErrorKind::Unsupported, "connect", message));
        }
        self.config.ssl_mode(DriverMode::Disable);
        Ok(self)
    }
}

impl PartialOrd for SslMode {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (*self as u8).partial_cmp(&(*other as u8))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("hosts", &self.config.get_hosts())
            .field("ssl_mode", &self.ssl_mode)
            .field("attrs", &self.attrs)
            .finish_non_exhaustive()
    }
}

/// Whether the address of a URL names a port: the driver's reading of it has one in any case.
fn names_a_port(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    let hosts = rest.split('/').next().unwrap_or_default();
    hosts.split(',').any(|host| host.rsplit(']').next().is_some_and(|rest| rest.contains(':')))
}

/// The one name of parameters that others spell differently.
fn canonical(key: &str) -> &str {
    match key {
        "ssl-mode" => "sslmode",
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "sslrootcert",
        "ssl-cert" => "sslcert",
        "ssl-key" => "sslkey",
        "statement-cache-capacity" => "statements",
        "keepalives_count" => "keepalives_retries",
        key => key,
    }
}

fn bad(name: &str, message: &str) -> Error {
    Error::new(ErrorKind::Config, "connect", format!("{name}: {message}"))
}

/// Not the value itself: of a password with a question mark the rest is read as a parameter.
fn bad_value(name: &str, key: &str) -> Error {
    bad(name, &format!("{key} has a value it cannot have"))
}

fn decode(name: &str, text: &str) -> Result<String> {
    let broken = || bad(name, "a %-escape in the URL is broken");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, later)) = rest.split_first() {
        rest = later;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits =
            rest.get(..2).and_then(|pair| std::str::from_utf8(pair).ok()).ok_or_else(broken)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| broken())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

#[cfg(test)]
mod tests;
