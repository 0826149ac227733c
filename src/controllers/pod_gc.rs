//! Pod garbage collection: pods that nobody will ever run or clean up any more.
//!
//! All of them are found in one sweep: every 20 seconds, and when a node is gone. A node counts as
//! gone only after a while in which it might register itself again, and by the store's word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::node_lifecycle::{health::Readiness, taints};
use super::pod_evictions::{self, Cause};
use super::runtime::{Controller, During, Next, Reconcile, ReconcileError};
use super::{owners, pods};
use crate::leader_context::{LeaderContext, Settings};

const NODE_GONE: Cause =
    Cause { reason: "DeletionByPodGC", message: "PodGC: node no longer exists" };
/// Put on a node by who knows that the machine is off and its volumes can be had elsewhere.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Too many pods have come to their end, and it is among the oldest.
    Surplus,
    /// It terminates on a node that is out of service.
    OutOfService,
    /// Its node is gone.
    Orphan,
    /// It terminates and was never sent to a node.
    Unscheduled,
}

/// What the sweep finds. `gone` are the nodes that are known to be gone for good.
pub fn plan(
    all: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    gone: &BTreeSet<String>,
    ended_max: usize,
) -> Vec<(Arc<Pod>, Garbage)> {
    let out_of_service: BTreeSet<&str> = nodes
        .iter()
        .filter(|node| Readiness::of(node) != Readiness::Ready && is_out_of_service(node))
        .map(|node| owners::name(&node.metadata))
        .collect();
    let garbage = |pod: &Pod| match pods::node_name(pod) {
        Some(node) if gone.contains(node) => Some(Garbage::Orphan),
        Some(node) if pods::is_terminating(pod) && out_of_service.contains(node) => {
            Some(Garbage::OutOfService)
        }
        None if pods::is_terminating(pod) => Some(Garbage::Unscheduled),
        _ => None,
    };
    let mut found: BTreeMap<&str, (Arc<Pod>, Garbage)> = BTreeMap::new();
    for pod in surplus(all, ended_max) {
        found.insert(owners::uid(&pod.metadata), (Arc::clone(pod), Garbage::Surplus));
    }
    for pod in all {
        if let Some(why) = garbage(pod) {
            found.insert(owners::uid(&pod.metadata), (Arc::clone(pod), why));
        }
    }
    found.into_values().collect()
}

/// The pods over the threshold: those that were driven off first, then the oldest.
fn surplus(all: &[Arc<Pod>], ended_max: usize) -> Vec<&Arc<Pod>> {
    let mut ended: Vec<&Arc<Pod>> = all.iter().filter(|pod| pods::is_terminal(pod)).collect();
    // No threshold, no limit.
    if ended_max == 0 || ended.len() <= ended_max {
        return Vec::new();
    }
    ended.sort_by_key(|pod| {
        let was_evicted = pod.status.as_ref().and_then(|status| status.reason.as_deref());
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (was_evicted != Some("Evicted"), created, owners::name(&pod.metadata).to_owned())
    });
    ended.truncate(ended.len() - ended_max);
    ended
}

fn is_out_of_service(node: &Node) -> bool {
    taints::taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The nodes that pods name and that are not there.
fn missing(all: &[Arc<Pod>], nodes: &Informer<Node>) -> BTreeSet<String> {
    let named: BTreeSet<&str> = all.iter().filter_map(|pod| pods::node_name(pod)).collect();
    named.into_iter().filter(|name| nodes.get("", name).is_none()).map(str::to_owned).collect()
}

/// What is written into the status of a pod before it is deleted: that it has come to its end.
fn last_status(pod: &Pod, why: Garbage, now: Timestamp) -> Option<Value> {
    let mut status = Map::new();
    if !pods::is_terminal(pod) {
        status.insert("phase".to_owned(), json!("Failed"));
        if why == Garbage::Orphan
            && let Some(condition) = pod_evictions::condition(pod, NODE_GONE, now)
        {
            status.insert("conditions".to_owned(), json!([condition]));
        }
    }
    (!status.is_empty()).then(|| status.into())
}

/// The one key: all pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sweep;

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all pods")
    }
}

/// Deletes pods that are garbage.
pub struct PodGc {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    settings: Arc<Settings>,
    /// Since when each node is missed.
    missed: Mutex<HashMap<String, Instant>>,
}

/// The controller, ready to run.
pub fn controller(context: &LeaderContext, begin: u64) -> Controller<PodGc> {
    let nodes = context.informers.of::<Node>();
    let pods = context.informers.of::<Pod>();
    let reconciler = PodGc {
        client: context.client_of("pod-garbage-collector"),
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        settings: Arc::clone(&context.settings),
        missed: Mutex::default(),
    };
    let controller = Controller::new("pod-garbage", context, begin, reconciler)
        .watch_changes(&nodes, |seen| seen.new.is_none().then_some(Sweep).into_iter().collect())
        .watch_changes(&pods, |seen| {
            let is_stranded =
                |pod: &Pod| pods::is_terminating(pod) && pods::node_name(pod).is_none();
            seen.new.is_some_and(is_stranded).then_some(Sweep).into_iter().collect()
        });
    // From the first on, each sweep asks for the next.
    controller.queue().add_after(Sweep, Duration::ZERO);
    controller
}

#[async_trait]
impl Reconcile for PodGc {
    type Key = Sweep;

    async fn reconcile(&self, _: &Sweep) -> Result<Next, ReconcileError> {
        let all = self.pods.list();
        let gone = self.gone(&all).await?;
        let ended_max = self.settings.terminated_pod_threshold;
        let mut outcome = Ok(());
        for (pod, why) in plan(&all, &self.nodes.list(), &gone, ended_max) {
            // One that cannot be deleted must not keep the others.
            outcome = self.delete(&pod, why).await.and(outcome);
        }
        outcome.map(|()| Next::After(self.settings.pod_gc_period))
    }
}

impl PodGc {
    /// The nodes that have been missed for long enough, and are not in the store.
    async fn gone(&self, all: &[Arc<Pod>]) -> Result<BTreeSet<String>, ReconcileError> {
        let missing = missing(all, &self.nodes);
        let now = Instant::now();
        let due: Vec<String> = {
            let mut missed = self.missed.lock();
            missed.retain(|name, _| missing.contains(name));
            missing
                .into_iter()
                .filter(|name| {
                    let since = *missed.entry(name.clone()).or_insert(now);
                    now.duration_since(since) >= self.settings.node_quarantine
                })
                .collect()
        };
        let mut gone = BTreeSet::new();
        for name in due {
            match self.client.get::<Node>("", &name).await {
                Ok(_) => {}
                Err(status) if status.is_not_found() => drop(gone.insert(name)),
                Err(status) => return Err(status).during(|| format!("looking for node {name}")),
            }
        }
        Ok(gone)
    }

    async fn delete(&self, pod: &Pod, why: Garbage) -> Result<(), ReconcileError> {
        if let Some(status) = last_status(pod, why, Timestamp::now()) {
            pod_evictions::write_status(&self.client, pod, status).await?;
        }
        tracing::info!(
            namespace = owners::namespace(&pod.metadata),
            pod = owners::name(&pod.metadata),
            ?why,
            "deleting a pod that nobody runs any more"
        );
        pod_evictions::delete(&self.client, pod, Some(0)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, fields: &Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": { "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [] },
        });
        merge(&mut pod, fields);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn merge(into: &mut Value, from: &Value) {
        match (into.as_object_mut(), from.as_object()) {
            (Some(into), Some(from)) => {
                for (key, value) in from {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
            _ => into.clone_from(from),
        }
    }

    fn found(all: &[Arc<Pod>], nodes: &[Arc<Node>], max: usize) -> Vec<(String, Garbage)> {
        let gone = BTreeSet::from(["gone".to_owned()]);
        let found = plan(all, nodes, &gone, max).into_iter();
        found.map(|(pod, why)| (owners::name(&pod.metadata).to_owned(), why)).collect()
    }

    #[test]
    fn each_kind_of_garbage_is_found_and_nothing_else() {
        let terminating = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        let on = |node: &str| json!({ "nodeName": node });
        let all = [
            pod("ends-nowhere", &json!({ "metadata": terminating })),
            pod("ends-on-dead", &json!({ "metadata": terminating, "spec": on("dead") })),
            pod("ends-on-live", &json!({ "metadata": terminating, "spec": on("live") })),
            pod("orphan", &json!({ "spec": on("gone") })),
            pod("runs-on-dead", &json!({ "spec": on("dead") })),
            pod("runs-on-live", &json!({ "spec": on("live") })),
            pod("waits", &json!({})),
        ];
        let node = |name: &str, ready: &str| -> Arc<Node> {
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": { "name": name },
                    "spec": { "taints": [{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }] },
                    "status": { "conditions": [{ "type": "Ready", "status": ready }] },
                }))
                .unwrap(),
            )
        };
        let nodes = [node("dead", "Unknown"), node("live", "True")];
        assert_eq!(
            found(&all, &nodes, 1),
            [
                ("ends-nowhere".to_owned(), Garbage::Unscheduled),
                ("ends-on-dead".to_owned(), Garbage::OutOfService),
                ("orphan".to_owned(), Garbage::Orphan),
            ]
        );
    }

    #[test]
    fn of_too_many_ended_pods_the_evicted_go_first_and_then_the_oldest() {
        let ended = |name: &str, minute: u32, reason: &str| {
            let created = format!("2026-01-01T00:{minute:02}:00Z");
            let status = json!({ "phase": "Failed", "reason": reason });
            pod(name, &json!({ "metadata": { "creationTimestamp": created }, "status": status }))
        };
        let all = [
            ended("a-new", 9, ""),
            ended("b-old", 1, ""),
            ended("c-older", 0, ""),
            ended("d-evicted", 5, "Evicted"),
            pod("e-runs", &json!({ "status": { "phase": "Running" } })),
        ];
        let names =
            |max| found(&all, &[], max).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(2), ["c-older", "d-evicted"]);
        assert_eq!(names(3), ["d-evicted"]);
        assert!(names(4).is_empty());
        assert!(names(0).is_empty(), "no threshold");
    }

    #[test]
    fn a_pod_has_come_to_its_end_before_it_is_deleted() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let running = pod("a", &json!({ "status": { "phase": "Running" } }));
        let status = last_status(&running, Garbage::Orphan, now).unwrap();
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["conditions"][0]["type"], "DisruptionTarget");
        assert_eq!(status["conditions"][0]["reason"], "DeletionByPodGC");
        let status = last_status(&running, Garbage::Unscheduled, now).unwrap();
        assert_eq!(status, json!({ "phase": "Failed" }));
        let ended = pod("a", &json!({ "status": { "phase": "Succeeded" } }));
        assert_eq!(last_status(&ended, Garbage::Orphan, now), None);
    }
}
