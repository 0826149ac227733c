//! What the scheduler writes: the binding of a pod to its node, and why a pod has none.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kontiki_api::client::Client;
use kontiki_api::registry::options::{DeleteOptions, Part, Patch};
use kontiki_api::status::Status;
use serde_json::{Map, Value, json};

use super::cache::PodInfo;
use super::preempt::Preemption;
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
    nomination: Nomination,
) -> Written {
    events.warning(&*pod.pod, "FailedScheduling", message.clone());
    let name = owners::name(&pod.pod.metadata);
    let condition = condition(&pod.pod, &message, Timestamp::now());
    let outcome = match status_patch(&pod.pod, condition, &nomination) {
        None => Ok(()),
        Some(patch) => {
            client.patch::<Pod>(pod.namespace(), name, Part::Status, &patch).await.map(drop)
        }
    };
    Written { uid: pod.uid().to_owned(), act: Act::Explain, outcome }
}

/// What becomes of the node that a pod waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nomination {
    /// It stays as it is.
    Keep,
    /// It waits for this one.
    Set(String),
    /// It waits for none any more.
    Clear,
}

fn status_patch(pod: &Pod, condition: Option<Value>, nomination: &Nomination) -> Option<Patch> {
    let old = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let mut status = Map::new();
    if let Some(condition) = condition {
        status.insert("conditions".to_owned(), json!([condition]));
    }
    let nominated = match nomination {
        Nomination::Set(node) if old != Some(node) => Some(json!(node)),
        Nomination::Clear if old.is_some() => Some(Value::Null),
        _ => None,
    };
    status.extend(nominated.map(|node| ("nominatedNodeName".to_owned(), node)));
    if status.is_empty() {
        return None;
    }
    Some(Patch::Strategic(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status })))
}

/// Takes back the nomination of a pod whose node goes to a more important one.
pub async fn displace(client: Client, pod: Arc<PodInfo>) -> Written {
    let outcome = match status_patch(&pod.pod, None, &Nomination::Clear) {
        None => Ok(()),
        Some(patch) => {
            let name = owners::name(&pod.pod.metadata);
            client.patch::<Pod>(pod.namespace(), name, Part::Status, &patch).await.map(drop)
        }
    };
    Written { uid: pod.uid().to_owned(), act: Act::Explain, outcome }
}

/// Says that the pod waits for the node, then drives off the victims there.
pub async fn preempt(
    client: Client,
    events: EventRecorder,
    pod: Arc<PodInfo>,
    message: String,
    choice: Preemption,
) -> Written {
    let nomination = Nomination::Set(choice.node.clone());
    let mut written =
        explain(client.clone(), events.clone(), Arc::clone(&pod), message, nomination).await;
    if written.outcome.is_err() {
        return written;
    }
    for victim in &choice.victims {
        match drive_off(&client, victim).await {
            Ok(()) => {
                let by = pod.uid();
                let message = format!("Preempted by pod {by} on node {}", choice.node);
                events.normal(&*victim.pod, "Preempted", message);
            }
            Err(status) if status.is_not_found() || status.is_conflict() => {}
            Err(status) => written.outcome = Err(status),
        }
    }
    written
}

async fn drive_off(client: &Client, victim: &PodInfo) -> Result<(), Status> {
    if pods::is_terminating(&victim.pod) {
        return Ok(());
    }
    let name = owners::name(&victim.pod.metadata);
    let patch = Patch::Strategic(json!({
        "metadata": { "uid": victim.uid() },
        "status": { "conditions": [{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": "default-scheduler: preempting to accommodate a higher priority pod",
            "lastTransitionTime": whole_seconds(Timestamp::now()),
        }]},
    }));
    client.patch::<Pod>(victim.namespace(), name, Part::Status, &patch).await?;
    let options = DeleteOptions::of_uid(victim.uid());
    client.delete::<Pod>(victim.namespace(), name, &options).await.map(drop)
}

/// The pod's condition, where it does not say so already.
fn condition(pod: &Pod, message: &str, now: Timestamp) -> Option<Value> {
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
    Some(json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": REASON,
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": whole_seconds(since),
    }))
}

/// Kubernetes' times in objects are of whole seconds.
fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
