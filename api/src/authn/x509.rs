//! Client certificates: the common name is the user, the organizations are the groups.
//!
//! The TLS layer asks for a certificate but lets every client in ([`crate::tls`]); whether the
//! certificate is good is decided here, so that a client with a bad one gets a 401 that says so
//! instead of a broken connection.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Peer, User};
use crate::tls;

/// Tells who a client is by its certificate.
pub(crate) struct ClientCertificates {
    /// Nobody's certificate is good without an authority.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertificates {
    /// Certificates of this authority are good.
    pub(crate) fn of_authority(ca_pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let cert = cert.map_err(|error| format!("the client authority: {error}"))?;
            roots.add(cert).map_err(|error| format!("the client authority: {error}"))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .map_err(|error| format!("the client authority: {error}"))?;
        Ok(Self { verifier: Some(verifier) })
    }

    /// No certificate is good.
    pub(crate) fn none() -> Self {
        Self { verifier: None }
    }

    /// Who is at the other end of a connection that presented `chain`.
    pub(crate) fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some([end_entity, intermediates @ ..]) = chain else { return Peer::Anonymous };
        match self.user(end_entity, intermediates) {
            Ok(user) => Peer::Known(Arc::new(user)),
            Err(why) => Peer::Refused(why.into()),
        }
    }

    fn user(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<User, String> {
        let verifier = self.verifier.as_ref().ok_or("there is no authority for clients")?;
        verifier
            .verify_client_cert(end_entity, intermediates, UnixTime::now())
            .map_err(|error| error.to_string())?;
        let (_, certificate) =
            X509Certificate::from_der(end_entity).map_err(|error| error.to_string())?;
        let subject = certificate.subject();
        let name = subject
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .filter(|name| !name.is_empty())
            .ok_or("the certificate has no common name")?;
        let groups: Vec<&str> =
            subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
        Ok(User::authenticated(name, &groups))
    }
}
