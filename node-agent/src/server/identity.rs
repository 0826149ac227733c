//! Who asks the agent, by the certificate that the cluster's authority gave them: API servers and
//! administrators are trusted.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::gate::{Caller, User};
use crate::agent::AgentError;
use crate::config::ServingTls;

/// Members may do anything, as everywhere in Kubernetes.
const MASTERS: &str = "system:masters";
/// What API servers call themselves.
const API_SERVERS: [&str; 3] =
    ["kube-apiserver", "kube-apiserver-kubelet-client", "system:kube-apiserver"];

/// Shows the agent's certificate and looks at the client's, where it has one: others show a token.
pub(super) fn tls_config(tls: &ServingTls) -> Result<rustls::ServerConfig, AgentError> {
    let bad = |what: &str, why: &dyn std::fmt::Display| {
        AgentError::Config(format!("{what} of its server: {why}"))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(tls.client_ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| bad("client authority", &error))?;
        roots.add(certificate).map_err(|error| bad("client authority", &error))?;
    }
    let chain = CertificateDer::pem_slice_iter(tls.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes())
        .map_err(|error| bad("private key", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad("client authority", &error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("TLS version", &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| bad("certificate", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Whom a certificate names. One that cannot be read names nobody.
pub(super) fn caller(certificate: &CertificateDer<'_>) -> Caller {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Caller::Unknown;
    };
    let subject = certificate.subject();
    let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        name.as_str().ok().map(ToOwned::to_owned)
    };
    let groups: Vec<String> = subject.iter_organization().filter_map(text).collect();
    let name = subject.iter_common_name().find_map(text).unwrap_or_default();
    if groups.iter().any(|group| group == MASTERS) || API_SERVERS.contains(&name.as_str()) {
        return Caller::Trusted;
    }
    if name.is_empty() {
        return Caller::Unknown;
    }
    Caller::Certified(User { name, groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str, organization: &str) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn api_servers_and_administrators_are_told_from_nodes() {
        let api_server = certificate("kube-apiserver-kubelet-client", "any");
        assert_eq!(caller(&api_server), Caller::Trusted);
        assert_eq!(caller(&certificate("admin", "system:masters")), Caller::Trusted);
        let node = User {
            name: "system:node:n1".into(),
            groups: vec!["system:nodes".into()],
            ..User::default()
        };
        let found = caller(&certificate("system:node:n1", "system:nodes"));
        assert_eq!(found, Caller::Certified(node));
        assert_eq!(caller(&CertificateDer::from(vec![1, 2, 3])), Caller::Unknown);
    }
}
