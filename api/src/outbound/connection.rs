//! The clients that calls are made with: whom they trust, who they are, where a name is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, client::WantsClientCert};

use crate::tls;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// How long somebody may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A name with the address that it stands for.
pub(super) type Resolved = (String, SocketAddr);

/// Who is taken for who it says it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// Whom these authorities (PEM) vouch for; without any, those of this machine.
    Authorities(Vec<u8>),
    /// Everybody.
    Anybody,
}

/// What a caller shows of itself; PEM.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// The certificate chain.
    pub(crate) cert_pem: String,
    /// Its key.
    pub(crate) key_pem: String,
}

/// A client that knows no name but the one resolved, and any address. May read files.
pub(super) fn make(
    trust: &Trust,
    own: Option<&Credentials>,
    resolved: Option<&Resolved>,
) -> Result<Client, String> {
    let mut builder = common(identified(trusting(trust)?, own)?);
    if let Some((host, address)) = resolved {
        builder = builder.resolve(host, *address);
    }
    builder.build().map_err(|error| super::in_full(&error))
}

/// A client for what pods and Services serve to those who may proxy to them. As upstream, it does
/// not ask for proof of who they are: nobody has one.
pub(crate) fn proxying() -> Result<Client, String> {
    make(&Trust::Anybody, None, None)
}

/// A client for whom these authorities (PEM) vouch for; without any, those of this machine. May read
/// files.
pub(crate) fn trusting_in(authorities_pem: &str) -> Result<Client, String> {
    make(&Trust::Authorities(authorities_pem.as_bytes().to_vec()), None, None)
}

/// HTTP/1.1: a connection whose other end is gone is not waited for by many calls at once, and it can
/// become another protocol's.
fn common(config: ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(IDLE)
        .pool_idle_timeout(IDLE)
        .no_proxy()
}

fn trusting(trust: &Trust) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(match trust {
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(tls::Anybody::new()))
        }
        Trust::Authorities(pem) => builder.with_root_certificates(roots(pem)?),
    })
}

fn roots(authorities_pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(authorities_pem) {
        let cert = cert.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(cert).map_err(|error| format!("caBundle: {error}"))?;
    }
    // Who names no authority is known to those that this machine trusts.
    if roots.is_empty() { this_machines() } else { Ok(Arc::new(roots)) }
}

/// The authorities that this machine trusts, read when they are first asked for. Reads files.
fn this_machines() -> Result<Arc<RootCertStore>, String> {
    static READ: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    let mut read = READ.lock();
    if let Some(roots) = &*read {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no authority is named by caBundle, nor trusted by this machine".to_owned());
    }
    Ok(Arc::clone(read.insert(Arc::new(roots))))
}

fn identified(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    own: Option<&Credentials>,
) -> Result<ClientConfig, String> {
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(own.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the client certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())
        .map_err(|error| format!("the client key: {error}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("the client certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_the_machine_are_read_once() {
        match (roots(b""), roots(b"")) {
            (Ok(first), Ok(second)) => assert!(Arc::ptr_eq(&first, &second)),
            (first, second) => assert_eq!(first.err(), second.err(), "a machine without any"),
        }
    }
}
