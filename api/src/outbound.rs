//! [`Outbound`]: calls to webhooks, by the address or the Service that a `clientConfig` names.
//!
//! Every call has a deadline and a bound on its answer; connections are kept while they are used
//! and belong to one address, so that endpoints that move are followed at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::registry::Registry;
use crate::tls;

/// The longest answer that is read: an object and a patch of it.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// How many clients are kept; when there are more, all are made anew.
const CLIENTS_MAX: usize = 256;
/// How long a pod may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SERVICE_PORT: u16 = 443;

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    authority_pem: Vec<u8>,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Url(String),
    Service { namespace: String, name: String, port: u16, path: String },
}

impl Target {
    /// What a `clientConfig` says.
    pub(crate) fn of(config: &Value) -> Self {
        let text = |pointer: &str| {
            config.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let port = config.pointer("/service/port").and_then(Value::as_u64);
        let place = match config.get("url").and_then(Value::as_str) {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::Service {
                namespace: text("/service/namespace"),
                name: text("/service/name"),
                port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(SERVICE_PORT),
                path: text("/service/path"),
            },
        };
        let engine = base64::engine::general_purpose::STANDARD;
        Self { authority_pem: engine.decode(text("/caBundle")).unwrap_or_default(), place }
    }

    /// The address in words.
    fn url(&self) -> String {
        match &self.place {
            Place::Url(url) => url.clone(),
            Place::Service { namespace, name, port, path } => {
                format!("https://{name}.{namespace}.svc:{port}/{}", path.trim_start_matches('/'))
            }
        }
    }
}

/// A name with the address that it stands for.
type Resolved = (String, SocketAddr);
/// The authority that a client trusts, and the one name that it knows.
type ClientKey = (Vec<u8>, Option<Resolved>);

/// Calls webhooks.
#[derive(Default)]
pub(crate) struct Outbound {
    clients: Mutex<HashMap<ClientKey, Client>>,
}

impl Outbound {
    /// Posts a document, gives the answer's. The error says what went wrong, with the address.
    pub(crate) async fn post(
        &self,
        registry: &Registry,
        target: &Target,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, String> {
        let url = format!("{}?timeout={}s", target.url(), limit.as_secs());
        let called = tokio::time::timeout(limit, self.call(registry, target, body, limit)).await;
        called
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
            .map_err(|why| format!("Post {url:?}: {why}"))
    }

    async fn call(
        &self,
        registry: &Registry,
        target: &Target,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, String> {
        let (mut url, resolved) = locate(registry, target).await?;
        url.query_pairs_mut().append_pair("timeout", &format!("{}s", limit.as_secs()));
        let client = self.client(target, resolved)?;
        let response = client.post(url).json(body).send().await.map_err(|e| in_full(&e))?;
        let code = response.status();
        let answer = read(response).await?;
        if !code.is_success() {
            let text = String::from_utf8_lossy(&answer);
            let text: String = text.trim().chars().take(512).collect();
            return Err(format!("the server answered {code}: {text}"));
        }
        serde_json::from_slice(&answer).map_err(|error| format!("the answer is no JSON: {error}"))
    }

    fn client(&self, target: &Target, resolved: Option<Resolved>) -> Result<Client, String> {
        let key = (target.authority_pem.clone(), resolved);
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = make(&key.0, key.1.as_ref())?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Where to call, and for a Service the address that its name stands for now.
async fn locate(registry: &Registry, target: &Target) -> Result<(Url, Option<Resolved>), String> {
    let Place::Service { namespace, name, port, path } = &target.place else {
        return Ok((Url::parse(&target.url()).map_err(|error| error.to_string())?, None));
    };
    let address = registry.endpoint(namespace, name, *port).await?;
    let host = format!("{name}.{namespace}.svc");
    let url = format!("https://{host}:{}/{}", address.port(), path.trim_start_matches('/'));
    Ok((Url::parse(&url).map_err(|error| error.to_string())?, Some((host, address))))
}

fn make(authority_pem: &[u8], resolved: Option<&Resolved>) -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(authority_pem) {
        let cert = cert.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(cert).map_err(|error| format!("caBundle: {error}"))?;
    }
    if roots.is_empty() {
        // Who names no authority is known to those that this machine trusts.
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
    }
    if roots.is_empty() {
        return Err("no authority is named by caBundle, nor trusted by this machine".to_owned());
    }
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::new(roots))
        .with_no_client_auth();
    // HTTP/1.1: a connection whose other end is gone is not waited for by many calls at once.
    let mut builder = Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(IDLE)
        .no_proxy();
    if let Some((host, address)) = resolved {
        builder = builder.resolve(host, *address);
    }
    builder.build().map_err(|error| in_full(&error))
}

async fn read(response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(part) = stream.next().await {
        content.extend_from_slice(&part.map_err(|error| in_full(&error))?);
        if content.len() > ANSWER_BYTES_MAX {
            return Err(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
        }
    }
    Ok(content)
}

/// An error with what lies behind it, without the address again.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut all = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        all.push(cause.to_string());
        next = cause.source();
    }
    if all.is_empty() { error.to_string() } else { all.join(": ") }
}

/// A client for what pods and Services serve to those who may proxy to them. As upstream, it does
/// not ask for proof of who they are: nobody has one.
pub(crate) fn proxying() -> Result<Client, String> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(tls::Anybody::new()))
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(IDLE)
        .pool_idle_timeout(IDLE)
        .no_proxy()
        .build()
        .map_err(|error| in_full(&error))
}
