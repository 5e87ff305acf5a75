//! What all Redis servers of the kit can be told, and the file it ends up in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::binaries::{Engine, Servers};
use crate::error::{Error, ErrorKind, Result};

/// The kit's own user, who may do everything, also where the default user may not.
pub(super) const OWN_USER: &str = "testkit";
pub(super) const OWN_PASSWORD: &str = "testkit";

/// A user with a password and rules, as `ACL SETUSER` spells them.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: String,
    pub(super) rules: String,
}

/// Options that a standalone server and a cluster share.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) servers: Option<Servers>,
    pub(super) logins: Vec<Login>,
    pub(super) tls: bool,
    pub(super) durable: bool,
    pub(super) no_tracking: bool,
    pub(super) forbidden: Vec<String>,
    pub(super) settings: Vec<(String, String)>,
}

/// The cluster's part of the configuration.
#[derive(Clone, Debug)]
pub(super) struct ClusterConfig {
    pub(super) bus_port: u16,
    pub(super) node_timeout_ms: u128,
}

impl Options {
    pub(super) fn program(&self) -> Result<PathBuf> {
        let servers = self.servers.clone().unwrap_or_else(Servers::from_env);
        Ok(servers.find(Engine::Redis)?.join("redis-server"))
    }

    /// The text of `redis.conf`.
    pub(super) fn render(
        &self,
        folder: &Path,
        port: u16,
        cluster: Option<&ClusterConfig>,
    ) -> Result<String> {
        let mut text = String::new();
        let mut line = |words: &str| {
            let _ = writeln!(text, "{words}");
        };
        let path = |name: &str| folder.join(name).display().to_string();
        line("bind 127.0.0.1");
        line("protected-mode no");
        line(&format!("dir {}", path("")));
        line(&format!("unixsocket {}", path("s")));
        line("daemonize no");
        line("repl-diskless-sync-delay 0");
        line("save \"\"");
        line(if self.durable { "appendonly yes\nappendfsync always" } else { "appendonly no" });
        if self.tls {
            line(&format!("port 0\ntls-port {port}\ntls-auth-clients no"));
            line(&format!(
                "tls-cert-file {}\ntls-key-file {}",
                path("server.crt"),
                path("server.key")
            ));
            line(&format!("tls-ca-cert-file {}", path("ca.crt")));
        } else {
            line(&format!("port {port}"));
        }
        if let Some(cluster) = cluster {
            line(
                "cluster-enabled yes\ncluster-replica-validity-factor 0\ncluster-require-full-coverage no",
            );
            line(&format!("cluster-node-timeout {}", cluster.node_timeout_ms));
            line(&format!("cluster-port {}", cluster.bus_port));
            if self.tls {
                line("tls-cluster yes\ntls-replication yes");
            }
        }
        line(&format!("user {OWN_USER} on >{OWN_PASSWORD} ~* &* +@all"));
        line(&format!("masteruser {OWN_USER}\nmasterauth {OWN_PASSWORD}"));
        let withheld = if self.no_tracking { " -client|tracking" } else { "" };
        if self.logins.is_empty() {
            line(&format!("user default on nopass ~* &* +@all{withheld}"));
        } else {
            line("user default off");
        }
        for Login { name, password, rules } in &self.logins {
            if [name, password]
                .iter()
                .any(|word| word.is_empty() || word.contains(char::is_whitespace))
            {
                let message = format!(
                    "a name and a password without spaces are needed, not {name:?} and its own"
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
            line(&format!("user {name} on >{password} {rules}{withheld}"));
        }
        for command in &self.forbidden {
            line(&format!("rename-command {command} \"\""));
        }
        for (name, value) in &self.settings {
            line(&format!("{name} {value}"));
        }
        Ok(text)
    }
}

/// The methods both builders have; each has its options in a field `options`.
macro_rules! shared_options {
    () => {
        /// A user who may log in with this password and do what the rules say, in the words of `ACL SETUSER`, for instance
        /// `~app:* +@read +@write`. With the first one the default user is switched off, as in production.
        pub fn login(
            mut self,
            name: impl Into<String>,
            password: impl Into<String>,
            rules: impl Into<String>,
        ) -> Self {
            let (name, password, rules) = (name.into(), password.into(), rules.into());
            self.options.logins.push(super::config::Login { name, password, rules });
            self
        }

        /// Serves TLS only, with a certificate for `localhost` and `127.0.0.1` of a private authority, see
        /// [`RedisNode::ca_file`](super::RedisNode::ca_file).
        pub fn tls(mut self) -> Self {
            self.options.tls = true;
            self
        }

        /// Writes every change to disk before it is acknowledged. Default off: a killed server comes back empty.
        pub fn durable(mut self) -> Self {
            self.options.durable = true;
            self
        }

        /// Forbids `CLIENT TRACKING` to every user, as some hosted services do. Needs Redis 7; on 6 forbid `CLIENT` as a
        /// whole with [`forbid`](Self::forbid).
        pub fn without_tracking(mut self) -> Self {
            self.options.no_tracking = true;
            self
        }

        /// Takes a command away from everybody, the kit included.
        pub fn forbid(mut self, command: impl Into<String>) -> Self {
            self.options.forbidden.push(command.into());
            self
        }

        /// A line of `redis.conf`.
        pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.options.settings.push((name.into(), value.into()));
            self
        }

        /// Where the program comes from. Default [`Servers::from_env`](crate::Servers::from_env).
        pub fn servers(mut self, servers: crate::Servers) -> Self {
            self.options.servers = Some(servers);
            self
        }
    };
}
pub(super) use shared_options;
