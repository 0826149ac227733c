//! What the controllers ask of a pod: is it active, ready, available, terminating.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kontiki_api::informer::Informer;

use super::owners::{self, ObjectKey};

/// The pod's phase; empty where it has none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has come to its end.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts towards what its controller wants: not at its end, not being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The pod's condition of a type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Whether the pod's condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod is ready, where it is and where that is known.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map(|time| time.0)
}

/// Whether the pod has been ready for `min_ready_seconds` at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    if !is_ready(pod) {
        return false;
    }
    min_ready_seconds == 0
        || ready_since(pod).is_some_and(|since| {
            now.duration_since(since) >= SignedDuration::from_secs(min_ready_seconds.into())
        })
}

/// When the next of the ready pods will have been ready for `min_ready_seconds`.
pub fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Duration> {
    let wait = SignedDuration::from_secs(min_ready_seconds.into());
    pods.into_iter()
        .filter_map(ready_since)
        .map(|since| wait - now.duration_since(since))
        .filter_map(|left| Duration::try_from(left).ok())
        .filter(|left| !left.is_zero())
        .min()
}

/// The most restarts of any of the pod's containers.
pub fn max_restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}

/// The index of pods by their node.
const BY_NODE: &str = "node";

/// Has the pods found by their node, for [`on_node`].
pub fn index_by_node(pods: &Informer<Pod>) {
    pods.index_by(BY_NODE, |pod| node_name(pod).map(str::to_owned).into_iter().collect());
}

/// The pods of a node. To look through all pods for each node would cost as much as there are of
/// both together.
pub fn on_node(pods: &Informer<Pod>, node: &str) -> Vec<Arc<Pod>> {
    pods.indexed(BY_NODE, node)
}

/// The index of pods by their controller, or by their namespace where they have none.
const BY_CONTROLLER: &str = "controller";

fn controller_key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

/// Has the pods found by their controller, for [`controlled_by`] and [`claimable`].
pub fn index_by_controller(pods: &Informer<Pod>) {
    pods.index_by(BY_CONTROLLER, |pod| {
        let namespace = owners::namespace(&pod.metadata);
        vec![match owners::controller_of(&pod.metadata) {
            Some(owner) => controller_key(&owner.kind, namespace, &owner.name),
            None => controller_key("", namespace, ""),
        }]
    });
}

/// The pods that name this object, or an earlier one of its name, as their controller. To look
/// through a namespace for each of its controllers would cost as much as there are of both together.
pub fn controlled_by<K: Resource>(pods: &Informer<Pod>, key: &ObjectKey) -> Vec<Arc<Pod>> {
    pods.indexed(BY_CONTROLLER, &controller_key(K::KIND, &key.namespace, &key.name))
}

/// The same, and those that have no controller: it may adopt them.
pub fn claimable<K: Resource>(pods: &Informer<Pod>, key: &ObjectKey) -> Vec<Arc<Pod>> {
    let mut all = controlled_by::<K>(pods, key);
    all.extend(pods.indexed(BY_CONTROLLER, &controller_key("", &key.namespace, "")));
    all
}

/// The name of the node the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}
