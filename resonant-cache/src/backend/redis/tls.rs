//! TLS by rustls, with the ring provider, passed explicitly: two providers in one program make rustls panic when it is
//! left to choose. Without the feature `tls` there is nothing of it.

#[cfg(feature = "tls")]
pub(super) use on::Tls;

/// Stands where TLS is not compiled in; cannot be made.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
pub(super) enum Tls {}

#[cfg(feature = "tls")]
mod on {
    use std::fmt;
    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use crate::error::{Error, ErrorKind, Result};

    /// How connections are encrypted.
    #[derive(Clone)]
    pub(in super::super) struct Tls(TlsConnector);

    impl fmt::Debug for Tls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Tls")
        }
    }

    impl Tls {
        /// Trusts the authorities in `ca_file`, or the system's.
        pub(in super::super) fn new(ca_file: Option<&Path>) -> Result<Self> {
            let mut roots = RootCertStore::empty();
            match ca_file {
                None => {
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                }
                Some(path) => {
                    let unreadable = |error| {
                        let message = format!("tls_ca_file {} cannot be read", path.display());
                        config(message).with_source(error)
                    };
                    let certificates = CertificateDer::pem_file_iter(path)
                        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                        .map_err(unreadable)?;
                    roots.add_parsable_certificates(certificates);
                }
            }
            if roots.is_empty() {
                return Err(config("no trusted certificate was found; name some with tls_ca_file"));
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| config("TLS cannot be set up").with_source(error))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Self(TlsConnector::from(Arc::new(config))))
        }

        /// For a driver that connects by itself.
        #[cfg(feature = "fred")]
        pub(in super::super) fn connector(&self) -> TlsConnector {
            self.0.clone()
        }

        pub(in super::super) async fn connect(
            &self,
            host: &str,
            socket: TcpStream,
        ) -> std::io::Result<TlsStream<TcpStream>> {
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            self.0.connect(name, socket).await
        }
    }

    fn config(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Config, "build", message)
    }
}
