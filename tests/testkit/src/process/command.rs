//! What is run, how, and as whom.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::user;

/// Variables of the user's shell that would change what servers and tools do.
const INHERITED_TROUBLE: [&str; 5] = ["PG", "RABBITMQ_", "ERL_", "REDISCLI_", "LC_"];

/// A program with its arguments, folder, log and environment.
#[derive(Debug)]
pub(crate) struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: PathBuf,
    log: PathBuf,
}

impl Launch {
    /// `name` is for messages, `folder` is where it runs and where its `log` file goes.
    pub(crate) fn new(name: impl Into<String>, program: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            folder: folder.to_owned(),
            log: folder.join("log"),
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Another program with its arguments and environment, as arguments of this one, which is to run it.
    pub(crate) fn then(mut self, other: &Launch) -> Self {
        self.args.push(other.program.clone().into_os_string());
        self.args.extend(other.args.iter().cloned());
        self.env.extend(other.env.iter().cloned());
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// The command of a server: unprivileged, in its folder, output to its log, to be killed with its parent.
    pub(crate) fn into_command(self) -> Result<Command> {
        let mut command = self.base_command()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|e| Error::io(format!("opening {}", self.log.display()), e))?;
        let errors = log.try_clone().map_err(|e| Error::io("sharing a log file", e))?;
        user::hand_over(&self.log)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        Ok(command)
    }

    /// The command without its streams, for tools that are waited for.
    pub(crate) fn base_command(&self) -> Result<Command> {
        self.command(true)
    }

    /// The same for what is to outlive this process.
    pub(crate) fn untied_command(&self) -> Result<Command> {
        self.command(false)
    }

    fn command(&self, tied: bool) -> Result<Command> {
        let user = user::unprivileged()?;
        let mut command = if tied && has_setpriv() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]);
            if let Some(user) = user {
                command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]);
                command.arg("--clear-groups");
            }
            command.arg(&self.program);
            command
        } else {
            let mut command = Command::new(&self.program);
            if let Some(user) = user {
                command.gid(user.gid).uid(user.uid);
            }
            command
        };
        for (name, _) in std::env::vars_os() {
            if INHERITED_TROUBLE
                .iter()
                .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
            {
                command.env_remove(name);
            }
        }
        command.args(&self.args).env("LC_ALL", "C").envs(self.env.iter().map(|(k, v)| (k, v)));
        command.current_dir(&self.folder);
        Ok(command)
    }
}

/// Whether there is a `setpriv` that can tie a child's life to its parent's: on Linux; not on a Mac, where the reaper does it.
fn has_setpriv() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let probe = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    })
}
