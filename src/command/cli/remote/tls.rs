//! TLS: which certificates are trusted.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::common::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

/// A connector that trusts the certificates in the file, or those that the system trusts.
pub(super) fn connector(ca_file: Option<&Path>) -> Outcome<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    if let Some(file) = ca_file {
        let wrong = |what: String| Failure::usage(format!("cannot use {}: {what}", file.display()), "");
        given = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(error.to_string()))?;
        if given.is_empty() {
            return Err(wrong("it has no certificate in PEM".to_owned()));
        }
        for certificate in &given {
            roots
                .add(certificate.clone())
                .map_err(|error| wrong(error.to_string()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Failure::usage(
                "this system has no certificates to trust",
                "name the one of the server, or of its authority, with --ca-file",
            ));
        }
    }
    let wrong = |error: String| Failure::system(format!("TLS is not available: {error}"), "");
    let inner = WebPkiServerVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner, given }))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The standard verification, which refuses a certificate that is its own authority, as `openssl
/// req -x509` makes them; such a one is good if it is in the file, and for this host.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .inner
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        if planted(Planted::TrustAnyCertificate) {
            return Ok(ServerCertVerified::assertion());
        }
        let Err(Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer)) = &verified
        else {
            return verified;
        };
        if !self.given.iter().any(|given| given == certificate) {
            return verified;
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// An error of a connection in words.
pub(super) fn told(error: &std::io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let what = match cause {
        Some(Error::InvalidCertificate(cause)) => match cause {
            CertificateError::UnknownIssuer => "its issuer is not trusted by this system; trust it with --ca-file",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for another host"
            }
            CertificateError::Revoked => "it is revoked",
            _ => "it is not valid",
        },
        Some(Error::InvalidMessage(_)) => return "the server does not speak TLS at this address".to_owned(),
        _ => return error.to_string(),
    };
    format!("the certificate of the server is not accepted: {what}")
}
