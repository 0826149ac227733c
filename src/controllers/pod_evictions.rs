//! What all who drive pods off have in common: the pod says why it goes, then it is deleted.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kontiki_api::client::Client;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use serde_json::{Value, json};

use super::runtime::{During, ReconcileError};
use super::{node_lifecycle::health, owners, pods};

/// Why a pod is driven off, as its condition `DisruptionTarget` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// As one word.
    pub reason: &'static str,
    /// As a sentence.
    pub message: &'static str,
}

/// The condition `DisruptionTarget` for a cause; `None` where the pod says it already.
pub fn condition(pod: &Pod, cause: Cause, now: Timestamp) -> Option<Value> {
    let old = pods::condition(pod, "DisruptionTarget").filter(|old| old.status == "True");
    let is_said = |old: &k8s_openapi::api::core::v1::PodCondition| {
        old.reason.as_deref() == Some(cause.reason) && old.message.as_deref() == Some(cause.message)
    };
    if old.is_some_and(is_said) {
        return None;
    }
    let since = old.and_then(|old| old.last_transition_time.as_ref()).map(|time| time.0);
    Some(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": cause.reason,
        "message": cause.message,
        "lastTransitionTime": since.unwrap_or_else(|| health::seconds(now)),
        "observedGeneration": pod.metadata.generation,
    }))
}

/// Writes into a pod's status; a pod that is gone, or another of the same name, is left alone.
pub async fn write_status(client: &Client, pod: &Pod, status: Value) -> Result<(), ReconcileError> {
    let (namespace, name) = (owners::namespace(&pod.metadata), owners::name(&pod.metadata));
    let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": status });
    match client.patch::<Pod>(namespace, name, Part::Status, &Patch::Strategic(patch)).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => {
            Err(status).during(|| format!("writing the status of pod {namespace}/{name}"))
        }
        _ => Ok(()),
    }
}

/// Deletes that pod and no other of the same name.
pub async fn delete(
    client: &Client,
    pod: &Pod,
    grace_seconds: Option<i64>,
) -> Result<(), ReconcileError> {
    let (namespace, name) = (owners::namespace(&pod.metadata), owners::name(&pod.metadata));
    let mut options = DeleteOptions::of_uid(owners::uid(&pod.metadata));
    options.grace_period_seconds = grace_seconds;
    match client.delete::<Pod>(namespace, name, &options).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => {
            Err(status).during(|| format!("deleting pod {namespace}/{name}"))
        }
        _ => Ok(()),
    }
}
