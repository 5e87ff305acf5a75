//! Opening a session: TLS as the mode says, the login, and whether the node is one that will do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode as DriverMode, SslNegotiation};
use tokio_util::task::AbortOnDropHandle;

use crate::backend::{Access, Credentials, ErrorExt, Notification, Target};
use crate::{Error, ErrorKind, Result, Role};

use super::Node;
use super::alarm::Alarm;
use super::driver::Driver;
use super::error::refused_login;
use super::facts::Facts;
use super::hosts;
use super::session::{Orphans, Session};
use super::settings::{SessionAttrs, Settings, SslMode};
use super::tap::Tap;
use super::wire::{Address, Cover, Ready, Route, WireFault};

/// How long one of several hosts may take if the URL does not say, so that one that is gone does not use up the time of
/// the others.
const ONE_OF_SEVERAL: Duration = Duration::from_millis(1500);

/// How long nothing at all may come: the server's own limit, and half of that again, from 500 ms to 2 s, for the answer
/// that it was reached.
fn silence(limit: Duration) -> Duration {
    let grace = (limit / 2).clamp(Duration::from_millis(500), Duration::from_secs(2));
    limit.saturating_add(grace)
}

/// What is special about one attempt to log in.
#[derive(Clone, Copy, Default)]
pub(super) struct Login<'a> {
    /// Other ones than the URL's.
    pub(super) credentials: Option<&'a Credentials>,
    /// Where notifications go.
    pub(super) heard: Option<&'a mpsc::Sender<Notification>>,
    /// Many will share the session; what the node is to them.
    pub(super) shared: Option<Role>,
}

/// How long a statement may run on a session that many share, and how long it may wait for a lock there.
pub(super) const SHARED_LIMIT: Duration = Duration::from_millis(200);
const SHARED_LOCK_LIMIT: Duration = Duration::from_millis(50);

impl Session {
    /// Opens a session with the first host that will do.
    pub(super) async fn open(node: &Arc<Node>, target: &Target, login: Login<'_>) -> Result<Self> {
        let Some(provider) = &target.credentials else {
            return Self::open_as(node, target, login).await;
        };
        let first = provider.ask(&target.name).await?;
        let refused =
            match Self::open_as(node, target, Login { credentials: Some(&first), ..login }).await {
                Err(error) if error.sqlstate().is_some_and(|code| code.starts_with("28")) => error,
                outcome => return outcome,
            };
        // They may have been changed in between.
        let second = provider.ask(&target.name).await?;
        if second == first {
            return Err(refused);
        }
        Self::open_as(node, target, Login { credentials: Some(&second), ..login }).await
    }

    async fn open_as(node: &Arc<Node>, target: &Target, login: Login<'_>) -> Result<Self> {
        let settings = &node.settings;
        let passes: &[bool] = match settings.attrs {
            // Any node will do once no standby was found.
            SessionAttrs::PreferStandby if target.access == Access::ReadOnly => &[true, false],
            _ => &[false],
        };
        let mut last = None;
        for only_standby in passes {
            let found = hosts::candidates(node, &target.name).await?;
            let several = (found.len() > 1).then_some(ONE_OF_SEVERAL);
            for (host, address) in found {
                let attempt =
                    Self::attempt(node, target, login, host, address.clone(), *only_standby);
                let limit = settings.config.get_connect_timeout().copied().or(several);
                let attempt = match limit {
                    None => attempt.await,
                    Some(limit) => timeout(limit, attempt).await.unwrap_or_else(|_| {
                        let message =
                            format!("{}: no session within connect_timeout={limit:?}", target.name);
                        Err(Error::new(ErrorKind::TimedOut, "connect", message))
                    }),
                };
                match attempt {
                    Ok(session) => {
                        if login.shared.is_none() {
                            node.whereabouts.found(address);
                        }
                        return Ok(session);
                    }
                    // Another host would be asked with the same wrong password.
                    Err(error)
                        if matches!(error.kind(), ErrorKind::Config | ErrorKind::Unsupported) =>
                    {
                        return Err(error);
                    }
                    Err(error) => last = Some(error),
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let message = format!("{}: the name has no address", target.name);
            Error::new(ErrorKind::Unavailable, "connect", message)
        }))
    }

    async fn attempt(
        node: &Arc<Node>,
        target: &Target,
        login: Login<'_>,
        host: String,
        address: Address,
        only_standby: bool,
    ) -> Result<Self> {
        let covers = covers(node.settings.ssl_mode);
        #[cfg(feature = "tls")]
        let tls = match covers.iter().any(|cover| *cover != Cover::None) {
            true => Some(node.connector(&target.name).await?),
            false => None,
        };
        #[cfg(not(feature = "tls"))]
        let _ = host;
        let route = Route {
            address,
            #[cfg(feature = "tls")]
            host,
            #[cfg(feature = "tls")]
            tls,
        };
        let mut last = None;
        for cover in covers {
            let plain = node.pooler.load(Ordering::Acquire);
            let mut outcome = Self::log_in(node, target, login, &route, *cover, !plain).await;
            // A pooler that refuses what a session is opened with is asked without it.
            if !plain && outcome.as_ref().is_err_and(LoginFault::is_poolers) {
                outcome = Self::log_in(node, target, login, &route, *cover, false).await;
            }
            match outcome {
                Ok(session) => {
                    session.check_options(node, target).await?;
                    session.check_role(target, login, only_standby).await?;
                    return Ok(session);
                }
                Err(fault) => {
                    let (again, error) = fault.explain(target, &node.settings);
                    if !again {
                        return Err(error);
                    }
                    // What the mode tried first is what the user should hear of.
                    last.get_or_insert(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(ErrorKind::Unavailable, "connect", "no attempt was made")
        }))
    }

    async fn log_in(
        node: &Arc<Node>,
        target: &Target,
        login: Login<'_>,
        route: &Route,
        cover: Cover,
        options: bool,
    ) -> std::result::Result<Self, LoginFault> {
        let settings = &node.settings;
        let (stream, encrypted) = route.open(settings, cover).await.map_err(LoginFault::Wire)?;
        let facts = Arc::new(Facts::default());
        let ready = Ready::of(&stream);
        let mut config =
            session_config(settings, target, encrypted, options, login.shared.is_some());
        if let Some(credentials) = login.credentials {
            config.password(credentials.secret());
            if let Some(user) = credentials.user_name() {
                config.user(user);
            }
        }
        let tap = Tap::new(stream, Arc::clone(&facts));
        let (client, connection) = config
            .connect_raw(tap, ready)
            .await
            .map_err(|error| LoginFault::Refused { error, encrypted })?;
        facts.start_counting();
        let driver = Driver::new(connection, Arc::clone(&facts), login.heard.cloned());
        let driver = tokio::spawn(driver.run());
        #[cfg(feature = "tls")]
        let cover = if encrypted { Cover::Required } else { Cover::None };
        Ok(Self {
            client: Arc::new(client),
            facts,
            driver: AbortOnDropHandle::new(driver),
            node: Arc::clone(node),
            name: Arc::clone(&target.name),
            orphans: Orphans::default(),
            alarm: Alarm::new(),
            route: route.clone(),
            cover,
            silence: target.statement_timeout.map(silence),
            limit: target.statement_timeout,
            options,
        })
    }

    /// Whether the node is what the URL and the caller want.
    async fn check_role(
        &self,
        target: &Target,
        login: Login<'_>,
        only_standby: bool,
    ) -> Result<()> {
        let attrs = self.node.settings.attrs;
        // What reads at a primary is to see what was written there.
        let writes = target.access == Access::ReadWrite || login.shared == Some(Role::Primary);
        let standby = match self.facts.standby() {
            Some(standby) => standby,
            // Before version 14 the server does not say.
            None => {
                let asked = self.client.query_typed("SELECT pg_is_in_recovery()", &[]).await;
                let rows = asked.map_err(|error| refused_login(&target.name, &error))?;
                let standby = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false);
                self.facts.set_standby(standby);
                standby
            }
        };
        let unwanted = match standby {
            true if writes => {
                Some("is a standby and takes no writes; point primary to the node that does")
            }
            true if matches!(attrs, SessionAttrs::Primary | SessionAttrs::ReadWrite) => {
                Some("is a standby, which target_session_attrs rules out")
            }
            false
                if attrs == SessionAttrs::Standby
                    || (attrs == SessionAttrs::ReadOnly && writes) =>
            {
                Some("is no standby, which target_session_attrs rules out")
            }
            false if only_standby => Some("is no standby"),
            _ => None,
        };
        match unwanted {
            None => Ok(()),
            Some(what) => {
                let message = format!("{}: {} {what}", target.name, self.route.address);
                Err(Error::new(ErrorKind::Unavailable, "connect", message))
            }
        }
    }

    /// Whether the server has taken what the session was opened with. If not, a pooler stands in between.
    async fn check_options(&self, node: &Node, target: &Target) -> Result<()> {
        if self.options {
            let sql = "SELECT current_setting('resonant.session', true)";
            let rows = self.client.query_typed(sql, &[]).await;
            let rows = rows.map_err(|error| refused_login(&target.name, &error))?;
            let taken: Option<String> = rows.first().and_then(|row| row.try_get(0).ok().flatten());
            if taken.as_deref() == Some("on") {
                return Ok(());
            }
        }
        if let Some(asked) = node.settings.config.get_options() {
            let message = format!(
                "{}: a pooler stands in between that does not keep options={asked:?}; set them for the role instead: ALTER \
                 ROLE … SET …",
                target.name
            );
            return Err(Error::new(ErrorKind::Unsupported, "connect", message));
        }
        self.facts.set_pooled();
        // Said once. From now on nobody tries the options first.
        if !node.pooler.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                node = %target.name,
                "a pooler stands in between: statements are not kept prepared, each runs in a transaction with its limit"
            );
        }
        Ok(())
    }
}

#[derive(Debug)]
enum LoginFault {
    Wire(WireFault),
    Refused { error: tokio_postgres::Error, encrypted: bool },
}

impl LoginFault {
    /// Whether it is a pooler's, to whom the session's options are nothing it knows.
    fn is_poolers(&self) -> bool {
        let Self::Refused { error, .. } = self else { return false };
        error.as_db_error().is_some_and(|said| {
            said.code().code() == "08P01" && said.message().contains("startup parameter")
        })
    }

    /// The error, and whether the mode lets another cover be tried.
    fn explain(self, target: &Target, settings: &Settings) -> (bool, Error) {
        let name = &target.name;
        #[cfg(not(feature = "tls"))]
        let _ = settings;
        match self {
            Self::Wire(WireFault::Io(error)) => {
                let message = format!("{name}: cannot be reached ({error})");
                (false, Error::new(ErrorKind::Unavailable, "connect", message).with_source(error))
            }
            #[cfg(feature = "tls")]
            Self::Wire(WireFault::Tls(fault)) => {
                let hint = match settings.ssl_mode {
                    SslMode::VerifyCa | SslMode::VerifyFull
                        if settings.certificates.root.is_none() =>
                    {
                        "; if the server's authority is a private one, name it: sslrootcert=/path/ca.crt"
                    }
                    SslMode::VerifyFull => {
                        "; the certificate must be of that authority and for that host name"
                    }
                    _ => "",
                };
                let message = format!("{name}: TLS failed ({fault}){hint}");
                (true, Error::new(ErrorKind::Config, "connect", message))
            }
            #[cfg(feature = "tls")]
            Self::Wire(WireFault::NoTls) => {
                let message = format!(
                    "{name}: the server has no TLS; turn it on there, or set sslmode=prefer"
                );
                (true, Error::new(ErrorKind::Config, "connect", message))
            }
            Self::Refused { error, encrypted } => {
                let login = error.code().is_some_and(|code| code.code().starts_with("28"));
                let again = match settings.ssl_mode {
                    SslMode::Prefer => login && encrypted,
                    SslMode::Allow => login && !encrypted,
                    _ => false,
                };
                (again, refused_login(name, &error))
            }
        }
    }
}

/// What is tried one after the other.
fn covers(mode: SslMode) -> &'static [Cover] {
    #[cfg(feature = "tls")]
    return match mode {
        SslMode::Disable => &[Cover::None],
        SslMode::Allow => &[Cover::None, Cover::Required],
        SslMode::Prefer => &[Cover::Offered, Cover::None],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Cover::Required],
    };
    #[cfg(not(feature = "tls"))]
    {
        let _ = mode;
        &[Cover::None]
    }
}

/// What the driver is told: the login and, as `options`, the limits the server is to keep.
fn session_config(
    settings: &Settings,
    target: &Target,
    encrypted: bool,
    options: bool,
    shared: bool,
) -> Config {
    let mut config = settings.config.clone();
    if shared {
        let name = config.get_application_name().unwrap_or("resonant").to_owned();
        config.application_name(format!("{name} lane"));
    }
    let asked = config.get_options().unwrap_or_default().to_owned();
    let mut all = String::new();
    if let Some(limit) = target.statement_timeout {
        all.push_str(&format!("-c statement_timeout={} ", millis(limit)));
    }
    all.push_str(&asked);
    // Behind what the user wrote, so that it stands.
    if target.access == Access::ReadOnly {
        all.push_str(" -c default_transaction_read_only=on");
    }
    if shared {
        // Behind what the user wrote, like the access.
        let limit = millis(target.statement_timeout.unwrap_or(SHARED_LIMIT));
        let lock = millis(SHARED_LOCK_LIMIT);
        all.push_str(&format!(" -c statement_timeout={limit} -c lock_timeout={lock}"));
        all.push_str(" -c idle_in_transaction_session_timeout=1000");
    }
    // A name of ours, to see whether options are kept.
    all.push_str(" -c resonant.session=on");
    if options {
        config.options(all.trim());
    }
    if encrypted {
        config.ssl_mode(DriverMode::Require).ssl_negotiation(SslNegotiation::Direct);
    } else {
        config.ssl_mode(DriverMode::Disable);
    }
    config
}

/// A limit as the server reads it.
pub(super) fn millis(limit: Duration) -> u128 {
    limit.as_millis().clamp(1, i32::MAX as u128)
}
