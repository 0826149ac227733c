//! TLS: whom to trust, and who one is.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::{Identity, PkiError};
use crate::token::ca_hash;

/// The one provider of cryptography in this process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that trusts what `ca_pem` vouches for, with a certificate of its own where given.
pub fn client_config(
    what: &str,
    ca_pem: &str,
    identity: Option<&Identity>,
) -> Result<ClientConfig, PkiError> {
    let tls = |source| PkiError::Tls { what: what.into(), source };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots(what, ca_pem)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = certified_key(what, identity)?;
            builder.with_client_auth_cert(chain, key).map_err(tls)?
        }
    };
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    Ok(config)
}

pub(super) fn certified_key(
    what: &str,
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let chain = certificates(what, &identity.cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|error| malformed(what, &error))?;
    Ok((chain, key))
}

/// A client that trusts the one authority whose certificate has this SHA-256, with a certificate of
/// its own where given.
pub fn pinned_config(pin: [u8; 32], identity: Option<&Identity>) -> Result<ClientConfig, PkiError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = PinnedAuthority { pin, algorithms };
    let failed = |source| PkiError::Tls { what: "the join token".into(), source };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = certified_key("the client certificate", identity)?;
    builder.with_client_auth_cert(chain, key).map_err(failed)
}

/// Whether the first certificate of `cert_pem` carries the signature of `ca_pem`.
pub fn check_issued_by(what: &str, cert_pem: &str, ca_pem: &str) -> Result<(), PkiError> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let parse = |error: &dyn std::fmt::Display| malformed(what, error);
    let chain = certificates(what, cert_pem)?;
    let ca = certificates("the authority", ca_pem)?;
    let (Some(cert), Some(ca)) = (chain.first(), ca.first()) else {
        return Err(malformed(what, &"no certificate in it"));
    };
    let (_, cert) = X509Certificate::from_der(cert).map_err(|error| parse(&error))?;
    let (_, ca) = X509Certificate::from_der(ca).map_err(|error| parse(&error))?;
    cert.verify_signature(Some(ca.public_key())).map_err(|error| PkiError::Foreign {
        what: what.into(),
        authority: ca.subject().to_string(),
        reason: error.to_string(),
    })
}

pub(super) fn malformed(what: &str, reason: &(impl std::fmt::Display + ?Sized)) -> PkiError {
    PkiError::Malformed { what: what.into(), reason: reason.to_string() }
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(what, &error))
}

pub(super) fn roots(what: &str, ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(what, ca_pem)? {
        roots.add(cert).map_err(|source| PkiError::Tls { what: what.into(), source })?;
    }
    Ok(roots)
}

/// Trusts a chain whose authority has a known hash. Servers send their authority's certificate
/// along, so the joiner needs nothing but its token.
#[derive(Debug)]
struct PinnedAuthority {
    pin: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedAuthority {
    fn authority(&self, chain: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
        let pinned = chain
            .iter()
            .find(|cert| ca_hash(cert) == self.pin)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        Ok(roots)
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = Arc::new(self.authority(intermediates)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The hash by which a token pins this authority.
pub fn pin_of(what: &str, ca_pem: &str) -> Result<[u8; 32], PkiError> {
    match certificates(what, ca_pem)?.first() {
        Some(cert) => Ok(ca_hash(cert)),
        None => Err(malformed(what, "no certificate in it")),
    }
}
