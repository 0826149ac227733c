//! Who may ask the agent: clients with a certificate of the cluster's authority that names an API
//! server or an administrator.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::agent::AgentError;
use crate::config::ServingTls;

/// Members may do anything, as everywhere in Kubernetes.
const MASTERS: &str = "system:masters";
/// What API servers call themselves.
const API_SERVERS: [&str; 3] =
    ["kube-apiserver", "kube-apiserver-kubelet-client", "system:kube-apiserver"];

/// Shows the agent's certificate and wants one from each client.
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

/// True if the certificate is an API server's or an administrator's.
pub(super) fn is_api_server(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let subject = certificate.subject();
    let master = subject.iter_organization().any(|name| name.as_str() == Ok(MASTERS));
    let api_server = subject
        .iter_common_name()
        .any(|name| name.as_str().is_ok_and(|name| API_SERVERS.contains(&name)));
    master || api_server
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
        assert!(is_api_server(&certificate("kube-apiserver-kubelet-client", "any")));
        assert!(is_api_server(&certificate("admin", "system:masters")));
        assert!(!is_api_server(&certificate("system:node:n1", "system:nodes")));
        assert!(!is_api_server(&CertificateDer::from(vec![1, 2, 3])));
    }
}
