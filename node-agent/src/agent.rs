//! Puts an agent together, runs it and takes it apart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::cleanup::cleanup;

use crate::allocations::{Allocations, Amounts, Room};
use crate::api::{KubeApi, chain};
use crate::catalog::Catalog;
use crate::checkpoint::Checkpoint;
use crate::cleanup::Record;
use crate::client::{ClientError, Servers};
use crate::config::{AgentConfig, RuntimeChoice, ServiceProxy};
use crate::containerd::Containerd;
use crate::containerd::settings::Settings;
use crate::dns::Dns;
use crate::events::Recorder;
use crate::evict::pressure::Pressure;
use crate::evict::{Evictor, Order};
use crate::images::collect::Collector;
use crate::images::{Importer, pause};
use crate::network::answers::Answers;
use crate::network::peers::Peers;
use crate::network::routes::Routes;
use crate::network::services::{self, Services};
use crate::node::{KnownNode, NodeReporter, renew_lease};
use crate::paths::Paths;
use crate::pod_worker::Context;
use crate::pods::{PodIndex, Pods, Told};
use crate::policy::Policies;
use crate::preflight::find_cni_bin_dir;
use crate::proxy::Proxy;
use crate::proxy::nft::Nft;
use crate::proxy::ports::Place;
use crate::runtime::cri::Cri;
use crate::runtime::{Runtime, RuntimeVersion};
use crate::server::gate::{Gate, KubeReviewer};
use crate::server::{Server, Sources};
use crate::spec::NodeFacts;
use crate::spec::files::parse_resolv_conf;
use crate::stats::{self, Stats};
use crate::{events, log_rotation, mirrors, network, static_pods, system};

/// Pulls at the same time; more wait.
const PULLS_MAX: usize = 4;
/// Pods ordered to end that may wait to be; the evictor waits when it is full.
const ORDERS: usize = 4;
/// Between two looks for servers that joined the cluster.
const LEARN_PERIOD: Duration = Duration::from_secs(15);
/// The label of a node that says where it stands.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// What servers tell of their cluster, where it is a Kontiki one.
const CLUSTER_STATUS: &str = "/kontiki/v1/status";

/// Why an agent could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine lacks something; see [`crate::preflight()`].
    #[error("this machine cannot run pods: {0} is missing")]
    Missing(String),
    /// A value of the configuration cannot be used.
    #[error("configuration of the agent: {0}")]
    Config(String),
    /// The API servers cannot be called like this.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file or socket of the agent could not be used.
    #[error("{act}")]
    Io {
        /// What was tried on which path or address.
        act: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The container runtime does not do its part.
    #[error("container runtime: {0}")]
    Runtime(String),
}

impl AgentError {
    /// `act` failed on `path`.
    pub(crate) fn io(act: &str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { act: format!("{act} {}", path.display()), source }
    }
}

/// A node agent whose runtime serves and whose server is bound.
pub struct Agent {
    config: Arc<AgentConfig>,
    paths: Paths,
    servers: Servers,
    containerd: Option<Containerd>,
    runtime: Arc<dyn Runtime>,
    version: RuntimeVersion,
    /// Names of images that nobody could fetch again.
    kept_images: BTreeSet<String>,
    server: Server,
    address: SocketAddr,
}

impl Agent {
    /// Starts the runtime, imports images and binds the agent's server. The API servers need not
    /// be there yet.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let servers = Servers::new(&config.servers, &config.client_tls, &config.timers)?;
        let server = Server::bind(config.listen, &config.serving_tls).await?;
        let address = server.address().map_err(|source| AgentError::Io {
            act: "learn the listening address".into(),
            source,
        })?;
        let paths = Paths::new(&make_data_dir(&config.data_dir)?);
        // Before anything is made that would have to be cleaned up.
        let record = Record {
            node_name: config.node_name.clone(),
            runtime: config.runtime.clone(),
            cgroup_root: config.cgroup_root.clone(),
        };
        record.save(&paths)?;
        let (containerd, socket) = match &config.runtime {
            RuntimeChoice::Supervised => start_containerd(&config, &paths).await?,
            RuntimeChoice::Socket(socket) => (None, socket.clone()),
        };
        let runtime: Arc<dyn Runtime> = Arc::new(Cri::new(&socket));
        let version = runtime.version().await.map_err(|error| {
            AgentError::Runtime(format!("{} does not serve CRI: {error}", socket.display()))
        })?;
        let kept_images =
            import_images(&config, &paths, &socket, runtime.as_ref(), &version).await?;
        Ok(Self {
            config: Arc::new(config),
            paths,
            servers,
            containerd,
            runtime,
            version,
            kept_images,
            server,
            address,
        })
    }

    /// Where the agent's own HTTPS server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until `shutdown` is cancelled, then stops its tasks and leaves the containers running (N1).
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let client = self.servers.client();
        let (recorder, sender) = events::recorder(&self.config.node_name);
        let checkpoint = Checkpoint::open(&self.paths).map_err(|source| {
            AgentError::io("open the folder", &self.paths.checkpoint(), source)
        })?;
        let node = self.node_facts();
        let amounts = Amounts {
            cpu_milli: node.cpu_milli,
            memory_bytes: node.memory_bytes,
            disk_bytes: i64::try_from(system::capacity(self.paths.data()).disk_bytes)
                .unwrap_or(i64::MAX),
        };
        let room =
            Room { amounts, pods: usize::try_from(self.config.max_pods).unwrap_or(usize::MAX) };
        let allocations = Allocations::open(&self.paths, room).map_err(|source| {
            AgentError::io("open the folder", &self.paths.allocations(), source)
        })?;
        let index = PodIndex::default();
        let pressure = Pressure::default();
        let known_node = KnownNode::default();
        let catalog = Arc::new(RwLock::new(Catalog::default()));
        let context = Arc::new(Context {
            runtime: self.runtime.clone(),
            api: Arc::new(KubeApi::new(client.clone())),
            recorder: recorder.clone(),
            paths: self.paths.clone(),
            node,
            catalog: Arc::clone(&catalog),
            allocations,
            pressure: pressure.clone(),
            known_node: known_node.clone(),
            checkpoint,
            timers: self.config.timers.clone(),
            pulls: Semaphore::new(PULLS_MAX),
            archived: match self.config.registry_mirror {
                Some(_) => BTreeSet::new(),
                None => self.kept_images.clone(),
            },
        });
        let reporter = NodeReporter {
            config: self.config.clone(),
            paths: self.paths.clone(),
            runtime: self.runtime.clone(),
            version: self.version.clone(),
            port: self.address.port(),
            recorder: recorder.clone(),
            pressure: pressure.clone(),
            known: known_node,
        };
        let stats = Stats::default();
        let sources = self.sources(&client, &index, &stats);
        let sampling = stats.run(self.stats_sources(&index), shutdown.clone());
        let rotation = log_rotation::run(
            self.paths.clone(),
            index.clone(),
            self.runtime.clone(),
            shutdown.clone(),
        );
        let mut tasks = JoinSet::new();
        self.spawn_network(&mut tasks, &client, catalog, &shutdown).await;
        tasks.spawn(rotation);
        tasks.spawn(sampling);
        tasks.spawn(sender.run(client.clone(), shutdown.clone()));
        tasks.spawn(learn_servers(self.servers.clone(), shutdown.clone()));
        tasks.spawn(renew_lease(client.clone(), self.config.clone(), shutdown.clone()));
        tasks.spawn(reporter.run(client.clone(), shutdown.clone()));
        let orders = self.spawn_evictor(&mut tasks, &index, recorder, pressure, &shutdown);
        let pods = Pods::new(context, index);
        let node = self.config.node_name.clone();
        tasks.spawn(mirrors::run(client.clone(), node.clone(), pods.view(), shutdown.clone()));
        let (found, statics) = mpsc::channel(1);
        let folder = self.config.static_pods_dir.clone();
        tasks.spawn(static_pods::run(folder, node.clone(), found, shutdown.clone()));
        let told = Told { orders, statics };
        tasks.spawn(pods.run(client, node, told, shutdown.clone()));
        let supervise = async {
            if let Some(containerd) = &self.containerd {
                containerd.supervise(shutdown.clone()).await;
            }
        };
        tokio::join!(self.server.run(sources, shutdown.clone()), supervise);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the agent broke");
            }
        }
        Ok(())
    }

    /// Removes everything this agent made on the machine; see [`cleanup`].
    pub async fn purge(self) -> Result<(), AgentError> {
        cleanup(self.paths.data()).await
    }

    /// Services and the cluster's names. The node's own pods run without them.
    async fn spawn_network(
        &self,
        tasks: &mut JoinSet<()>,
        client: &kube::Client,
        catalog: Arc<RwLock<Catalog>>,
        shutdown: &CancellationToken,
    ) {
        let node = &self.config.node_name;
        let (range_sender, range) = watch::channel(None);
        if let Some(config) = &self.config.cluster_dns {
            match Dns::bind(self.config.node_ip).await.and_then(|dns| Ok((dns.address()?, dns))) {
                Ok((address, dns)) => {
                    if let Some((key, slice)) = services::dns_slice(node, address) {
                        catalog.write().serve(key, slice);
                    }
                    tracing::info!(%address, "cluster DNS answers");
                    tasks.spawn(dns.run(config.clone(), catalog.clone(), range, shutdown.clone()));
                }
                Err(error) => tracing::error!(%error, "cluster DNS cannot listen"),
            }
        }
        let (ranges, others) = watch::channel(BTreeSet::new());
        let peers = Peers { routes: self.routes(), policies: self.policies(), ranges };
        tasks.spawn(peers.run(client.clone(), shutdown.clone()));
        let (answered, wanted) = watch::channel(None);
        if self.config.service_proxy == ServiceProxy::Nftables {
            let answers = Answers::new(self.paths.answers_link(), self.config.node_ip);
            tasks.spawn(answers.run(wanted, shutdown.clone()));
        }
        let proxy = self.proxy();
        let services = Services::new(node.clone(), catalog, proxy, range_sender, others, answered);
        tasks.spawn(services.run(client.clone(), shutdown.clone()));
    }

    /// What keeps the node from running short; answers where it orders pods to end.
    fn spawn_evictor(
        &self,
        tasks: &mut JoinSet<()>,
        index: &PodIndex,
        recorder: Recorder,
        pressure: Pressure,
        shutdown: &CancellationToken,
    ) -> mpsc::Receiver<Order> {
        let collector = Arc::new(Collector::new(
            self.runtime.clone(),
            self.config.image_gc,
            self.paths.data().to_path_buf(),
            self.kept_images.clone(),
            self.config.node_name.clone(),
            recorder.clone(),
        ));
        tasks.spawn(Arc::clone(&collector).run(shutdown.clone()));
        let (orders, receiver) = mpsc::channel(ORDERS);
        let evictor = Evictor {
            config: self.config.eviction.clone(),
            node_name: self.config.node_name.clone(),
            sources: self.stats_sources(index),
            recorder,
            pressure,
            collector,
            orders,
        };
        tasks.spawn(evictor.run(shutdown.clone()));
        receiver
    }

    /// What the agent's server answers from.
    fn sources(&self, client: &kube::Client, index: &PodIndex, stats: &Stats) -> Arc<Sources> {
        let node = self.config.node_name.clone();
        Arc::new(Sources {
            index: index.clone(),
            runtime: self.runtime.clone(),
            paths: self.paths.clone(),
            stats: stats.clone(),
            config: self.config.clone(),
            gate: Gate::new(KubeReviewer { client: client.clone(), node }),
        })
    }

    /// What figures are taken from.
    fn stats_sources(&self, index: &PodIndex) -> stats::Sources {
        stats::Sources {
            index: index.clone(),
            runtime: self.runtime.clone(),
            paths: self.paths.clone(),
            cgroup_root: self.config.cgroup_root.clone(),
            cgroup_fs: stats::cgroup::FS.into(),
        }
    }

    /// A runtime of somebody else's has a network of its own.
    fn routes(&self) -> Option<Routes> {
        let is_ours = self.config.runtime == RuntimeChoice::Supervised;
        is_ours.then(|| Routes::new(self.config.node_ip))
    }

    fn policies(&self) -> Option<Policies> {
        if self.config.runtime != RuntimeChoice::Supervised {
            return None;
        }
        match Nft::new(&self.paths.policy_table()) {
            Ok(nft) => Some(Policies::new(nft)),
            Err(error) => {
                tracing::error!(%error, "network policies are not in force on this node");
                None
            }
        }
    }

    fn proxy(&self) -> Option<Proxy> {
        if self.config.service_proxy == ServiceProxy::None {
            return None;
        }
        let zone = self.config.labels.get(ZONE_LABEL).cloned();
        let place = Place { node: self.config.node_name.clone(), zone };
        match Nft::new(&self.paths.table()) {
            Ok(nft) => Some(Proxy::new(nft, place, &self.paths.bridge())),
            Err(error) => {
                tracing::error!(%error, "Services do not work on this node");
                None
            }
        }
    }

    fn node_facts(&self) -> NodeFacts {
        let capacity = system::capacity(self.paths.data());
        let resolver = std::fs::read_to_string(network::host_resolv_conf()).unwrap_or_default();
        NodeFacts {
            ip: self.config.node_ip,
            cgroup_root: self.config.cgroup_root.clone(),
            memory_bytes: capacity.memory_bytes,
            cpu_milli: i64::try_from(capacity.cpus).unwrap_or(i64::MAX).saturating_mul(1000),
            host_dns: parse_resolv_conf(&resolver),
            cluster_dns: self.config.cluster_dns.clone(),
        }
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, address, .. } = self;
        let node = &config.node_name;
        f.debug_struct("Agent")
            .field("node", node)
            .field("address", address)
            .finish_non_exhaustive()
    }
}

/// containerd and the kernel are told absolute paths without links.
fn make_data_dir(data_dir: &Path) -> Result<PathBuf, AgentError> {
    std::fs::create_dir_all(data_dir)
        .and_then(|()| data_dir.canonicalize())
        .map_err(|source| AgentError::io("make the data directory", data_dir, source))
}

async fn start_containerd(
    config: &AgentConfig,
    paths: &Paths,
) -> Result<(Option<Containerd>, PathBuf), AgentError> {
    let cni_bin_dir = find_cni_bin_dir(&config.cni_bin_dirs)
        .ok_or_else(|| AgentError::Missing("a folder with the CNI plugins".to_owned()))?;
    let settings = Settings::detect(
        &paths.containerd(),
        config.sandbox_image.clone().unwrap_or_else(|| pause::NAME.to_owned()),
        cni_bin_dir,
        config.registry_mirror.clone(),
    );
    let containerd = Containerd::start(paths, &settings).await?;
    let socket = containerd.socket();
    Ok((Some(containerd), socket))
}

/// Brings the images in that come from files; answers the names of those that must stay, because
/// nobody could fetch them again.
async fn import_images(
    config: &AgentConfig,
    paths: &Paths,
    socket: &Path,
    runtime: &dyn Runtime,
    version: &RuntimeVersion,
) -> Result<BTreeSet<String>, AgentError> {
    let sandbox = config.sandbox_image.clone().unwrap_or_else(|| pause::NAME.to_owned());
    let mut kept = BTreeSet::from([sandbox]);
    let supervised = config.runtime == RuntimeChoice::Supervised;
    if version.name != "containerd" {
        if config.images_dir.is_some() {
            tracing::warn!(runtime = %version.name, "image archives are imported into containerd only");
        }
        return Ok(kept);
    }
    // A runtime of somebody else's has its own idea of a sandbox image.
    if !supervised && config.images_dir.is_none() {
        return Ok(kept);
    }
    let importer = Importer::new(paths, socket, supervised.then(|| snapshotter(paths)).flatten())?;
    if supervised && config.sandbox_image.is_none() {
        importer.pause_image(runtime).await?;
    }
    if let Some(dir) = &config.images_dir {
        kept.extend(importer.folder(dir).await?);
    }
    Ok(kept)
}

/// The snapshotter that containerd was configured with.
fn snapshotter(paths: &Paths) -> Option<&'static str> {
    let config = std::fs::read_to_string(paths.containerd().join("config.toml")).ok()?;
    ["overlayfs", "native"]
        .into_iter()
        .find(|name| config.contains(&format!("snapshotter = \"{name}\"")))
}

/// Asks the cluster for its servers again and again, so that the agent reaches those that joined
/// after it started.
async fn learn_servers(servers: Servers, shutdown: CancellationToken) {
    let client = servers.client();
    let mut ticks = tokio::time::interval(LEARN_PERIOD);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let Ok(request) = http::Request::get(CLUSTER_STATUS).body(Vec::new()) else { return };
        let answer = tokio::select! {
            answer = client.request::<serde_json::Value>(request) => answer,
            () = shutdown.cancelled() => return,
        };
        match answer {
            Ok(status) => {
                for url in member_urls(&status) {
                    match servers.learn(&url) {
                        Ok(true) => tracing::info!(server = %url, "learnt of a server"),
                        Ok(false) => {}
                        Err(error) => tracing::warn!(%error, "a server has no usable address"),
                    }
                }
            }
            Err(error) => tracing::debug!(error = chain(&error), "servers not learnt"),
        }
    }
}

/// The API addresses of all members.
fn member_urls(status: &serde_json::Value) -> Vec<String> {
    let members = status["members"].as_array().into_iter().flatten();
    members
        .filter_map(|member| member["api"].as_str())
        .filter(|api| !api.is_empty())
        .map(|api| if api.contains("://") { api.to_owned() } else { format!("https://{api}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_in_what_servers_tell() {
        let status = serde_json::json!({ "members": [
            { "api": "https://127.0.0.1:1" }, { "api": "127.0.0.1:2" }, { "api": "" }, {},
        ] });
        assert_eq!(member_urls(&status), ["https://127.0.0.1:1", "https://127.0.0.1:2"]);
        assert!(member_urls(&serde_json::json!({})).is_empty());
    }
}
