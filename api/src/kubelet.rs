//! [`Kubelet`]: calls to the agents on the nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::Stream;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Url};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::object::Object;
use crate::server::KubeletIdentity;
use crate::status::Status;
use crate::tls;

/// How long a node may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be silent before the node is asked whether it lives (R11).
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The longest refusal that is read from a node.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

const DEFAULT_PORT: i64 = 10250;

/// What a node sends, as it comes.
pub(crate) type Content = Pin<Box<dyn Stream<Item = Result<Bytes, reqwest::Error>> + Send>>;

/// Calls nodes as the API server.
pub(crate) struct Kubelet {
    client: Client,
    /// Speaks HTTP/1.1 only: an HTTP/2 connection cannot become another protocol's.
    upgrading: Client,
}

/// A connection to a node that speaks another protocol from here on.
pub(crate) struct Upgrade {
    /// The head of the node's answer.
    pub(crate) headers: HeaderMap,
    /// The connection.
    pub(crate) stream: reqwest::Upgraded,
}

/// What a node makes of the wish to speak another protocol.
pub(crate) enum Answer {
    /// It does.
    Upgraded(Upgrade),
    /// It says why not, for the client to read.
    Refused {
        /// The HTTP code.
        code: StatusCode,
        /// Its words.
        text: Vec<u8>,
    },
}

impl Kubelet {
    /// With this identity. The error says what is wrong with it.
    pub(crate) fn new(identity: &KubeletIdentity) -> Result<Self, String> {
        let named =
            |what: &str, error: &dyn std::fmt::Display| format!("{what} for nodes: {error}");
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(identity.ca_pem.as_bytes()) {
            let cert = cert.map_err(|error| named("the authority", &error))?;
            roots.add(cert).map_err(|error| named("the authority", &error))?;
        }
        let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| named("the certificate", &error))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
            .map_err(|error| named("the key", &error))?;
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| named("TLS", &error))?
            .with_root_certificates(Arc::new(roots))
            .with_client_auth_cert(chain, key)
            .map_err(|error| named("the certificate", &error))?;
        let builder = |config| {
            Client::builder()
                .tls_backend_preconfigured(config)
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(KEEP_ALIVE)
                .no_proxy()
        };
        let failed = |error: reqwest::Error| named("the client", &error);
        let client = builder(config.clone()).build().map_err(failed)?;
        let upgrading = builder(config).http1_only().build().map_err(failed)?;
        Ok(Self { client, upgrading })
    }

    /// What makes the calls: HTTP/1.1, so that a connection can become another protocol's.
    pub(crate) fn proxying(&self) -> &Client {
        &self.upgrading
    }

    /// Where a node's agent listens.
    #[allow(clippy::unused_self, reason = "who has no identity has no business with addresses")]
    pub(crate) fn address_of(&self, node: &Object) -> Result<Url, Status> {
        address(node)
    }

    /// Asks a node to speak another protocol, as `handshake` says. `limit` bounds the time to its
    /// answer.
    pub(crate) async fn upgrade(
        &self,
        node: &Object,
        segments: &[&str],
        query: &[(&str, &str)],
        handshake: HeaderMap,
        limit: Duration,
    ) -> Result<Answer, Status> {
        let url = url(node, segments, query)?;
        let request = self.upgrading.post(url).headers(handshake);
        let response = sent(node, request, limit).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = response.status();
            return Ok(Answer::Refused { code, text: refused_text(response).await });
        }
        let headers = response.headers().clone();
        let stream = response.upgrade().await.map_err(|error| {
            let why = with_causes(&error);
            Status::unavailable(format!("node {} broke off: {why}", node.name()))
        })?;
        Ok(Answer::Upgraded(Upgrade { headers, stream }))
    }

    /// Has a node remove what the path names. `limit` bounds the time to its answer.
    pub(crate) async fn delete(
        &self,
        node: &Object,
        segments: &[&str],
        limit: Duration,
    ) -> Result<(), Status> {
        let request = self.client.delete(url(node, segments, &[])?);
        let response = sent(node, request, limit).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(refusal(node, response).await)
    }

    /// Fetches a path from a node. `limit` bounds the time to the first byte of the answer.
    pub(crate) async fn get(
        &self,
        node: &Object,
        segments: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Content, Status> {
        let request = self.client.get(url(node, segments, query)?);
        let response = sent(node, request, limit).await?;
        if response.status().is_success() {
            return Ok(Box::pin(response.bytes_stream()));
        }
        Err(refusal(node, response).await)
    }
}

fn url(node: &Object, segments: &[&str], query: &[(&str, &str)]) -> Result<Url, Status> {
    let mut url = address(node)?;
    url.path_segments_mut()
        .map_err(|()| Status::internal("the address of a node must take a path"))?
        .extend(segments);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

async fn sent(
    node: &Object,
    request: reqwest::RequestBuilder,
    limit: Duration,
) -> Result<reqwest::Response, Status> {
    tokio::time::timeout(limit, request.send())
        .await
        .map_err(|_| Status::timeout(format!("node {} did not answer", node.name())))?
        .map_err(|error| {
            let why = with_causes(&error);
            Status::unavailable(format!("node {} could not be asked: {why}", node.name()))
        })
}

/// Where a node's agent listens.
fn address(node: &Object) -> Result<Url, Status> {
    let addresses = node.at("/status/addresses").and_then(Value::as_array);
    let of_type = |wanted: &str| {
        addresses.into_iter().flatten().find_map(|address| {
            (address.get("type")?.as_str()? == wanted).then(|| address.get("address")?.as_str())?
        })
    };
    let host = of_type("InternalIP").or_else(|| of_type("Hostname")).ok_or_else(|| {
        Status::unavailable(format!("node {} has not said its address", node.name()))
    })?;
    let port = node
        .i64_at("/status/daemonEndpoints/kubeletEndpoint/Port")
        .filter(|port| *port > 0)
        .unwrap_or(DEFAULT_PORT);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Url::parse(&format!("https://{host}:{port}/"))
        .map_err(|error| Status::internal(format!("the address of node {}: {error}", node.name())))
}

/// What a node says with a refusal, up to a bound.
async fn refused_text(response: reqwest::Response) -> Vec<u8> {
    use futures_util::StreamExt as _;
    let mut content = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(part)) = stream.next().await {
        content.extend_from_slice(&part);
        if content.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    content
}

/// The node's refusal in its own words.
async fn refusal(node: &Object, response: reqwest::Response) -> Status {
    let code = response.status().as_u16();
    let content = refused_text(response).await;
    let text = String::from_utf8_lossy(&content).trim().to_owned();
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|status| status.get("message")?.as_str().map(ToOwned::to_owned))
        .unwrap_or(text);
    if message.is_empty() {
        return Status::foreign(code, format!("node {} answered {code}", node.name()));
    }
    Status::foreign(code, message)
}

/// An error with what caused it: `reqwest` leaves that out of its text.
fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
