//! A private certificate authority, made once per process with the `openssl` program, and one certificate for this host.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::binaries::Servers;
use crate::dirs::{self, ServerDir};
use crate::error::{Error, ErrorKind, Result};
use crate::process::Launch;

const CONFIG: &str = "[req]
distinguished_name = name
prompt = no
[name]
CN = localhost
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[host]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

const NEW_KEY: [&str; 6] =
    ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-config"];

/// The authority's certificate and a certificate it signed for `localhost` and `127.0.0.1`.
#[derive(Clone, Debug)]
pub(crate) struct Authority(Arc<Files>);

#[derive(Debug)]
struct Files {
    ca: PathBuf,
    _dir: ServerDir,
    certificate: String,
    key: String,
    authority: String,
}

impl Authority {
    /// The authority of this process.
    pub(crate) fn shared() -> Result<Self> {
        static SHARED: Mutex<Option<Authority>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = shared.as_ref() {
            return Ok(authority.clone());
        }
        let made = Self::make()?;
        *shared = Some(made.clone());
        Ok(made)
    }

    /// The authority's certificate, which clients are told to trust.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.0.ca
    }

    /// The authority's certificate itself.
    pub(crate) fn certificate_text(&self) -> &str {
        &self.0.authority
    }

    /// Puts `NAME.crt` and `NAME.key` into a server's folder, owned by whom the server runs as.
    pub(crate) fn install(&self, dir: &ServerDir, name: &str) -> Result<()> {
        dir.write(&format!("{name}.crt"), &self.0.certificate)?;
        dir.write(&format!("{name}.key"), &self.0.key)?;
        Ok(())
    }

    fn make() -> Result<Self> {
        let dir = ServerDir::create("tls")?;
        dir.write("openssl.cnf", CONFIG)?;
        let request = |extra: &[&str]| {
            let mut args = vec!["req"];
            args.extend(NEW_KEY);
            args.push("openssl.cnf");
            args.extend(extra);
            openssl(&dir, &args)
        };
        request(&[
            "-x509",
            "-extensions",
            "authority",
            "-days",
            "3650",
            "-subj",
            "/CN=resonant-testkit",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])?;
        request(&["-new", "-keyout", "host.key", "-out", "host.csr"])?;
        openssl(
            &dir,
            &[
                "x509",
                "-req",
                "-in",
                "host.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "3650",
                "-extfile",
                "openssl.cnf",
                "-extensions",
                "host",
                "-out",
                "host.crt",
            ],
        )?;
        let read = |name: &str| {
            std::fs::read_to_string(dir.join(name))
                .map_err(|e| Error::io(format!("reading the new {name}"), e))
        };
        let (certificate, key, authority) = (read("host.crt")?, read("host.key")?, read("ca.crt")?);
        let ca = dir.join("ca.crt");
        dirs::set_mode(&ca, 0o644)?;
        Ok(Self(Arc::new(Files { ca, _dir: dir, certificate, key, authority })))
    }
}

fn openssl(dir: &ServerDir, args: &[&str]) -> Result<()> {
    let program = Servers::system().program("openssl", "openssl", "openssl")?;
    let launch = Launch::new("openssl", program, dir.path()).args(args);
    let output = launch.base_command()?.output().map_err(|e| Error::io("running openssl", e))?;
    if output.status.success() {
        return Ok(());
    }
    let message = format!("openssl {} failed: {}", args.first().unwrap_or(&""), output.status);
    Err(Error::new(ErrorKind::Exited, message).with_log(String::from_utf8_lossy(&output.stderr)))
}
