//! What a cloud's word makes of a node, and what of it cannot be true.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeAddress, Taint};
use serde_json::{Map, Value, json};

use crate::cloud::provider::{CloudError, Instance, Zone};
use crate::controllers::owners;

/// Keeps pods away until the cloud has told about the node.
pub const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// The node's machine is switched off.
pub const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";
/// The address that the node's agent was told to have.
const PROVIDED_IP: &str = "alpha.kubernetes.io/provided-node-ip";
const INSTANCE_TYPE: [&str; 2] =
    ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"];
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] =
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether the cloud has not told about it yet.
pub fn is_uninitialized(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.key == UNINITIALIZED)
}

/// The identity that the cloud gave it.
pub fn provider_id(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.provider_id.as_deref().filter(|id| !id.is_empty())
}

/// Refuses what cannot be: no identity, another than it had, another node's; no address, one that is
/// none, another node's, or none of them the one that the node has.
pub fn check(node: &Node, said: &Instance, all: &[Arc<Node>]) -> Result<(), CloudError> {
    let untrue = |what: String| Err(CloudError::Untrue(what));
    let name = owners::name(&node.metadata);
    if said.provider_id.is_empty() {
        return untrue(format!("the instance of node {name} has no identity"));
    }
    if provider_id(node).is_some_and(|known| known != said.provider_id) {
        return untrue(format!("node {name} has become {}", said.provider_id));
    }
    let others = || all.iter().filter(|other| other.metadata.name != node.metadata.name);
    let twin = others().find(|other| provider_id(other) == Some(said.provider_id.as_str()));
    if let Some(twin) = twin {
        let twin = owners::name(&twin.metadata);
        return untrue(format!("{} is node {twin} and node {name}", said.provider_id));
    }
    if said.addresses.is_empty() {
        return untrue(format!("node {name} has no address"));
    }
    for address in said.addresses.iter().filter(|address| address.type_.ends_with("IP")) {
        if address.address.parse::<IpAddr>().is_err() {
            return untrue(format!("{:?} of node {name} is no address", address.address));
        }
        let is_internal = address.type_ == "InternalIP";
        if let Some(other) = others().find(|o| is_internal && addresses(o).contains(address)) {
            let other = owners::name(&other.metadata);
            return untrue(format!("nodes {name} and {other} have {}", address.address));
        }
    }
    let provided = node.metadata.annotations.as_ref().and_then(|all| all.get(PROVIDED_IP));
    match provided {
        Some(ip) if !said.addresses.iter().any(|address| address.address == *ip) => {
            untrue(format!("node {name} has {ip}, which is none of its instance's addresses"))
        }
        _ => Ok(()),
    }
}

/// The addresses that a node tells.
pub fn addresses(node: &Node) -> &[NodeAddress] {
    node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default()
}

/// The labels that say what the node's machine is and where it stands.
pub fn labels(said: &Instance, zone: &Zone) -> Map<String, Value> {
    let pieces = [(INSTANCE_TYPE, &said.instance_type), (ZONE, &zone.zone), (REGION, &zone.region)];
    let said = pieces.into_iter().filter(|(_, value)| !value.is_empty());
    said.flat_map(|(keys, value)| keys.map(|key| (key.to_owned(), json!(value)))).collect()
}

/// The taints without the one that waited for the cloud.
pub fn initialized(node: &Node) -> Vec<Taint> {
    taints(node).iter().filter(|taint| taint.key != UNINITIALIZED).cloned().collect()
}

/// The taints with or without that of a machine that is switched off, where that is a change.
pub fn shut_down(node: &Node, is_shut_down: bool) -> Option<Vec<Taint>> {
    let mut all = taints(node).to_vec();
    let has = all.iter().any(|taint| taint.key == SHUTDOWN);
    if has == is_shut_down {
        return None;
    }
    all.retain(|taint| taint.key != SHUTDOWN);
    if is_shut_down {
        let effect = "NoSchedule".to_owned();
        all.push(Taint { key: SHUTDOWN.to_owned(), effect, ..Taint::default() });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, id: Option<&str>, ip: &str) -> Arc<Node> {
        let value = json!({
            "metadata": { "name": name, "annotations": { PROVIDED_IP: ip } },
            "spec": { "providerID": id, "taints": [
                { "key": UNINITIALIZED, "value": "true", "effect": "NoSchedule" },
                { "key": "example.com/mine", "effect": "NoExecute" },
            ] },
            "status": { "addresses": [{ "type": "InternalIP", "address": ip }] },
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn instance(id: &str, ips: &[&str]) -> Instance {
        let address =
            |ip: &&str| NodeAddress { type_: "InternalIP".into(), address: (*ip).to_owned() };
        let addresses = ips.iter().map(address).collect();
        Instance { provider_id: id.into(), addresses, ..Instance::default() }
    }

    #[test]
    fn what_cannot_be_true_of_a_node_is_refused_with_the_reason() {
        let all = [node("a", Some("sim://1"), "192.0.2.1"), node("b", None, "192.0.2.2")];
        let refusal = |of: usize, said: &Instance| match check(&all[of], said, &all) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(refusal(1, &instance("sim://2", &["192.0.2.2"])), "");
        assert!(refusal(1, &instance("", &["192.0.2.2"])).contains("no identity"));
        assert!(refusal(0, &instance("sim://9", &["192.0.2.1"])).contains("has become sim://9"));
        assert!(refusal(1, &instance("sim://1", &["192.0.2.2"])).contains("is node a and node b"));
        assert!(refusal(1, &instance("sim://2", &[])).contains("has no address"));
        assert!(refusal(1, &instance("sim://2", &["x"])).contains("is no address"));
        assert!(
            refusal(1, &instance("sim://2", &["192.0.2.1"])).contains("b and a have 192.0.2.1")
        );
        assert!(refusal(1, &instance("sim://2", &["192.0.2.9"])).contains("which is none of"));
    }

    #[test]
    fn labels_say_what_is_known_under_the_old_names_too() {
        let said = Instance { instance_type: "big".into(), ..Instance::default() };
        let labels = labels(&said, &Zone { zone: "z1".into(), region: String::new() });
        assert_eq!(labels.len(), 4);
        assert_eq!(labels["topology.kubernetes.io/zone"], "z1");
        assert_eq!(labels["beta.kubernetes.io/instance-type"], "big");
    }

    #[test]
    fn taints_of_others_stay() {
        let node = node("a", None, "192.0.2.1");
        let keys = |taints: &[Taint]| taints.iter().map(|t| t.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&initialized(&node)), ["example.com/mine"]);
        let off = shut_down(&node, true).unwrap();
        assert_eq!(keys(&off), [UNINITIALIZED, "example.com/mine", SHUTDOWN]);
        assert_eq!(shut_down(&node, false), None);
    }
}
