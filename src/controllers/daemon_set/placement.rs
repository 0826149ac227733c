//! On which nodes a DaemonSet's pods belong, and which node a pod is for.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Toleration,
};

use crate::controllers::{owners, pod_control, pods};
use crate::scheduler::plugins::{selects, tolerates};

/// The only field of a node that a selector can name.
const NODE_NAME: &str = "metadata.name";

/// Whether a DaemonSet wants a pod on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// There shall be one.
    Run,
    /// None is begun, but one that is there may stay.
    Keep,
    /// There shall be none.
    Leave,
}

/// Decides for one node. `pod` is as [`new_pod`] makes it.
pub fn wish(pod: &Pod, node: &Node) -> Wish {
    let Some(spec) = &pod.spec else { return Wish::Leave };
    let named = spec.node_name.as_deref().unwrap_or_default();
    if !(named.is_empty() || named == owners::name(&node.metadata)) || !selects(spec, node) {
        return Wish::Leave;
    }
    let taints = || node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let repelled_by = |effects: &[&str]| {
        taints().any(|taint| effects.contains(&taint.effect.as_str()) && !tolerates(pod, taint))
    };
    if repelled_by(&["NoExecute"]) {
        Wish::Leave
    } else if repelled_by(&["NoSchedule"]) {
        Wish::Keep
    } else {
        Wish::Run
    }
}

/// The pod of a DaemonSet, for no node yet: with the tolerations that daemons have by nature and
/// the labels of its revision.
pub fn new_pod(set: &DaemonSet, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_control::from_template(set, &template);
    tolerate(pod.spec.get_or_insert_default());
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = template_generation(set) {
        labels.insert("pod-template-generation".to_owned(), generation.to_owned());
    }
    if !hash.is_empty() {
        labels.insert(crate::controllers::history::REVISION_HASH.to_owned(), hash.to_owned());
    }
    pod
}

/// The number of the template, which the API counts.
pub fn template_generation(set: &DaemonSet) -> Option<&str> {
    let annotations = set.metadata.annotations.as_ref()?;
    annotations.get("deprecated.daemonset.template.generation").map(String::as_str)
}

/// A daemon stays where the node is in trouble.
fn tolerate(spec: &mut PodSpec) {
    let mut taints = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        taints.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in taints {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let taken = |other: &Toleration| {
            other.key == toleration.key
                && other.effect == toleration.effect
                && other.operator == toleration.operator
                && other.value.as_deref().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(|other| taken(other)) {
            Some(other) => *other = toleration,
            None => tolerations.push(toleration),
        }
    }
}

/// Ties a pod to a node, for the scheduler. Whatever else the template's required node affinity
/// says, the node was chosen by it.
pub fn tie(pod: &mut Pod, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let spec = pod.spec.get_or_insert_default();
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let by_node: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    by_node.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a daemon pod is on, or is for.
pub fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(name) = pods::node_name(pod) {
        return Some(name);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.iter().find_map(|term| {
        let fields = term.match_fields.as_ref()?;
        let field = fields.iter().find(|field| field.key == NODE_NAME && field.operator == "In")?;
        match field.values.as_deref()? {
            [name] => Some(name.as_str()),
            _ => None,
        }
    })
}
