//! Whether a pod fits a node. The scheduler asks before it chooses, and the node before it runs what
//! somebody may have put there past the scheduler, so both must mean the same. Pure.

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::admit::Refusal;
use crate::static_pods::is_static;

pub mod affinity;
pub mod extended;
pub mod ports;
pub mod taints;

/// What a node calls its operating system.
const OS_LABEL: &str = "kubernetes.io/os";
/// The operating system of all of these nodes.
const OS: &str = "linux";

/// Why a node, by what is written on it, does not run a pod; in the kubelet's words and order.
pub fn refusal(pod: &Pod, node: &Node) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let selected = spec.node_selector.as_ref().and_then(|labels| labels.get(OS_LABEL));
    if selected.is_some_and(|os| affinity::label(node, OS_LABEL) != Some(os)) {
        let why = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(Refusal::of("PodOSSelectorNodeLabelDoesNotMatch", why));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        let why = "Failed to admit pod as the OS field doesn't match node OS";
        return Some(Refusal::of("PodOSNotSupported", why));
    }
    if !affinity::selects(spec, node) {
        return Some(failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut driving_off = taints.filter(|taint| taint.effect == "NoExecute");
    if !is_static(pod) && driving_off.any(|taint| !taints::tolerates(pod, taint)) {
        let why = "node(s) had taints that the pod didn't tolerate";
        return Some(failed("TaintToleration", why));
    }
    None
}

/// One of the scheduler's conditions does not hold.
pub(crate) fn failed(condition: &'static str, why: &str) -> Refusal {
    Refusal::of(condition, &format!("Predicate {condition} failed: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reason(spec: &Value, node: &Value) -> Option<String> {
        let mut pod = json!({ "spec": { "containers": [] } });
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let pod = serde_json::from_value(pod).unwrap();
        let node = serde_json::from_value(node.clone()).unwrap();
        refusal(&pod, &node).map(|refusal| refusal.reason.into_owned())
    }

    #[test]
    fn a_node_refuses_what_its_labels_and_taints_do_not_allow() {
        let node = json!({
            "metadata": { "name": "n", "labels": { OS_LABEL: "linux", "disk": "ssd" } },
            "spec": { "taints": [
                { "key": "gone", "effect": "NoExecute" }, { "key": "full", "effect": "NoSchedule" },
            ]},
        });
        let tolerant = json!([{ "key": "gone", "operator": "Exists" }]);
        let with = |mut spec: Value| {
            spec["tolerations"] = tolerant.clone();
            reason(&spec, &node)
        };
        assert_eq!(reason(&json!({}), &node).as_deref(), Some("TaintToleration"));
        assert_eq!(with(json!({})), None, "NoSchedule is for the scheduler alone");
        assert_eq!(with(json!({ "nodeSelector": { "disk": "ssd" } })), None);
        assert_eq!(
            with(json!({ "nodeSelector": { "disk": "hdd" } })).as_deref(),
            Some("NodeAffinity")
        );
        assert_eq!(
            with(json!({ "os": { "name": "windows" } })).as_deref(),
            Some("PodOSNotSupported")
        );
        let selector = json!({ "nodeSelector": { OS_LABEL: "windows" } });
        assert_eq!(with(selector).as_deref(), Some("PodOSSelectorNodeLabelDoesNotMatch"));
    }

    #[test]
    fn the_message_is_the_kubelets() {
        let pod = serde_json::from_value(json!({ "spec": {
            "containers": [], "nodeSelector": { "disk": "ssd" },
        }}));
        assert_eq!(
            refusal(&pod.unwrap(), &Node::default()).unwrap().message,
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node \
             affinity/selector"
        );
    }
}
