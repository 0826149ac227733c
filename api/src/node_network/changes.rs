//! Which changes matter to what nodes are told. Most do not: pods report how they are all the time.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::policies::{containers, known};
use super::told::way;
use crate::informer::Change;

/// Where its pods are.
pub(super) fn of_node(change: &Change<Node>) -> bool {
    differs(change, way)
}

/// What it says.
pub(super) fn of_policy(change: &Change<NetworkPolicy>) -> bool {
    differs(change, |policy| policy.spec.clone())
}

/// How selectors see it.
pub(super) fn of_namespace(change: &Change<Namespace>) -> bool {
    differs(change, |namespace| namespace.metadata.labels.clone())
}

/// Where it is, how selectors see it, and what its ports are called.
pub(super) fn of_pod(change: &Change<Pod>) -> bool {
    differs(change, |pod| {
        let known = known(pod)?;
        let ports = containers(pod).map(|one| one.ports.clone()).collect::<Vec<_>>();
        let ips = known.ips.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Some((ips, node, pod.metadata.uid.clone(), pod.metadata.labels.clone(), ports))
    })
}

/// Whether what is seen of an object is another; what is not seen at all does not come or go.
fn differs<T, S: PartialEq>(change: &Change<T>, seen: impl Fn(&T) -> Option<S>) -> bool {
    match change {
        Change::Added(object) | Change::Deleted(object) => seen(object).is_some(),
        Change::Updated { old, new } => seen(old) != seen(new),
        Change::Resync => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(changes: &[(&str, Value)]) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "namespace": "a", "name": "p", "uid": "u", "labels": { "app": "p" } },
            "spec": { "nodeName": "n", "containers": [{ "name": "c" }] },
            "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.1" }] },
        });
        for (pointer, value) in changes {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn of_a_pod_only_what_policies_see_matters() {
        for (pointer, value, matters) in [
            ("/status/conditions", json!([{ "type": "Ready", "status": "True" }]), false),
            ("/status/containerStatuses", json!([]), false),
            ("/metadata/annotations", json!({ "a": "b" }), false),
            ("/metadata/labels", json!({ "app": "q" }), true),
            ("/status/podIPs", json!([{ "ip": "10.0.0.2" }]), true),
            ("/status/phase", json!("Succeeded"), true),
        ] {
            let change = Change::Updated { old: pod(&[]), new: pod(&[(pointer, value)]) };
            assert_eq!(of_pod(&change), matters, "{pointer}");
        }
        assert!(of_pod(&Change::Deleted(pod(&[]))) && of_pod(&Change::Resync));
        let pending = pod(&[("/status/podIPs", json!([]))]);
        assert!(!of_pod(&Change::Added(pending)), "it has no address");
    }

    #[test]
    fn of_a_node_only_the_way_matters() {
        let node = |ready: &str, address: &str| {
            let node = json!({
                "metadata": { "name": "n" }, "spec": { "podCIDR": "10.42.0.0/24" },
                "status": {
                    "addresses": [{ "type": "InternalIP", "address": address }],
                    "conditions": [{ "type": "Ready", "status": ready }],
                },
            });
            Arc::new(serde_json::from_value::<Node>(node).unwrap())
        };
        let change = |new| Change::Updated { old: node("True", "192.0.2.1"), new };
        assert!(!of_node(&change(node("False", "192.0.2.1"))));
        assert!(of_node(&change(node("True", "192.0.2.2"))));
    }
}
