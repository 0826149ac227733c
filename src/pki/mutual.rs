//! Mutual TLS: servers that ask their clients who they are.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use super::tls::{certified_key, malformed, provider, roots};
use super::{Identity, PkiError};

/// A server that admits who has a certificate of `client_ca_pem`, and where an `organization` is
/// named, of that one.
pub fn server_config(
    what: &str,
    own: &Identity,
    client_ca_pem: &str,
    organization: Option<&str>,
) -> Result<ServerConfig, PkiError> {
    let authorities = Arc::new(roots(what, client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider())
        .build()
        .map_err(|error| malformed(what, &error))?;
    let verifier: Arc<dyn ClientCertVerifier> = match organization {
        None => verifier,
        Some(organization) => Arc::new(Members { verifier, organization: organization.to_owned() }),
    };
    let tls = |source| PkiError::Tls { what: what.into(), source };
    let (chain, key) = certified_key(what, own)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(config)
}

/// Admits those that `verifier` does, if their certificate is of an organization.
#[derive(Debug)]
struct Members {
    verifier: Arc<dyn ClientCertVerifier>,
    organization: String,
}

impl Members {
    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
        let mut names = certificate.subject().iter_organization();
        names.any(|name| name.as_str().is_ok_and(|name| name == self.organization))
    }
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        if self.has(end_entity) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::pki::{ADMIN_GROUP, Authority, Profile, tls};

    /// Whether a server that asks for administrators of `ca` admits such a client of `of`.
    async fn admits(ca: &Authority, of: &Authority, profile: &Profile) -> bool {
        let own = ca.issue(&Profile::api_server(&["127.0.0.1".into()])).unwrap();
        let server = server_config("a server", &own, ca.cert_pem(), Some(ADMIN_GROUP)).unwrap();
        let client = of.issue(profile).unwrap();
        let client = tls::client_config("a client", ca.cert_pem(), Some(&client)).unwrap();
        let (left, right) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let connecting = connector.connect(name, left);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (_, accepted) = tokio::join!(connecting, acceptor.accept(right));
        accepted.is_ok()
    }

    #[tokio::test]
    async fn administrators_are_admitted_and_nodes_of_the_same_authority_are_not() {
        let (ca, other) = (Authority::create("ca").unwrap(), Authority::create("ca").unwrap());
        assert!(admits(&ca, &ca, &Profile::admin()).await);
        assert!(!admits(&ca, &ca, &Profile::node("one", &[])).await);
        assert!(!admits(&ca, &other, &Profile::admin()).await);
    }
}
