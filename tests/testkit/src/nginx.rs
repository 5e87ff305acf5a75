//! nginx with a configuration of the test's own.
//!
//! ```no_run
//! # async fn example() -> resonant_testkit::Result<()> {
//! use resonant_testkit::Nginx;
//!
//! let nginx = Nginx::builder()
//!     .http(
//!         "upstream app { zone app 64k; server 127.0.0.1:8001; server 127.0.0.1:8002; }
//!          server { listen {{listen}}; location / { proxy_pass http://app; } }",
//!     )
//!     .start()
//!     .await?;
//! let url = nginx.url();                               // http://127.0.0.1:PORT
//! # Ok(()) }
//! ```
//!
//! A text may hold `{{listen}}` (address and port of the main listener), `{{dir}}` (a folder of its own) and what
//! [`NginxBuilder::value`] names. With [`NginxBuilder::config`] a whole file can be tried, for instance the one that goes to
//! production.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::binaries::{Engine, Servers};
use crate::dirs::ServerDir;
use crate::error::{Error, ErrorKind, Result};
use crate::ports::Port;
use crate::process::{Launch, Process, Slot, command_line, run_tool, tail};
use crate::wait::{ANSWER, LIMIT, Wait};

/// The frame around the text given with [`NginxBuilder::http`].
const FRAME: &str = "worker_processes 1;
events { worker_connections 1024; }
http { {{http}} }
";

/// What is put into every `http { … }`, unless the text says it itself: else nginx writes where only root may.
const OWN_PATHS: &[(&str, &str)] = &[
    ("access_log", "off"),
    ("client_body_temp_path", "{{dir}}/body"),
    ("proxy_temp_path", "{{dir}}/proxy"),
    ("fastcgi_temp_path", "{{dir}}/fastcgi"),
    ("uwsgi_temp_path", "{{dir}}/uwsgi"),
    ("scgi_temp_path", "{{dir}}/scgi"),
];

/// How an [`Nginx`] is built.
#[derive(Clone, Debug, Default)]
pub struct NginxBuilder {
    servers: Option<Servers>,
    text: Option<String>,
    values: BTreeMap<String, String>,
}

impl NginxBuilder {
    /// What stands inside `http { … }`; everything around it is the kit's.
    pub fn http(mut self, text: impl AsRef<str>) -> Self {
        self.text = Some(FRAME.replace("{{http}}", text.as_ref()));
        self
    }

    /// A whole configuration file. `daemon` and `pid` are set from outside and must not stand in it; its errors go to
    /// [`Nginx::log_file`] unless it says otherwise, and it writes no access log unless it asks for one.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// What `{{name}}` stands for in the text.
    pub fn value(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    /// Where the program comes from. Default [`Servers::from_env`].
    pub fn servers(mut self, servers: Servers) -> Self {
        self.servers = Some(servers);
        self
    }

    /// Checks the configuration, starts nginx and waits until it listens.
    ///
    /// # Errors
    /// `Config` without a text, or when nginx finds the configuration bad (its words are the [`log`](Error::log));
    /// `MissingBinary`, `Exited` and `TimedOut` when it does not come up.
    pub async fn start(self) -> Result<Nginx> {
        let Some(text) = self.text else {
            return Err(Error::new(
                ErrorKind::Config,
                "nginx needs a configuration: call http(…) or config(…)",
            ));
        };
        let program =
            self.servers.unwrap_or_else(Servers::from_env).find(Engine::Nginx)?.join("nginx");
        let inner = Inner {
            program,
            values: Mutex::new(self.values),
            text: Mutex::new(text),
            process: Slot::new("nginx"),
            dir: ServerDir::create("nginx")?,
            port: Port::claim()?,
        };
        let nginx = Nginx { inner: Arc::new(inner) };
        nginx.write()?;
        nginx.check().await?;
        nginx.start().await?;
        Ok(nginx)
    }
}

/// A running nginx. A cheap handle: clones are the same server, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Nginx {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    values: Mutex<BTreeMap<String, String>>,
    text: Mutex<String>,
    process: Slot,
    dir: ServerDir,
    port: Port,
}

impl Nginx {
    /// A builder.
    pub fn builder() -> NginxBuilder {
        NginxBuilder::default()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What `{{listen}}` stands for.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.inner.port.number()).into()
    }

    /// The file its errors go to.
    pub fn log_file(&self) -> PathBuf {
        self.inner.dir.join("log")
    }

    /// Whether its process runs. A frozen one does.
    pub fn is_running(&self) -> bool {
        self.inner.process.is_running()
    }

    /// Starts it after a stop or a kill, and waits until it listens. Does nothing while it runs.
    ///
    /// # Errors
    /// `Exited` with the log when it ends at once, `TimedOut` when it does not listen.
    pub async fn start(&self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let process = self.inner.process.start(self.launch("daemon off;"))?;
        let mut wait = Wait::new("nginx listening", LIMIT);
        while let Err(error) = TcpStream::connect(self.address()).await {
            process.check()?;
            wait.pause(error).await?;
        }
        Ok(())
    }

    /// Takes a new value for `{{name}}`, reloads, and returns when new connections meet the new configuration. Old ones end in
    /// their time.
    ///
    /// # Errors
    /// `Config` when nginx finds the result bad; the old configuration stays in force. `Lost` when it does not run, `TimedOut`
    /// with the log when it does not change over, because it is frozen or a port of the new configuration is taken.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        let mut values = self.inner.values.lock().unwrap_or_else(PoisonError::into_inner).clone();
        values.insert(name.to_owned(), value.to_owned());
        self.reload_with(|inner| &inner.values, values).await
    }

    /// Takes a new text for `http { … }` and reloads, as [`set`](Self::set) does.
    ///
    /// # Errors
    /// Those of [`set`](Self::set).
    pub async fn reload(&self, http: &str) -> Result<()> {
        self.reload_with(|inner| &inner.text, FRAME.replace("{{http}}", http)).await
    }

    async fn reload_with<T>(&self, part: impl Fn(&Inner) -> &Mutex<T>, new: T) -> Result<()> {
        let replace = |new: T| {
            std::mem::replace(
                &mut *part(&self.inner).lock().unwrap_or_else(PoisonError::into_inner),
                new,
            )
        };
        let old = replace(new);
        self.write()?;
        if let Err(error) = self.check().await {
            replace(old);
            self.write()?;
            return Err(error);
        }
        let process = self.inner.process.running()?;
        let old = process.descendants();
        process.signal(Signal::HUP)?;
        self.changed_over(&process, &old).await
    }

    /// Waits until no worker of the old configuration takes connections. One that still serves some says so of itself.
    async fn changed_over(&self, process: &Process, old: &[u32]) -> Result<()> {
        let mut wait = Wait::new("nginx changing over to its new configuration", ANSWER);
        loop {
            process.check()?;
            let now = process.descendants();
            let takes = |pid: &&u32| !command_line(**pid).contains("shutting down");
            let late = now.iter().filter(|pid| old.contains(pid)).filter(takes).count();
            if late == 0 && (old.is_empty() || now.iter().any(|pid| !old.contains(pid))) {
                return Ok(());
            }
            let seen = format!("{late} workers of the old one take connections");
            wait.pause(seen).await.map_err(|error| error.with_log(tail(&self.log_file())))?;
        }
    }

    /// Lets it finish what it serves, then ends it.
    ///
    /// # Errors
    /// `TimedOut` when it does not end.
    pub async fn stop(&self) -> Result<()> {
        self.inner.process.end(Signal::QUIT).await
    }

    /// Kills the master and its workers at once.
    ///
    /// # Errors
    /// `TimedOut` when processes are still there after 20 seconds.
    pub async fn kill(&self) -> Result<()> {
        self.inner.process.kill().await
    }

    /// Freezes the master and its workers.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.inner.process.freeze()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// `Lost` when it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.inner.process.thaw()
    }

    fn write(&self) -> Result<()> {
        let mut text = self.inner.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, value) in self.inner.values.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        text = with_own_paths(&text);
        text = text.replace("{{listen}}", &self.address().to_string());
        text = text.replace("{{dir}}", &self.inner.dir.path().display().to_string());
        self.inner.dir.write("nginx.conf", &text)?;
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        match run_tool(self.launch("").arg("-t").arg("-q"), ANSWER).await {
            Err(error) if error.kind() == ErrorKind::Exited => {
                let log = error.log().unwrap_or_default().to_owned();
                Err(Error::new(ErrorKind::Config, "nginx finds the configuration bad")
                    .with_log(log))
            }
            other => other.map(drop),
        }
    }

    fn launch(&self, also: &str) -> Launch {
        let (inner, folder) = (&self.inner, self.inner.dir.path());
        Launch::new("nginx", &inner.program, folder)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(inner.dir.join("nginx.conf"))
            .args(["-e", "stderr", "-g"])
            .arg(format!("{also} pid {};", inner.dir.join("pid").display()))
    }
}

/// Adds what the text does not say itself behind its first `http {`.
fn with_own_paths(text: &str) -> String {
    let opening = text.match_indices("http").find_map(|(at, word)| {
        let rest = &text[at + word.len()..];
        let brace = rest
            .find(|c: char| !c.is_whitespace())
            .filter(|brace| rest[*brace..].starts_with('{'))?;
        Some(at + word.len() + brace + 1)
    });
    let Some(opening) = opening else { return text.to_owned() };
    let missing = OWN_PATHS.iter().filter(|(name, _)| !text.contains(name));
    let lines: String = missing.map(|(name, value)| format!("\n    {name} {value};")).collect();
    format!("{}{lines}\n{}", &text[..opening], &text[opening..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_text_says_itself_is_left_to_it() {
        let text = with_own_paths("# https and http alike\nhttp\n{ access_log /tmp/a; }");
        assert!(text.contains("http\n{\n    client_body_temp_path {{dir}}/body;"), "{text}");
        assert!(!text.contains("access_log off"), "{text}");
        assert_eq!(with_own_paths("events {}"), "events {}");
    }
}
