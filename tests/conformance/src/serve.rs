//! An HTTPS server in the runner's process, for webhooks and an aggregated API: the cluster finds it
//! by a Service of the case's namespace whose only endpoint is the runner's address.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::world::{World, items};

/// The Service's name.
pub const SERVICE: &str = "runner";
const PORT: u16 = 443;

/// What the cluster asks.
#[derive(Debug)]
pub struct Request {
    /// `GET` or another.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Of the client that the cluster speaks for, where it does.
    pub user: Option<String>,
    /// JSON, or null.
    pub body: Value,
}

/// Answers requests with a code and JSON.
pub type Answering = dyn Fn(Request) -> BoxFuture<'static, (u16, Value)> + Send + Sync;

/// A running server; it stops when dropped.
pub struct Server {
    namespace: String,
    ca_bundle: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts one with a Service before it.
    pub async fn start(world: &World, answering: Arc<Answering>) -> Result<Self> {
        let name = format!("{SERVICE}.{}.svc", world.ns);
        let signed = rcgen::generate_simple_self_signed(vec![name])?;
        let address = reachable(world).await?;
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let acceptor = acceptor(&signed)?;
        let task = tokio::spawn(accept(listener, acceptor, answering));
        let server =
            Self { namespace: world.ns.clone(), ca_bundle: BASE64.encode(signed.cert.pem()), task };
        publish(world, address, port).await?;
        Ok(server)
    }

    /// Authorities to trust, as a `caBundle`.
    pub fn ca_bundle(&self) -> &str {
        &self.ca_bundle
    }

    /// Where it is, as a `service`; an APIService knows no path.
    pub fn service(&self, path: Option<&str>) -> Value {
        let mut service = json!({"namespace": self.namespace, "name": SERVICE, "port": PORT});
        if let Some(path) = path {
            service["path"] = json!(path);
        }
        service
    }

    /// The `clientConfig` of a webhook.
    pub fn client_config(&self, path: &str) -> Value {
        json!({"service": self.service(Some(path)), "caBundle": self.ca_bundle})
    }
}

/// The address of this machine that the cluster's nodes reach.
async fn reachable(world: &World) -> Result<IpAddr> {
    let nodes = world.api.get("/api/v1/nodes").await?;
    let addresses = items(&nodes)
        .iter()
        .flat_map(|node| node["status"]["addresses"].as_array().into_iter().flatten())
        .filter(|known| known["type"] == "InternalIP")
        .filter_map(|known| known["address"].as_str());
    addresses
        .filter_map(|node| {
            let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.connect((node, 9)).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .find(|address| !address.is_loopback())
        .context("no node is reached by an address that the cluster may have as an endpoint")
}

async fn publish(world: &World, address: IpAddr, port: u16) -> Result<()> {
    let service = json!({
        "metadata": {"name": SERVICE},
        "spec": {"ports": [{"port": PORT, "targetPort": port}]},
    });
    world.create("v1", "services", &service).await?;
    let slice = json!({
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    world.create("discovery.k8s.io/v1", "endpointslices", &slice).await.map(drop)
}

fn acceptor(signed: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, answering: Arc<Answering>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, acceptor.clone(), answering.clone()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, answering: Arc<Answering>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| answer(request, answering.clone()));
    // A client that goes away is no fault of ours.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    answering: Arc<Answering>,
) -> Result<hyper::Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let user = parts.headers.get("x-remote-user").and_then(|value| value.to_str().ok());
    let request = Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        user: user.map(str::to_owned),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let (code, value) = answering(request).await;
    let response =
        hyper::Response::builder().status(code).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(value.to_string())))?)
}
