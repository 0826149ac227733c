//! [`Kubelet`]: calls to the agents on the nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::Stream;
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

/// The longest refusal that is read from a node.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

const DEFAULT_PORT: i64 = 10250;

/// What a node sends, as it comes.
pub(crate) type Content = Pin<Box<dyn Stream<Item = Result<Bytes, reqwest::Error>> + Send>>;

/// Calls nodes as the API server.
pub(crate) struct Kubelet {
    client: Client,
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
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| named("the client", &error))?;
        Ok(Self { client })
    }

    /// Fetches a path from a node. `limit` bounds the time to the first byte of the answer.
    pub(crate) async fn get(
        &self,
        node: &Object,
        segments: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Content, Status> {
        let mut url = address(node)?;
        url.path_segments_mut()
            .map_err(|()| Status::internal("the address of a node must take a path"))?
            .extend(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.client.get(url.clone()).send();
        let response = tokio::time::timeout(limit, request)
            .await
            .map_err(|_| Status::timeout(format!("node {} did not answer", node.name())))?
            .map_err(|error| {
                Status::unavailable(format!(
                    "node {} could not be asked: {}",
                    node.name(),
                    with_causes(&error)
                ))
            })?;
        if response.status().is_success() {
            return Ok(Box::pin(response.bytes_stream()));
        }
        Err(refusal(node, response).await)
    }
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

/// The node's refusal in its own words.
async fn refusal(node: &Object, response: reqwest::Response) -> Status {
    use futures_util::StreamExt as _;
    let code = response.status().as_u16();
    let mut content = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(part)) = stream.next().await {
        content.extend_from_slice(&part);
        if content.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
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
