//! `kontiki server`: one member of the control plane, put together and taken apart.
//!
//! ```text
//!   start                                     stop
//!    │  identity: whose directory is this?     ▲
//!    │  listeners: all ports or none           │
//!    │  engine, node: log, store, peers        │  last: nothing acknowledged is lost
//!    │  API, etcd API                          │  drained
//!    │  membership: join, where not a member   │
//!    ▼  leader's tasks, while leading          │  first: leadership is handed over
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use kontiki_api::server::{
    ApiConfig, ApiServer, FrontProxyIdentity, KubeletIdentity, Secret, Surface,
};
use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, PeerTls, Timers};
use kontiki_raft::node::Node;
use kontiki_raft::types::Member;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::disk::DiskEngine;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::enroll::server::Enroller;
use crate::leader_context::Settings;
use crate::pki::{Certify, FRONT_PROXY_CLIENT, PkiError, Usage};
use crate::threads::Threads;
use crate::{compaction, leader, shutdown};

pub mod config;
pub mod etcd_tls;
pub mod health;
pub mod identity;
pub mod listen;
pub mod members;

use config::{Scope, ServerConfig};
use identity::Identity;
use listen::Listeners;

/// How long requests under way may take to end at a stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the leader's tasks may take to end at a stop.
const LEADER_TASKS_PATIENCE: Duration = Duration::from_secs(2);
/// How long raft and the store may take to end at a stop.
const NODE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether the member has failed.
const FAILURE_POLL: Duration = Duration::from_millis(500);

/// Runs one server until it is told to stop, or fails.
pub async fn run(config: ServerConfig) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let starting = Server::start(config);
    let Some(server) = stop.run_until_cancelled(starting).await else { return Ok(()) };
    let mut server = server?;
    let ended = server.wait(&stop).await;
    server.stop().await;
    ended
}

/// A running server.
struct Server {
    node: Node,
    /// Leader's tasks, membership.
    upper: Layer,
    /// API and etcd API.
    serving: Layer,
    /// Peers.
    peers: Layer,
    /// Where the leader's tasks and all informers run.
    background: Threads,
}

/// Tasks that are stopped together.
struct Layer {
    token: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Layer {
    fn new() -> Self {
        Self { token: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// The first task that ended, which none should by itself.
    async fn ended(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(Ok(result)) => result.and_then(|()| bail!("a part of the server ended by itself")),
            Some(Err(panic)) => Err(panic).context("a part of the server"),
            None => std::future::pending().await,
        }
    }

    async fn stop(mut self, patience: Duration) {
        self.token.cancel();
        let joined = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    error!("{error:#}");
                }
            }
        };
        if tokio::time::timeout(patience, joined).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

impl Server {
    async fn start(config: ServerConfig) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(&config).await?;
        let identity = Identity::establish(&config).await?;
        let node = start_node(&config, &identity).await?;
        check_kept(&node, &identity, &config).await?;
        if identity.record.founder && !node.is_initialized().await? {
            let members = [(identity.record.node_id, member(&config))].into();
            node.bootstrap(members).await.context("begin a new cluster")?;
        }
        let mut peers = Layer::new();
        let serving_peers = node.clone();
        let token = peers.token.clone();
        peers.tasks.spawn(async move {
            serving_peers.serve(listeners.raft, token).await.context("serve peers")
        });
        let identity = Arc::new(identity);
        let background = Threads::start("background")?;
        let api = Arc::new(background.within(|| make_api(&node, &identity, &config))?);
        let mut serving = Layer::new();
        serve_api(&mut serving, &api, &identity, listeners.api)?;
        let (serving_etcd, token) = (node.clone(), serving.token.clone());
        let etcd_tls = config.etcd_tls.as_ref().map(|tls| tls.config(&identity)).transpose()?;
        serving.tasks.spawn(async move {
            kontiki_raft::etcd::serve(serving_etcd, listeners.etcd, etcd_tls, token).await;
            Ok(())
        });
        let mut upper = Layer::new();
        let token = upper.token.clone();
        upper.tasks.spawn(crate::enroll::server::stay_member(
            node.clone(),
            member(&config),
            config.clone(),
            Arc::clone(&identity),
            token.clone(),
        ));
        upper.tasks.spawn(compaction::run(
            node.clone(),
            config.retention,
            config.data_dir.clone(),
            token.clone(),
        ));
        let settings = Settings {
            root_ca_pem: identity.pki.ca.cert_pem().to_owned(),
            cluster_cidr: config.cluster_cidr.parts(),
            cloud: config.cloud.clone(),
            cluster_name: config.cluster_name.clone(),
            ..Settings::default()
        };
        let signer = Arc::new(ClusterCa(Arc::clone(&identity)));
        if config.scope == Scope::ControlPlane {
            let leading = leader::run(node.clone(), api, Arc::new(settings), signer, token);
            upper.tasks.spawn_on(leading, background.handle());
        }
        info!(
            name = config.name,
            id = identity.record.node_id,
            cluster = identity.record.cluster_id,
            api = config.api_url(),
            "server started"
        );
        Ok(Self { node, upper, serving, peers, background })
    }

    /// Until it is told to stop, or a part of it ends.
    async fn wait(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.upper.ended() => ended,
            ended = self.serving.ended() => ended,
            ended = self.peers.ended() => ended,
            reason = failed(&self.node) => bail!("the member has failed and stops: {reason}"),
        }
    }

    async fn stop(self) {
        self.node.hand_over().await;
        self.upper.stop(LEADER_TASKS_PATIENCE).await;
        self.serving.stop(DRAIN).await;
        self.peers.stop(DRAIN).await;
        if tokio::time::timeout(NODE_PATIENCE, self.node.stop()).await.is_err() {
            error!("raft did not end within {NODE_PATIENCE:?}");
        }
        drop(self.background);
        info!("server stopped");
    }
}

async fn failed(node: &Node) -> String {
    loop {
        if let Some(reason) = node.status().failed {
            return reason;
        }
        tokio::time::sleep(FAILURE_POLL).await;
    }
}

/// What the cluster remembers of this server.
fn member(config: &ServerConfig) -> Member {
    Member {
        name: config.name.clone(),
        raft_addr: config.raft_address(),
        api_url: config.api_url(),
        etcd_addr: config.etcd_address(),
    }
}

/// An address of this machine, rather than all of them.
fn specific(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

async fn start_node(config: &ServerConfig, identity: &Identity) -> anyhow::Result<Node> {
    let engine = open_engine(&config.data_dir.join("store")).await?;
    let peer = identity.dir.read("peer")?;
    let node = NodeConfig {
        node_id: identity.record.node_id,
        cluster_id: identity.record.cluster_id.clone(),
        member: member(config),
        engine,
        peer_source: specific(config.raft_listen.ip()),
        tls: Some(PeerTls {
            ca_pem: identity.pki.peer_ca.cert_pem().into(),
            cert_pem: peer.cert_pem.into(),
            key_pem: peer.key_pem.into(),
        }),
        timers: Timers::default(),
        log: LogPolicy::default(),
        blocking: Blocking::default(),
    };
    Node::start(node).await.with_context(|| {
        format!(
            "start the member of {}; where its files are damaged or another's, move the directory \
             away and start with --join: the server comes back as a new member",
            config.data_dir.display()
        )
    })
}

/// A member that lost what it acknowledged must not come back as itself: its vote could lose it for
/// all, and a founder would begin another cluster of the same name.
async fn check_kept(node: &Node, identity: &Identity, config: &ServerConfig) -> anyhow::Result<()> {
    if !identity.record.joined || node.is_initialized().await? {
        return Ok(());
    }
    bail!(
        "{} belongs to member {} of a cluster, but its store is empty: put its store back, or, to \
         have the server back as a new member, empty the directory and start with --join, or see \
         `kontiki member replace`",
        config.data_dir.display(),
        identity.record.node_id
    )
}

async fn open_engine(directory: &Path) -> anyhow::Result<Arc<dyn Engine>> {
    let path = directory.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || DiskEngine::open(&path)).await?;
    let engine = opened.with_context(|| {
        format!(
            "open the store {}; where it is damaged, move the data directory away and start with \
             --join: the server comes back as a new member",
            directory.display()
        )
    })?;
    Ok(Arc::new(engine))
}

fn make_api(
    node: &Node,
    identity: &Arc<Identity>,
    server: &ServerConfig,
) -> anyhow::Result<ApiServer> {
    let kubelet = identity.dir.read("kubelet-client")?;
    let front_proxy = identity.dir.read("front-proxy-client")?;
    let ca_pem = identity.pki.ca.cert_pem().to_owned();
    let config = ApiConfig {
        surface: match server.scope {
            Scope::ControlPlane => Surface::Whole,
            Scope::Store => Surface::Members,
        },
        cluster_id: identity.record.cluster_id.clone(),
        advertise_address: server.api_url().trim_start_matches("https://").to_owned(),
        client_ca_pem: Some(ca_pem.clone()),
        kubelet: Some(KubeletIdentity {
            cert_pem: kubelet.cert_pem,
            key_pem: kubelet.key_pem,
            ca_pem,
        }),
        front_proxy: Some(FrontProxyIdentity {
            cert_pem: front_proxy.cert_pem,
            key_pem: front_proxy.key_pem,
            ca_pem: identity.pki.front_proxy_ca.cert_pem().to_owned(),
            name: FRONT_PROXY_CLIENT.to_owned(),
        }),
        ready_checks: vec![Arc::new(health::Membership(node.clone()))],
        enrollment: Some(Arc::new(Enroller::new(node.clone(), Arc::clone(identity)))),
        cluster_status: Some(Arc::new(health::Status(node.clone()))),
        admission_plugins: server.admission_plugins.clone(),
        admission_configuration: server.admission_configuration.clone(),
        authentication: server.authentication.clone(),
        token_webhook: server.token_webhook.clone(),
        authorization: server.authorization.clone(),
        audit: server.audit.clone(),
        sealed_resources: server.encrypted.clone(),
        secret: Some(Secret(identity.pki.secret())),
        ..ApiConfig::default()
    };
    ApiServer::new(node.kv(), config).context("set up the API")
}

fn serve_api(
    layer: &mut Layer,
    api: &Arc<ApiServer>,
    identity: &Identity,
    listener: tokio::net::TcpListener,
) -> anyhow::Result<()> {
    let serving = identity.dir.read("api")?;
    let tls = kontiki_api::tls::server_config(&serving.cert_pem, &serving.key_pem)
        .map_err(anyhow::Error::msg)
        .context("set up TLS for the API")?;
    let (api, token) = (Arc::clone(api), layer.token.clone());
    layer.tasks.spawn(async move {
        api.serve(listener, Arc::new(tls), token).await.context("serve the API")
    });
    Ok(())
}

/// The cluster's authority, for requests to certify keys.
struct ClusterCa(Arc<Identity>);

impl Certify for ClusterCa {
    fn certify(
        &self,
        request_pem: &str,
        usages: &[Usage],
        asked: Option<Duration>,
    ) -> Result<String, PkiError> {
        self.0.pki.ca.certify(request_pem, usages, asked)
    }
}
