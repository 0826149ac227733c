//! The way to the API servers: whichever of them is alive.
//!
//! Each call goes to the server that answered last. One that refuses, breaks off or stays silent
//! past a deadline (R11) costs only that: the same call goes to the next server at once.
//! Connections are HTTP/2 with pings, so a watch on a server that went silent ends too.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use kube::client::Body;
use parking_lot::RwLock;

use crate::config::{ClientTls, Timers};

mod endpoint;
#[cfg(test)]
mod tests;

use endpoint::Endpoint;

/// Every server is asked this often before a call is given up.
const ROUNDS: usize = 2;
/// Between two rounds: an election may be under way.
const ROUND_WAIT: Duration = Duration::from_millis(150);

/// Why no API server answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The list of servers is empty or one of it is no URL.
    #[error("{0:?} is not the URL of an API server")]
    BadUrl(String),
    /// A PEM text cannot be used.
    #[error("{what} of the client cannot be used: {why}")]
    BadTls {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No connection.
    #[error("connect to {server}: {why}")]
    Connect {
        /// Address of the server.
        server: String,
        /// What the system or TLS said.
        why: String,
    },
    /// The connection broke off.
    #[error("call {server}")]
    Call {
        /// Address of the server.
        server: String,
        /// What HTTP said.
        #[source]
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("{server} did not answer within {} ms", after.as_millis())]
    Silent {
        /// Address of the server.
        server: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The body of the request could not be read.
    #[error("read the request to send: {0}")]
    Body(String),
}

/// All known API servers as one service.
#[derive(Clone, Debug)]
pub struct Servers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoints: RwLock<Vec<Arc<Endpoint>>>,
    preferred: AtomicUsize,
    tls: Arc<rustls::ClientConfig>,
    timers: Timers,
}

impl Servers {
    /// Knows `urls` from the start.
    pub fn new(urls: &[String], tls: &ClientTls, timers: &Timers) -> Result<Self, ClientError> {
        let tls = Arc::new(endpoint::tls_config(tls)?);
        let this = Self {
            shared: Arc::new(Shared {
                endpoints: RwLock::new(Vec::new()),
                preferred: AtomicUsize::new(0),
                tls,
                timers: timers.clone(),
            }),
        };
        if urls.is_empty() {
            return Err(ClientError::BadUrl(String::new()));
        }
        for url in urls {
            this.learn(url)?;
        }
        Ok(this)
    }

    /// A Kubernetes client over all servers.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Adds a server; answers whether it is new. Servers are never forgotten: one that left is
    /// refused and skipped, at the cost of a connection attempt.
    pub fn learn(&self, url: &str) -> Result<bool, ClientError> {
        let endpoint = Endpoint::new(url, self.shared.tls.clone(), &self.shared.timers)?;
        let mut endpoints = self.shared.endpoints.write();
        if endpoints.iter().any(|known| known.authority() == endpoint.authority()) {
            return Ok(false);
        }
        endpoints.push(Arc::new(endpoint));
        Ok(true)
    }

    /// Addresses of all known servers.
    pub fn known(&self) -> Vec<String> {
        self.shared.endpoints.read().iter().map(|e| e.authority().to_string()).collect()
    }

    /// The endpoints in the order they are to be asked.
    fn in_order(&self) -> Vec<(usize, Arc<Endpoint>)> {
        let endpoints = self.shared.endpoints.read();
        let first = self.shared.preferred.load(Ordering::Relaxed);
        (0..endpoints.len())
            .map(|step| (first + step) % endpoints.len())
            .map(|at| (at, endpoints[at].clone()))
            .collect()
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        let (parts, body) = request.into_parts();
        let body: Bytes =
            body.collect_bytes().await.map_err(|error| ClientError::Body(error.to_string()))?;
        let mut outcome = Err(ClientError::BadUrl(String::new()));
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_WAIT).await;
            }
            for (at, endpoint) in self.in_order() {
                outcome = endpoint.send(&parts, &body).await;
                match &outcome {
                    Ok(response) if !asks_for_another_server(response.status()) => {
                        self.shared.preferred.store(at, Ordering::Relaxed);
                        return outcome;
                    }
                    Ok(response) => {
                        tracing::debug!(server = %endpoint.authority(), status = %response.status(), "next server");
                    }
                    Err(error) => {
                        tracing::debug!(error = error as &dyn std::error::Error, "next server");
                    }
                }
            }
        }
        outcome
    }
}

/// A server that cannot serve now says so; another may.
fn asks_for_another_server(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
    )
}

impl tower::Service<Request<Body>> for Servers {
    type Response = Response<Incoming>;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { this.send(request).await })
    }
}
