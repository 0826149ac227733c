//! What an agent is told at its start. Reading flags and files is the binary's work.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};

use crate::dns::ClusterDns;
use crate::evict::EvictionConfig;
use crate::images::collect::ImageGcConfig;

/// Pods a node takes unless told otherwise, as upstream.
pub const MAX_PODS: u32 = 110;

/// Everything an [`Agent`](crate::Agent) needs.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the Node object; also the common name of the client certificate, after
    /// `system:node:`.
    pub node_name: String,
    /// The address under which API servers reach this agent; reported as InternalIP.
    pub node_ip: IpAddr,
    /// Where everything of this agent lives: checkpoint, volumes, logs, its containerd.
    pub data_dir: PathBuf,
    /// URLs of API servers to begin with, such as `https://192.0.2.2:6443`; more are learnt from them.
    pub servers: Vec<String>,
    /// How the agent proves itself to the API servers, and they to it.
    pub client_tls: ClientTls,
    /// Which container runtime to drive.
    pub runtime: RuntimeChoice,
    /// Folder of image archives (OCI layout or docker-archive, `*.tar`) imported at start.
    pub images_dir: Option<PathBuf>,
    /// URL of a registry that every pull is sent to (supervised runtime only).
    pub registry_mirror: Option<String>,
    /// Image of the sandbox container; by default a small one that the agent brings along.
    pub sandbox_image: Option<String>,
    /// Where the agent's own HTTPS server listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Identity of the agent's own HTTPS server.
    pub serving_tls: ServingTls,
    /// cgroup under which `kubepods` is made; `/` at first.
    pub cgroup_root: String,
    /// Folders with CNI plugins; the first that holds `bridge` is used.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Labels the Node is registered with, beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node is registered with.
    pub taints: Vec<Taint>,
    /// How many pods the node offers to hold.
    pub max_pods: u32,
    /// Whether this agent makes Services work on its node.
    pub service_proxy: ServiceProxy,
    /// Where pods find the cluster's names; the agent answers there, unless the Service of that
    /// address selects pods. Without it pods use the node's name servers.
    pub cluster_dns: Option<ClusterDns>,
    /// Folder with descriptions of pods that this node runs by itself.
    pub static_pods_dir: Option<PathBuf>,
    /// When pods are ended for want of something.
    pub eviction: EvictionConfig,
    /// When images that nobody uses are removed.
    pub image_gc: ImageGcConfig,
    /// Periods and deadlines.
    pub timers: Timers,
}

impl AgentConfig {
    /// A configuration with the usual values for all that has one: a supervised containerd, a free
    /// port on `node_ip`, the CNI folders of Debian and of upstream.
    pub fn new(
        node_name: impl Into<String>,
        node_ip: IpAddr,
        data_dir: impl Into<PathBuf>,
        servers: Vec<String>,
        client_tls: ClientTls,
        serving_tls: ServingTls,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            data_dir: data_dir.into(),
            servers,
            client_tls,
            runtime: RuntimeChoice::Supervised,
            images_dir: None,
            registry_mirror: None,
            sandbox_image: None,
            listen: SocketAddr::new(node_ip, 0),
            serving_tls,
            cgroup_root: "/".to_owned(),
            cni_bin_dirs: default_cni_bin_dirs(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: MAX_PODS,
            service_proxy: ServiceProxy::Nftables,
            cluster_dns: None,
            static_pods_dir: None,
            eviction: EvictionConfig::default(),
            image_gc: ImageGcConfig::default(),
            timers: Timers::default(),
        }
    }
}

/// Where Debian and upstream install the CNI plugins.
pub fn default_cni_bin_dirs() -> Vec<PathBuf> {
    vec!["/usr/lib/cni".into(), "/opt/cni/bin".into()]
}

/// PEM texts of a client's identity and of the authority it trusts.
#[derive(Clone)]
pub struct ClientTls {
    /// Authority that signed the API servers' certificates.
    pub ca_pem: String,
    /// The agent's client certificate: group `system:nodes`, name `system:node:NAME`.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// PEM texts of a server's identity and of the authority its clients must be signed by.
#[derive(Clone)]
pub struct ServingTls {
    /// The agent's serving certificate; its names must cover the node's address.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// Authority of the client certificates that are let in.
    pub client_ca_pem: String,
}

// Keys must not reach a log by way of `{:?}`.
impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ServingTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingTls").finish_non_exhaustive()
    }
}

/// Which container runtime an agent drives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeChoice {
    /// Start a containerd of its own under the data directory, and keep it running.
    Supervised,
    /// Use the runtime that serves CRI on this socket; its network is its owner's business.
    Socket(PathBuf),
}

/// What makes Services work on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceProxy {
    /// The agent, by nftables.
    Nftables,
    /// Somebody else.
    None,
}

/// Periods and deadlines of an agent.
#[derive(Clone, Debug)]
pub struct Timers {
    /// Between two renewals of the node's Lease.
    pub lease_renew: Duration,
    /// How long the Lease says it is valid.
    pub lease_duration: Duration,
    /// Between two reports of the node's status when nothing changes.
    pub node_status: Duration,
    /// Between two looks at what the files of a pod's volumes come from.
    pub volume_refresh: Duration,
    /// Between two looks at the runtime's lists.
    pub relist: Duration,
    /// Longest wait for the head of an API server's answer before the next server is asked.
    pub api_deadline: Duration,
    /// Keep-alive of connections to API servers: period of the pings, and longest wait for an answer.
    pub api_keep_alive: Duration,
    /// First wait before a crashed container or a failed pull is tried again; doubles each time.
    pub backoff_initial: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// A container that ran this long starts over with the first wait.
    pub backoff_reset: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            lease_renew: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            node_status: Duration::from_secs(10),
            volume_refresh: Duration::from_secs(60),
            relist: Duration::from_secs(1),
            api_deadline: Duration::from_secs(4),
            api_keep_alive: Duration::from_secs(2),
            backoff_initial: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            backoff_reset: Duration::from_secs(600),
        }
    }
}
