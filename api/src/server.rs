//! [`ApiServer`]: everything put together over a [`Kv`], served with TLS, HTTP/1.1 and HTTP/2.

mod accept;
mod in_process;
mod parts;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use kontiki_storage::kv::Kv;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, AdmissionConfiguration};
use crate::audit::{Audit, AuditConfig};
use crate::authn::oidc::Issuers;
use crate::authn::webhook::TokenWebhook;
use crate::authn::{AuthenticationConfig, ClientCertificates, TokenWebhookConfig, User};
use crate::authz::{AuthorizationConfig, Authorizer, ClusterAuthorizer, reconcile, reload};
use crate::client::Client;
use crate::fairness::Fairness;
use crate::informer::{Informer, Informers};
use crate::kubelet::Kubelet;
use crate::metrics::Metrics;
use crate::node_network::NodeNetworks;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::scheme::Scheme;
use crate::state::{Api, Documents, STREAMS_MAX};
use crate::status::Status;
use crate::tokens::seal::Sealer;
use crate::tokens::{self, Tokens};
use crate::usage::Usage;
use crate::{bootstrap, chain, crd, outbound, resources, routes};
use accept::Connections;
use parts::{aggregate, seal, tell_whom_to_believe};

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
    async fn enroll(
        &self,
        kind: EnrollKind,
        token: &str,
        body: Value,
        caller: Caller,
    ) -> Result<Value, Status>;
}

/// Who asks to be let in, and the API to look up whether it can be.
#[derive(Clone)]
pub struct Caller {
    /// By its certificate; anonymous without one.
    pub user: Arc<User>,
    /// The API as the server itself.
    pub client: Client,
}

/// Tells how the cluster is: `GET /kontiki/v1/status`, and changes who belongs to it.
#[async_trait]
pub trait ClusterStatus: Send + Sync {
    /// The state of the members, as JSON. Must bound its own waits.
    async fn status(&self) -> Result<Value, Status>;
    /// Changes the members as the JSON says: `POST /kontiki/v1/members`. Must bound its own waits.
    async fn change_members(&self, change: Value) -> Result<Value, Status>;
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

/// What the server presents to aggregated API servers, which then believe what it says of who asks;
/// PEM.
#[derive(Clone)]
pub struct FrontProxyIdentity {
    /// The client certificate chain.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The authority that signed it, and nothing else.
    pub ca_pem: String,
    /// The common name of the certificate.
    pub name: String,
}

/// Bytes that are never shown.
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Surface {
    /// Everything.
    #[default]
    Whole,
    /// Only what members of the cluster need of one another: enrollment, status, health. There is
    /// no Kubernetes over this store.
    Members,
}

/// How the API server is set up.
#[derive(Clone)]
pub struct ApiConfig {
    /// What it serves.
    pub surface: Surface,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's identity, given once at its initialisation.
    pub cluster_id: String,
    /// Where clients find the servers, host and port, as `/api` tells; may be empty.
    pub advertise_address: String,
    /// The authority (PEM) whose client certificates are good; without it every client is
    /// anonymous.
    pub client_ca_pem: Option<String>,
    /// For calls to the nodes' agents; without it `log` is answered 503.
    pub kubelet: Option<KubeletIdentity>,
    /// For calls to aggregated API servers; without it they are not told whom to believe.
    pub front_proxy: Option<FrontProxyIdentity>,
    /// Admission plugins beyond those that always work.
    pub admission_plugins: Vec<String>,
    /// What these are told.
    pub admission_configuration: AdmissionConfiguration,
    /// Whose tokens are good beside the cluster's own, and who may come without any.
    pub authentication: Option<AuthenticationConfig>,
    /// Who is asked about tokens that nobody here knows.
    pub token_webhook: Option<TokenWebhookConfig>,
    /// Who is asked who may do what; without it the node authorizer and RBAC.
    pub authorization: Option<AuthorizationConfig>,
    /// What is written down of requests, and where.
    pub audit: Option<AuditConfig>,
    /// What must be well beside the store.
    pub ready_checks: Vec<Arc<dyn ReadyCheck>>,
    /// How long a request that is not long-running may take.
    pub request_timeout: Duration,
    /// How many requests may be under way at once, together with the next: their turns are shared out
    /// by priority and fairness.
    pub max_reads_in_flight: usize,
    /// See above; Kubernetes counts reads and writes apart where it knows no priorities.
    pub max_writes_in_flight: usize,
    /// Lets servers and nodes in; without it the path is 404.
    pub enrollment: Option<Arc<dyn Enrollment>>,
    /// Who signs service accounts' tokens, as they say it.
    pub issuer: String,
    /// What all servers of the cluster know and its store does not: keys in the store are sealed
    /// with what is derived from it. Without it they are stored as they are.
    pub secret: Option<Secret>,
    /// The resources whose objects are sealed in the store, where there is a secret to seal with:
    /// `secrets`, `widgets.example.com`.
    pub sealed_resources: Vec<String>,
    /// Tells how the cluster is; without it the path is 404.
    pub cluster_status: Option<Arc<dyn ClusterStatus>>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            surface: Surface::Whole,
            cluster_name: "kontiki".into(),
            cluster_id: String::new(),
            advertise_address: String::new(),
            client_ca_pem: None,
            kubelet: None,
            front_proxy: None,
            admission_plugins: Vec::new(),
            admission_configuration: AdmissionConfiguration::default(),
            authentication: None,
            token_webhook: None,
            authorization: None,
            audit: None,
            ready_checks: Vec::new(),
            request_timeout: Duration::from_mins(1),
            max_reads_in_flight: 400,
            max_writes_in_flight: 200,
            enrollment: None,
            issuer: tokens::ISSUER.into(),
            secret: None,
            sealed_resources: vec!["secrets".to_owned()],
            cluster_status: None,
        }
    }
}

/// Why an API server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A certificate, a key or a name in the configuration is not good.
    #[error("setting up the API server: {0}")]
    Identity(String),
}

/// The API server.
pub struct ApiServer {
    api: Arc<Api>,
    informers: Arc<Informers>,
    clients: Arc<ClientCertificates>,
    definitions: Arc<Informer<Object>>,
}

impl ApiServer {
    /// The server over a store. Serves nothing yet. Must be called within a tokio runtime, in which
    /// its informers will run; it can be another than that in which it serves.
    pub fn new(kv: Arc<dyn Kv>, config: ApiConfig) -> Result<Self, SetupError> {
        let scheme = Arc::new(Scheme::new(resources::KINDS));
        let (kv, sealed) = seal(kv, &config);
        let informers = Arc::new(Informers::new(Arc::clone(&kv), Arc::clone(&scheme)));
        let definitions = informers.objects(crd::DEFINITIONS);
        let known = Arc::clone(&scheme);
        informers.attend(|stop| crd::follow(known, Arc::clone(&definitions), stop));
        let chosen = config.authorization.as_ref();
        let authorizer = ClusterAuthorizer::new(Arc::clone(&kv), &informers, chosen);
        let authorizer = Arc::new(authorizer.map_err(SetupError::Identity)?);
        if let Some(config) = config.authorization.clone() {
            let authorizer = Arc::clone(&authorizer);
            let follow = |stop| reload::follow(authorizer, config, reload::PERIOD, stop);
            informers.attend(follow);
        }
        let rbac = Arc::clone(authorizer.rbac());
        let authorization = Arc::clone(&authorizer);
        let authorizer: Arc<dyn Authorizer> = authorizer;
        let plugins = &config.admission_plugins;
        let told = &config.admission_configuration;
        let admission = Admission::built_in(&rbac, &authorizer, &informers, plugins, told);
        let admission = admission.map_err(SetupError::Identity)?;
        let registry = Arc::new(Registry::new(Arc::clone(&kv), Arc::clone(&scheme), admission));
        let aggregation = aggregate(&informers, &registry, &config);
        let client = Client::new(Arc::clone(&registry), Arc::clone(&authorizer));
        tell_whom_to_believe(&informers, &client, &config);
        let sealer = config.secret.as_ref().map(|secret| Sealer::derive(&secret.0, "tokens"));
        let tokens = Tokens::new(kv, sealer, client, &informers, &config.issuer);
        let kubelet = config.kubelet.as_ref().map(Kubelet::new).transpose();
        let clients = match &config.client_ca_pem {
            Some(ca_pem) => ClientCertificates::of_authority(ca_pem),
            None => Ok(ClientCertificates::none()),
        };
        let audit = config.audit.as_ref().map(Audit::start).transpose();
        let audit = audit.map_err(SetupError::Identity)?;
        let issuers = config.authentication.as_ref().map(Issuers::new).transpose();
        let token_webhook = config.token_webhook.as_ref().map(TokenWebhook::new).transpose();
        let turns = config.max_reads_in_flight.saturating_add(config.max_writes_in_flight);
        let fairness = Arc::new(Fairness::new(turns, &informers));
        let api = Api {
            issuers: issuers.map_err(SetupError::Identity)?,
            token_webhook: token_webhook.map_err(SetupError::Identity)?,
            sealed,
            registry,
            authorizer,
            authorization,
            rbac,
            tokens,
            kubelet: kubelet.map_err(SetupError::Identity)?,
            usage: Usage::default(),
            proxying: outbound::proxying().map_err(SetupError::Identity)?,
            documents: Documents::new(&scheme),
            aggregation,
            metrics: Metrics::new(fairness.figures()),
            audit: audit.map(Arc::new),
            networks: NodeNetworks::new(&informers),
            fairness,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            stop: CancellationToken::new(),
            config,
        };
        let clients = Arc::new(clients.map_err(SetupError::Identity)?);
        Ok(Self { api: Arc::new(api), informers, clients, definitions })
    }

    /// The API in this process, as the server itself; see [`Client::as_user`].
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.api.registry), Arc::clone(&self.api.authorizer))
    }

    /// The shared informers.
    pub fn informers(&self) -> Arc<Informers> {
        Arc::clone(&self.informers)
    }

    /// All routes without TLS, for tests in process: who calls is the `Arc<`[`crate::authn::User`]`>`
    /// in the request's extensions, anonymous without one.
    pub fn router(&self) -> Router {
        chain::around(routes::routes(&self.api), &self.api)
    }

    /// Serves until `stop`, then lets what is under way end; watches end at once. `tls` is made by
    /// [`crate::tls::server_config`]: it must ask for client certificates and let everybody in, for
    /// who has none is anonymous, and who has a bad one gets a 401.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let connections = Connections {
            tls: TlsAcceptor::from(tls),
            router: self.router(),
            clients: Arc::clone(&self.clients),
        };
        let result = accept::run(listener, connections, &stop, &self.api.stop).await;
        self.informers.shutdown().await;
        if let Some(audit) = &self.api.audit {
            audit.close().await;
        }
        result
    }

    /// Creates what every cluster has: the namespaces `default`, `kube-system`, `kube-node-lease`
    /// and `kube-public`, the default roles and bindings, and the service `kubernetes`. What was
    /// taken away of the roles comes back. Idempotent; the leader calls it with its fenced client.
    pub async fn bootstrap(&self, client: &Client) -> Result<(), Status> {
        bootstrap::run(client).await?;
        reconcile::run(client).await?;
        self.api.tokens.keys().maintain().await?;
        // What was stored before its resource was to be sealed.
        match &self.api.sealed {
            Some(sealed) => sealed.reseal().await.map(drop),
            None => Ok(()),
        }
    }

    /// Has the agent of a node remove the folder of a volume from its disk.
    pub async fn remove_volume(&self, node: &Object, folder: &str) -> Result<(), Status> {
        const LIMIT: Duration = Duration::from_secs(30);
        let kubelet = self.api.kubelet.as_ref();
        let kubelet = kubelet.ok_or_else(|| Status::unavailable("no node can be asked"))?;
        kubelet.delete(node, &["localVolumes", folder], LIMIT).await
    }

    /// Whether the API server that an APIService names answers; the error says why not.
    pub async fn check_aggregated(&self, service: &Object) -> Result<(), String> {
        crate::aggregate::check(&self.api.aggregation, &self.api.registry, service).await
    }

    /// Waits until the default roles and bindings are in this server's memory: then everybody who
    /// has rights by them has them here; and the definitions of custom kinds. Callers bound the wait.
    pub async fn furnished(&self) {
        self.definitions.synced().await;
        self.api.rbac.furnished().await;
        self.api.registry.admission().furnished().await;
    }
}

#[cfg(test)]
mod tests;
