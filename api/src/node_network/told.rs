//! [`Told`]: what all nodes are told at one moment. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::policies::{Policed, Snapshot};
use super::{NodeNetwork, OtherNode};

/// What all nodes are told.
pub(super) struct Told {
    /// By the nodes' names.
    ways: Vec<(String, OtherNode)>,
    ways_hash: u64,
    /// Of the nodes that have pods which a policy selects.
    pods: HashMap<String, OfNode>,
}

struct OfNode {
    pods: Vec<Policed>,
    hash: u64,
}

impl Told {
    pub(super) fn new(
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        namespaces: &[Arc<Namespace>],
        policies: &[Arc<NetworkPolicy>],
    ) -> Self {
        let named = |node: &Arc<Node>| Some((node.metadata.name.clone()?, way(node)?));
        let ways: Vec<_> = nodes.iter().filter_map(named).collect();
        let policed = Snapshot::new(pods, namespaces, policies).by_node();
        let pods = policed.into_iter().map(|(node, pods)| {
            let hash = hash(&pods);
            (node.to_owned(), OfNode { pods, hash })
        });
        Self { ways_hash: hash(&ways), pods: pods.collect(), ways }
    }

    /// Tells what a node is told at this moment from what it is told at others.
    pub(super) fn tag(&self, node: &str) -> String {
        let pods = self.pods.get(node).map(|of_node| of_node.hash);
        format!("{:016x}", hash(&(self.ways_hash, pods)))
    }

    pub(super) fn of(&self, node: &str) -> NodeNetwork {
        let others = self.ways.iter().filter(|(name, _)| name != node);
        let pods = self.pods.get(node).map(|of_node| of_node.pods.clone());
        NodeNetwork {
            tag: self.tag(node),
            nodes: others.map(|(_, other)| other.clone()).collect(),
            pods: pods.unwrap_or_default(),
        }
    }

    /// Whether every node is told the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.ways_hash == other.ways_hash
            && self.pods.len() == other.pods.len()
            && self.pods.iter().all(|(node, of_node)| {
                other.pods.get(node).is_some_and(|other| other.hash == of_node.hash)
            })
    }
}

/// The same on all servers.
fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Where a node's pods are, once that is known.
pub(super) fn way(node: &Node) -> Option<OtherNode> {
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

    fn node(name: &str, cidr: Option<&str>) -> Arc<Node> {
        let value = json!({
            "metadata": { "name": name },
            "spec": { "podCIDR": cidr },
            "status": { "addresses": [
                { "type": "Hostname", "address": name },
                { "type": "InternalIP", "address": format!("192.0.2.{}", name.len()) },
            ] },
        });
        Arc::new(serde_json::from_value::<Node>(value).unwrap())
    }

    #[test]
    fn a_node_is_told_the_way_to_all_others() {
        let nodes =
            [node("a", Some("10.42.0.0/24")), node("bb", Some("10.42.1.0/24")), node("ccc", None)];
        let other = OtherNode { ranges: vec!["10.42.1.0/24".into()], address: "192.0.2.2".into() };
        assert_eq!(Told::new(&nodes, &[], &[], &[]).of("a").nodes, [other]);
    }

    #[test]
    fn a_tag_moves_with_what_its_node_is_told() {
        let nodes = [node("a", Some("10.42.0.0/24")), node("bb", Some("10.42.1.0/24"))];
        let pod = json!({
            "metadata": { "namespace": "s", "name": "p", "uid": "u" },
            "spec": { "nodeName": "a", "containers": [] },
            "status": { "phase": "Running", "podIPs": [{ "ip": "10.42.0.2" }] },
        });
        let pods = [Arc::new(serde_json::from_value::<Pod>(pod).unwrap())];
        let policy = json!({ "metadata": { "namespace": "s" }, "spec": { "podSelector": {} } });
        let policies = [Arc::new(serde_json::from_value::<NetworkPolicy>(policy).unwrap())];
        let (before, after) =
            (Told::new(&nodes, &[], &[], &[]), Told::new(&nodes, &pods, &[], &policies));
        assert!(!before.is_as(&after) && after.is_as(&Told::new(&nodes, &pods, &[], &policies)));
        assert_ne!(before.tag("a"), after.tag("a"));
        assert_eq!(before.tag("bb"), after.tag("bb"), "it has no such pod");
    }
}
