//! [`ApiServer`]: everything put together over a [`Kv`], served with TLS, HTTP/1.1 and HTTP/2.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use kontiki_storage::kv::Kv;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::authz::{Authorizer, BuiltIn};
use crate::client::Client;
use crate::informer::Informers;
use crate::registry::Registry;
use crate::registry::scheme::Scheme;
use crate::resources;
use crate::status::Status;

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub base: Ipv4Addr,
    /// How many leading bits are the block's own.
    pub prefix_len: u8,
}

/// What asks to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrollKind {
    /// Another server of the control plane.
    Server,
    /// A node's agent.
    Node,
}

/// Lets servers and nodes into the cluster: `POST /kontiki/v1/enroll/{server,node}`, the one call
/// that needs no client certificate, for it is how one gets one.
#[async_trait]
pub trait Enrollment: Send + Sync {
    /// Must check `token` itself and answer [`Status::unauthorized`] where it is wrong.
    async fn enroll(&self, kind: EnrollKind, token: &str, body: Value) -> Result<Value, Status>;
}

/// Tells how the cluster is: `GET /kontiki/v1/status`.
#[async_trait]
pub trait ClusterStatus: Send + Sync {
    /// The state of the members, as JSON. Must bound its own waits.
    async fn status(&self) -> Result<Value, Status>;
}

/// One thing that must be well for the server to be ready: `/readyz/NAME`.
#[async_trait]
pub trait ReadyCheck: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;
    /// `Err` says what is not ready. Must bound its own waits.
    async fn check(&self) -> Result<(), String>;
}

/// What the server presents to the nodes' agents, and whom it trusts among them; PEM.
#[derive(Clone)]
pub struct KubeletIdentity {
    /// The client certificate chain.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The authority that signed the agents' serving certificates.
    pub ca_pem: String,
}

/// How the API server is set up.
#[derive(Clone)]
pub struct ApiConfig {
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's identity, given once at its initialisation.
    pub cluster_id: String,
    /// The addresses of services.
    pub service_cidr: Cidr,
    /// For calls to the nodes' agents; without it `log` is answered 503.
    pub kubelet: Option<KubeletIdentity>,
    /// What must be well beside the store.
    pub ready_checks: Vec<Arc<dyn ReadyCheck>>,
    /// How long a request that is not long-running may take.
    pub request_timeout: Duration,
    /// How many reads may be under way at once.
    pub max_reads_in_flight: usize,
    /// How many writes may be under way at once.
    pub max_writes_in_flight: usize,
    /// Lets servers and nodes in; without it the path is 404.
    pub enrollment: Option<Arc<dyn Enrollment>>,
    /// Tells how the cluster is; without it the path is 404.
    pub cluster_status: Option<Arc<dyn ClusterStatus>>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            cluster_name: "kontiki".into(),
            cluster_id: String::new(),
            service_cidr: Cidr { base: Ipv4Addr::new(10, 96, 0, 0), prefix_len: 16 },
            kubelet: None,
            ready_checks: Vec::new(),
            request_timeout: Duration::from_mins(1),
            max_reads_in_flight: 400,
            max_writes_in_flight: 200,
            enrollment: None,
            cluster_status: None,
        }
    }
}

/// The API server.
pub struct ApiServer {
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
    informers: Arc<Informers>,
    #[expect(dead_code, reason = "used by the next commit")]
    config: Arc<ApiConfig>,
}

impl ApiServer {
    /// The server over a store. Serves nothing yet.
    pub fn new(kv: Arc<dyn Kv>, config: ApiConfig) -> Self {
        let scheme = Arc::new(Scheme::new(resources::KINDS));
        let informers = Arc::new(Informers::new(Arc::clone(&kv), Arc::clone(&scheme)));
        let registry = Arc::new(Registry::new(kv, scheme, Admission::default()));
        Self { registry, authorizer: Arc::new(BuiltIn), informers, config: Arc::new(config) }
    }

    /// The API in this process, as the server itself; see [`Client::as_user`].
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.registry), Arc::clone(&self.authorizer))
    }

    /// The shared informers.
    pub fn informers(&self) -> Arc<Informers> {
        Arc::clone(&self.informers)
    }

    /// All routes without TLS, for tests in process: who calls is the [`crate::authn::User`] in the
    /// request's extensions, anonymous without one.
    pub fn router(&self) -> Router {
        Router::new()
    }

    /// Serves until `stop`, then lets what is under way end. Connections without a client
    /// certificate must be let through by `tls`: they are anonymous.
    pub async fn serve(
        &self,
        listener: TcpListener,
        _tls: Arc<ServerConfig>,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        stop.cancelled().await;
        drop(listener);
        Ok(())
    }

    /// Creates what every cluster has: the namespaces `default`, `kube-system`, `kube-node-lease`
    /// and `kube-public`. Idempotent; the leader calls it.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        Ok(())
    }
}
