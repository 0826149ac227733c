//! What the scheduler writes: the binding of a pod to its node, and why a pod has none.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kontiki_api::client::Client;
use kontiki_api::registry::options::{Part, Patch};
use kontiki_api::status::Status;
use serde_json::json;

use super::cache::PodInfo;
use crate::controllers::events::EventRecorder;
use crate::controllers::{owners, pods};

/// How the writing about a pod ended.
#[derive(Debug)]
pub struct Written {
    /// The pod's uid.
    pub uid: String,
    /// What was written.
    pub act: Act,
    /// Whether it worked.
    pub outcome: Result<(), Status>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The binding.
    Bind,
    /// The condition that says why there is none.
    Explain,
}

/// Binds the pod.
pub async fn bind(
    client: Client,
    events: EventRecorder,
    pod: Arc<PodInfo>,
    node: String,
) -> Written {
    let name = owners::name(&pod.pod.metadata);
    let outcome = client.bind(pod.namespace(), name, pod.uid(), &node).await;
    match &outcome {
        Ok(()) => {
            let message = format!("Successfully assigned {}/{name} to {node}", pod.namespace());
            events.normal(&*pod.pod, "Scheduled", message);
        }
        Err(status) if status.is_not_found() || status.is_fenced() => {}
        Err(status) => {
            let message = format!("binding rejected: {}", status.message());
            events.warning(&*pod.pod, "FailedScheduling", message);
        }
    }
    Written { uid: pod.uid().to_owned(), act: Act::Bind, outcome }
}

/// Says why the pod has no node: as an event, and in its condition `PodScheduled`.
pub async fn explain(
    client: Client,
    events: EventRecorder,
    pod: Arc<PodInfo>,
    message: String,
) -> Written {
    events.warning(&*pod.pod, "FailedScheduling", message.clone());
    let name = owners::name(&pod.pod.metadata);
    let outcome = match condition(&pod.pod, &message, Timestamp::now()) {
        None => Ok(()),
        Some(patch) => {
            client.patch::<Pod>(pod.namespace(), name, Part::Status, &patch).await.map(drop)
        }
    };
    Written { uid: pod.uid().to_owned(), act: Act::Explain, outcome }
}

/// The change of the pod's status, where it does not say so already.
fn condition(pod: &Pod, message: &str, now: Timestamp) -> Option<Patch> {
    const REASON: &str = "Unschedulable";
    let old = pods::condition(pod, "PodScheduled");
    let same = old.is_some_and(|old| {
        old.status == "False"
            && old.reason.as_deref() == Some(REASON)
            && old.message.as_deref() == Some(message)
    });
    if same {
        return None;
    }
    let since = old
        .filter(|old| old.status == "False")
        .and_then(|old| old.last_transition_time.clone())
        .map_or(now, |time| time.0);
    Some(Patch::Strategic(json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": {
            "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": REASON,
                "message": message,
                "lastProbeTime": null,
                "lastTransitionTime": whole_seconds(since),
            }]
        }
    })))
}

/// Kubernetes' times in objects are of whole seconds.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
