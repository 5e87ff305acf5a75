//! TLS by rustls, with the ring provider, passed explicitly: two providers in one program make rustls panic when it is
//! left to choose.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::settings::{Certificates, Settings, SslMode};
use super::wire::Socket;

/// Opens TLS as a URL asks for it.
#[derive(Clone)]
pub(super) struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Reads the certificates.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|fault| fault.to_string())?;
        let verifier: Arc<dyn ServerCertVerifier> = match settings.ssl_mode {
            SslMode::VerifyCa | SslMode::VerifyFull => {
                let roots = Arc::new(roots(&settings.certificates)?);
                let strict = WebPkiServerVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|fault| fault.to_string())?;
                match settings.ssl_mode {
                    SslMode::VerifyFull => strict,
                    _ => Arc::new(AnyName(strict)),
                }
            }
            _ => Arc::new(Anybody(provider)),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &settings.certificates.client {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let chain = certificates_of(certificates)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|fault| format!("sslkey {} cannot be read: {fault}", key.display()))?;
                builder.with_client_auth_cert(chain, key).map_err(|fault| fault.to_string())?
            }
        };
        config.alpn_protocols =
            if settings.ssl_direct { vec![b"postgresql".to_vec()] } else { Vec::new() };
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        socket: Socket,
    ) -> Result<TlsStream<Socket>, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name a certificate could have"))?;
        self.0.connect(name, socket).await.map_err(|fault| fault.to_string())
    }
}

fn roots(certificates: &Certificates) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = match &certificates.root {
        Some(path) => certificates_of(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(found);
    if store.is_empty() {
        return Err(match &certificates.root {
            Some(path) => format!("sslrootcert {} holds no certificate", path.display()),
            None => {
                "the system has no trusted certificates; name some: sslrootcert=/path/ca.crt".into()
            }
        });
    }
    Ok(store)
}

fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |fault| format!("the certificates in {} cannot be read: {fault}", path.display());
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|fault: rustls::pki_types::pem::Error| unreadable(fault))
}

/// Encrypts and asks for no proof of who is on the other side: `allow`, `prefer`, `require`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

/// Wants a certificate of a trusted authority, for whatever name: `verify-ca`.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let strict =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match strict {
            // The name is looked at last, when the chain has been found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What binds a login to this TLS session: the digest of the server's certificate, by the hash it was signed with.
pub(super) fn end_point(session: &ClientConnection) -> Option<Vec<u8>> {
    let certificate = session.peer_certificates()?.first()?;
    let algorithm = digest_of(signature_algorithm(certificate)?)?;
    Some(ring::digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// The hash a signature algorithm uses; the weak ones are replaced by SHA-256, as the standard has it.
fn digest_of(algorithm: &[u8]) -> Option<&'static ring::digest::Algorithm> {
    use ring::digest::{SHA256, SHA384, SHA512};
    // 1.2.840.113549.1.1.n is RSA, 1.2.840.10045.4.3.n ECDSA.
    match algorithm {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, kind] => match kind {
            4 | 5 | 11 => Some(&SHA256),
            12 => Some(&SHA384),
            13 => Some(&SHA512),
            _ => None,
        },
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => Some(&SHA256),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, kind] => match kind {
            2 => Some(&SHA256),
            3 => Some(&SHA384),
            4 => Some(&SHA512),
            _ => None,
        },
        _ => None,
    }
}

/// The identifier of the algorithm a certificate is signed with: the second part of the outer sequence.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const IDENTIFIER: u8 = 0x06;
    let (outer, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(outer, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    Some(element(algorithm, IDENTIFIER)?.0)
}

/// The content of the DER element at the front, and what comes behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if digits.len() > 4 {
                return None;
            }
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithm_is_found_behind_the_certificate_proper() {
        let algorithm = [0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0];
        let mut inner = vec![0x30, 0x81, 130];
        inner.extend([7; 130]);
        inner.extend(algorithm);
        let mut certificate = vec![0x30, 0x82, 0, inner.len() as u8];
        certificate.extend(&inner);
        let found = signature_algorithm(&certificate).expect("it is there");
        assert!(digest_of(found).is_some_and(|digest| *digest == ring::digest::SHA256));
        for end in 0..certificate.len() - 2 {
            // Never a panic, whatever is cut off.
            let _ = signature_algorithm(&certificate[..end]);
        }
    }
}
