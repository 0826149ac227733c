//! What the leader's tasks (scheduler and controllers) are given when their server is elected.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use kontiki_api::client::Client;
use kontiki_api::informer::Informers;
use tokio_util::sync::CancellationToken;

use crate::cloud::Choice;
use crate::cluster_cidr::{ClusterCidr, NODE_BITS};
use crate::controllers::api_services::availability::DiscoveryCheck;
use crate::controllers::autoscale::measure::MetricsApi;
use crate::controllers::local_path::VolumeFolders;
use crate::controllers::metrics::LeaderMetrics;
use crate::pki::Certify;

/// All that a leader's task works with. Made anew for each term.
#[derive(Clone)]
pub struct LeaderContext {
    /// The API, fenced by the term: what is written through it is refused once the term is past
    /// (invariant R9).
    pub client: Client,
    /// The objects in memory. Those that most depends on run at every server all the time.
    pub informers: Arc<Informers>,
    /// Cancelled when the term, or the process, ends.
    pub token: CancellationToken,
    /// What the cluster was set up with.
    pub settings: Arc<Settings>,
    /// Removes what volumes hold from the nodes' disks.
    pub folders: Arc<dyn VolumeFolders>,
    /// Asks aggregated API servers whether they answer.
    pub aggregated: Arc<dyn DiscoveryCheck>,
    /// Asks what is measured, as the autoscaler.
    pub metrics_api: Arc<dyn MetricsApi>,
    /// Certifies keys for the cluster.
    pub signer: Arc<dyn Certify>,
    /// What its tasks count; the same through all terms of a server.
    pub metrics: Arc<LeaderMetrics>,
}

impl LeaderContext {
    /// The same for one of the tasks, which has to wait for those informers only that it asks for.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { informers: self.informers.view(), ..self.clone() }
    }

    /// The API as the service account of the controller of that name: it may do what the role
    /// `system:controller:NAME` allows (`api/src/authz/defaults.txt`), and what it writes is its own
    /// in `managedFields` and in the audit.
    pub fn client_of(&self, controller: &str) -> Client {
        self.client.as_service_account("kube-system", controller)
    }
}

/// Settings of the leader's tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The addresses of all pods; each node gets a part of it.
    pub cluster_cidr: (Ipv4Addr, u8),
    /// How long the prefix of a node's part is.
    pub node_cidr_mask: u8,
    /// How long a node may be silent before it is held for unreachable.
    pub node_monitor_grace: Duration,
    /// How long a node that has never reported its status may be silent.
    pub node_startup_grace: Duration,
    /// How often a node that is not ready is looked at.
    pub node_monitor_period: Duration,
    /// How much time lies between two nodes of a zone whose pods are driven off.
    pub node_eviction_interval: Duration,
    /// How many pods that have come to their end may stay, before the oldest are deleted.
    pub terminated_pod_threshold: usize,
    /// How often pods that nobody will run any more are looked for.
    pub pod_gc_period: Duration,
    /// How long a node must be missing before its pods are deleted.
    pub node_quarantine: Duration,
    /// The certificate of the cluster's authority (PEM), which pods find in `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// How many keys of one controller are worked on at the same time.
    pub workers: usize,
    /// The cloud that the cluster stands on.
    pub cloud: Choice,
    /// What a cloud tells this cluster from others by.
    pub cluster_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_cidr: ClusterCidr::default().parts(),
            node_cidr_mask: NODE_BITS,
            node_monitor_grace: Duration::from_secs(50),
            node_startup_grace: Duration::from_secs(60),
            node_monitor_period: Duration::from_secs(5),
            node_eviction_interval: Duration::from_secs(10),
            terminated_pod_threshold: 12_500,
            pod_gc_period: Duration::from_secs(20),
            node_quarantine: Duration::from_secs(40),
            root_ca_pem: String::new(),
            workers: 5,
            cloud: Choice::None,
            cluster_name: "kubernetes".to_owned(),
        }
    }
}
