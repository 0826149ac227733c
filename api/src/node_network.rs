//! [`NodeNetwork`]: what the agent of one node must know of the others to lead and to judge its pods'
//! packets: the way to each node's pods, and what network policies say of its own pods. Selectors are
//! resolved here, so that a node learns addresses, and nothing else of another node's pods.

mod policies;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::informer::{Informer, Informers};

use policies::{Policed, Snapshot};

/// Longest wait for something to change before a call is answered as things are; agents give up on
/// a server that is silent for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Changes that come together are answered together.
const GATHERING: Duration = Duration::from_millis(50);

/// What one node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeNetwork {
    /// Differs whenever anything else does.
    pub tag: String,
    /// The other nodes.
    pub nodes: Vec<OtherNode>,
    /// This node's pods that a policy selects.
    pub pods: Vec<Policed>,
}

/// Where another node's pods are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct OtherNode {
    /// The ranges of their addresses.
    pub ranges: Vec<String>,
    /// The node's own address.
    pub address: String,
}

/// Knows what every node must be told.
pub(crate) struct NodeNetworks {
    nodes: Arc<Informer<Node>>,
    namespaces: Arc<Informer<Namespace>>,
    pods: Arc<Informer<Pod>>,
    policies: Arc<Informer<NetworkPolicy>>,
    changed: watch::Receiver<()>,
}

impl NodeNetworks {
    pub(crate) fn new(informers: &Informers) -> Self {
        let (changes, changed) = watch::channel(());
        let changes = Arc::new(changes);
        let (nodes, namespaces) = (informers.of::<Node>(), informers.of::<Namespace>());
        let (pods, policies) = (informers.of::<Pod>(), informers.of::<NetworkPolicy>());
        informers.attend(|stop| follow(Arc::clone(&nodes), Arc::clone(&changes), stop));
        informers.attend(|stop| follow(Arc::clone(&namespaces), Arc::clone(&changes), stop));
        informers.attend(|stop| follow(Arc::clone(&pods), Arc::clone(&changes), stop));
        informers.attend(|stop| follow(Arc::clone(&policies), changes, stop));
        Self { nodes, namespaces, pods, policies, changed }
    }

    /// What a node is told, once it is something else than what had the tag `after`, or after a while.
    pub(crate) async fn of(&self, node: &str, after: &str) -> NodeNetwork {
        let mut changed = self.changed.clone();
        let synced = async {
            self.nodes.synced().await;
            self.namespaces.synced().await;
            self.pods.synced().await;
            self.policies.synced().await;
        };
        synced.await;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            changed.mark_unchanged();
            let now = self.now(node);
            if now.tag != after {
                return now;
            }
            // The sender lives in the informers' tasks; when they end, the server does.
            let change = tokio::time::timeout_at(until, changed.changed()).await;
            if !matches!(change, Ok(Ok(()))) {
                return now;
            }
            tokio::time::sleep(GATHERING).await;
        }
    }

    fn now(&self, node: &str) -> NodeNetwork {
        let nodes = others(node, &self.nodes.list());
        let policies = self.policies.list();
        let pods = if policies.is_empty() {
            Vec::new()
        } else {
            let (pods, namespaces) = (self.pods.list(), self.namespaces.list());
            Snapshot::new(&pods, &namespaces, &policies).of_node(node)
        };
        let mut hasher = DefaultHasher::new();
        (&nodes, &pods).hash(&mut hasher);
        NodeNetwork { tag: format!("{:016x}", hasher.finish()), nodes, pods }
    }
}

/// Says that something changed, until the server stops.
async fn follow<T: Send + Sync + 'static>(
    informer: Arc<Informer<T>>,
    changes: Arc<watch::Sender<()>>,
    stop: CancellationToken,
) {
    let mut events = informer.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => match event {
                Some(_) => changes.send_replace(()),
                None => return,
            },
        }
    }
}

fn others(node: &str, nodes: &[Arc<Node>]) -> Vec<OtherNode> {
    let others = nodes.iter().filter(|other| other.metadata.name.as_deref() != Some(node));
    others.filter_map(|other| way(other)).collect()
}

fn way(node: &Node) -> Option<OtherNode> {
    let spec = node.spec.as_ref()?;
    let ranges = spec.pod_cidrs.clone().or_else(|| Some(vec![spec.pod_cidr.clone()?]))?;
    let mut addresses = node.status.as_ref()?.addresses.iter().flatten();
    let address = addresses.find(|address| address.type_ == "InternalIP")?.address.clone();
    Some(OtherNode { ranges, address })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_told_the_way_to_all_others() {
        let node = |name: &str, cidr: Option<&str>| {
            let value = json!({
                "metadata": { "name": name },
                "spec": { "podCIDR": cidr },
                "status": { "addresses": [
                    { "type": "Hostname", "address": name },
                    { "type": "InternalIP", "address": format!("192.0.2.{}", name.len()) },
                ] },
            });
            Arc::new(serde_json::from_value::<Node>(value).unwrap())
        };
        let nodes =
            [node("a", Some("10.42.0.0/24")), node("bb", Some("10.42.1.0/24")), node("ccc", None)];
        let other = OtherNode { ranges: vec!["10.42.1.0/24".into()], address: "192.0.2.2".into() };
        assert_eq!(others("a", &nodes), [other]);
    }
}
