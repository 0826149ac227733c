//! Taints with the effect `NoExecute` drive pods off: at once, or when the pod tolerates them no
//! longer.
//!
//! A pod's time counts from when the taint was added, as the taint says, so that it does not begin
//! anew with each leader. A taint that does not say counts from when it was first seen.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kontiki_api::client::Client;
use kontiki_api::informer::Informer;
use parking_lot::Mutex;
use serde_json::json;

use super::events::EventRecorder;
use super::node_lifecycle::taints::{self, NO_EXECUTE};
use super::owners::{self, ObjectKey};
use super::pod_evictions::{self, Cause};
use super::pods;
use super::runtime::{Controller, Next, Reconcile, ReconcileError, Seen};
use crate::leader_context::LeaderContext;
use crate::scheduler::plugins::covers;

const CAUSE: Cause = Cause {
    reason: "DeletionByTaintManager",
    message: "Taint manager: deleting due to NoExecute taint",
};

/// When a pod must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay.
    Stay,
    /// At once: there is a taint that it does not tolerate.
    Now,
    /// When its toleration ends.
    At(Timestamp),
}

/// Decides about a pod on a node with these taints, each with the time from which on it counts.
pub fn plan(pod: &Pod, taints: &[(&Taint, Timestamp)]) -> Verdict {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let bound = bound_at(pod);
    let mut end: Option<Timestamp> = None;
    for (taint, since) in taints {
        let Some(toleration) = tolerations.clone().find(|one| covers(one, taint)) else {
            return Verdict::Now;
        };
        let Some(seconds) = toleration.toleration_seconds else { continue };
        if seconds <= 0 {
            return Verdict::Now;
        }
        let since = bound.map_or(*since, |bound| bound.max(*since));
        let Ok(until) = since.checked_add(SignedDuration::from_secs(seconds)) else { continue };
        end = Some(end.map_or(until, |end| end.min(until)));
    }
    end.map_or(Verdict::Stay, Verdict::At)
}

/// When the pod came to its node: before that no taint of the node concerned it.
fn bound_at(pod: &Pod) -> Option<Timestamp> {
    pods::condition(pod, "PodScheduled")
        .filter(|scheduled| scheduled.status == "True")
        .and_then(|scheduled| scheduled.last_transition_time.as_ref())
        .or(pod.metadata.creation_timestamp.as_ref())
        .map(|time| time.0)
}

/// The taints of a node that drive pods off.
fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    taints::taints(node).iter().filter(|taint| taint.effect == NO_EXECUTE)
}

/// Drives pods off.
pub struct TaintEviction {
    client: Client,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    /// The pods that are to go at some time.
    scheduled: Mutex<HashMap<ObjectKey, Timestamp>>,
    first_seen: Arc<FirstSeen>,
    events: EventRecorder,
}

/// Since when taints are there that do not say it themselves, by node.
#[derive(Debug, Default)]
struct FirstSeen(Mutex<HashMap<String, Vec<(Taint, Timestamp)>>>);

impl FirstSeen {
    fn apply(&self, node: &Node, now: Timestamp) {
        let name = owners::name(&node.metadata);
        let mut all = self.0.lock();
        let old = all.remove(name).unwrap_or_default();
        let new: Vec<(Taint, Timestamp)> = no_execute(node)
            .filter(|taint| taint.time_added.is_none())
            .map(|taint| {
                let known = old.iter().find(|(known, _)| known == taint);
                known.cloned().unwrap_or_else(|| (taint.clone(), now))
            })
            .collect();
        if !new.is_empty() {
            all.insert(name.to_owned(), new);
        }
    }

    fn delete(&self, node: &str) {
        self.0.lock().remove(node);
    }

    fn of(&self, node: &Node, taint: &Taint) -> Option<Timestamp> {
        let all = self.0.lock();
        let mut known = all.get(owners::name(&node.metadata))?.iter();
        known.find(|(known, _)| known == taint).map(|(_, since)| *since)
    }
}

/// The controller, ready to run. Its keys are pods.
pub fn controller(
    context: &LeaderContext,
    begin: u64,
    events: &EventRecorder,
) -> Controller<TaintEviction> {
    let nodes = context.informers.of::<Node>();
    let pods = context.informers.of::<Pod>();
    let first_seen = Arc::new(FirstSeen::default());
    let reconciler = TaintEviction {
        client: context.client_of("taint-eviction-controller"),
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        scheduled: Mutex::default(),
        first_seen: Arc::clone(&first_seen),
        events: events.of("taint-eviction-controller"),
    };
    pods::index_by_node(&pods);
    let (all_nodes, all_pods) = (Arc::clone(&nodes), Arc::clone(&pods));
    Controller::new("taint-eviction", context, begin, reconciler)
        .watch_changes(&nodes, move |seen| pods_on(&all_pods, &first_seen, &seen))
        .watch_changes(&pods, move |seen| changed_pod(&all_nodes, &seen))
}

/// The pods of a node whose taints have changed.
fn pods_on(pods: &Informer<Pod>, first_seen: &FirstSeen, seen: &Seen<'_, Node>) -> Vec<ObjectKey> {
    let Some(node) = seen.new else {
        seen.old.inspect(|old| first_seen.delete(owners::name(&old.metadata)));
        return Vec::new();
    };
    first_seen.apply(node, Timestamp::now());
    let had: Vec<&Taint> = seen.old.iter().flat_map(|old| no_execute(old)).collect();
    if no_execute(node).eq(had.iter().copied()) {
        return Vec::new();
    }
    let name = owners::name(&node.metadata);
    pods::on_node(pods, name).iter().map(|pod| ObjectKey::of(&**pod)).collect()
}

/// A pod that is gone, or is on a node that drives pods off.
fn changed_pod(nodes: &Informer<Node>, seen: &Seen<'_, Pod>) -> Vec<ObjectKey> {
    let Some(pod) = seen.new else {
        return seen.old.map(ObjectKey::of).into_iter().collect();
    };
    let node = pods::node_name(pod).and_then(|node| nodes.get("", node));
    let concerns = node.is_some_and(|node| no_execute(&node).next().is_some());
    concerns.then(|| ObjectKey::of(pod)).into_iter().collect()
}

#[async_trait]
impl Reconcile for TaintEviction {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let pod = self.pods.get(&key.namespace, &key.name);
        let Some(pod) = pod.filter(|pod| !pods::is_terminating(pod)) else {
            self.scheduled.lock().remove(key);
            return Ok(Next::OnChange);
        };
        let node = pods::node_name(&pod).and_then(|node| self.nodes.get("", node));
        let now = Timestamp::now();
        let verdict = node.map_or(Verdict::Stay, |node| self.judge(&pod, &node, now));
        match verdict {
            Verdict::Stay => {
                if self.scheduled.lock().remove(key).is_some() {
                    self.say(&pod, format!("Cancelling deletion of Pod {key}"));
                }
                Ok(Next::OnChange)
            }
            Verdict::At(end) if end > now => {
                self.scheduled.lock().insert(key.clone(), end);
                Ok(Next::After(end.duration_since(now).unsigned_abs()))
            }
            Verdict::At(_) | Verdict::Now => {
                self.evict(key, &pod, now).await?;
                self.scheduled.lock().remove(key);
                Ok(Next::OnChange)
            }
        }
    }
}

impl TaintEviction {
    fn judge(&self, pod: &Pod, node: &Node, now: Timestamp) -> Verdict {
        let since = |taint: &Taint| {
            let said = taint.time_added.as_ref().map(|time| time.0);
            said.or_else(|| self.first_seen.of(node, taint)).unwrap_or(now)
        };
        let taints: Vec<_> = no_execute(node).map(|taint| (taint, since(taint))).collect();
        plan(pod, &taints)
    }

    async fn evict(
        &self,
        key: &ObjectKey,
        pod: &Pod,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        self.say(pod, format!("Marking for deletion Pod {key}"));
        if let Some(condition) = pod_evictions::condition(pod, CAUSE, now) {
            let status = json!({ "conditions": [condition] });
            pod_evictions::write_status(&self.client, pod, status).await?;
        }
        pod_evictions::delete(&self.client, pod, None).await
    }

    fn say(&self, pod: &Pod, message: String) {
        self.events.normal(pod, "TaintManagerEviction", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn taint(key: &str) -> Taint {
        Taint { key: key.to_owned(), effect: NO_EXECUTE.to_owned(), ..Taint::default() }
    }

    /// Bound at second 0, with tolerations of these keys for so long.
    fn pod(tolerations: &[(&str, Option<i64>)]) -> Pod {
        let tolerations: Vec<_> = tolerations
            .iter()
            .map(|(key, seconds)| {
                json!({ "key": key, "operator": "Exists", "tolerationSeconds": seconds })
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": { "creationTimestamp": time(-100) },
            "spec": { "containers": [], "tolerations": tolerations },
            "status": { "conditions": [{
                "type": "PodScheduled", "status": "True", "lastTransitionTime": time(0),
            }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_every_taint() {
        use Verdict::{At, Now, Stay};
        for (what, tolerations, taints, verdict) in [
            ("no taint", &[][..], &[][..], Stay),
            ("not tolerated", &[], &[("a", 5)], Now),
            ("for ever", &[("a", None)], &[("a", 5)], Stay),
            ("for a time", &[("a", Some(60))], &[("a", 5)], At(time(65))),
            ("not at all", &[("a", Some(0))], &[("a", 5)], Now),
            ("less than that", &[("a", Some(-1))], &[("a", 5)], Now),
            ("a taint older than the pod", &[("a", Some(60))], &[("a", -500)], At(time(60))),
            (
                "the first to end",
                &[("a", Some(60)), ("b", Some(10))],
                &[("a", 5), ("b", 20)],
                At(time(30)),
            ),
            ("one of two", &[("a", None)], &[("a", 5), ("b", 5)], Now),
            ("the first toleration", &[("a", Some(9)), ("a", None)], &[("a", 5)], At(time(14))),
            ("beyond all time", &[("a", Some(i64::MAX))], &[("a", 5)], Stay),
        ] {
            let taints: Vec<_> = taints.iter().map(|(key, at)| (taint(key), time(*at))).collect();
            let taints: Vec<_> = taints.iter().map(|(taint, at)| (taint, *at)).collect();
            assert_eq!(plan(&pod(tolerations), &taints), verdict, "{what}");
        }
    }

    #[test]
    fn a_taint_without_a_time_counts_from_when_it_was_first_seen() {
        let node = |keys: &[&str]| Node {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some("n".to_owned()),
                ..Default::default()
            },
            spec: Some(k8s_openapi::api::core::v1::NodeSpec {
                taints: Some(keys.iter().map(|key| taint(key)).collect()),
                ..Default::default()
            }),
            ..Node::default()
        };
        let seen = FirstSeen::default();
        seen.apply(&node(&["a"]), time(1));
        seen.apply(&node(&["a", "b"]), time(2));
        assert_eq!(seen.of(&node(&[]), &taint("a")), Some(time(1)));
        assert_eq!(seen.of(&node(&[]), &taint("b")), Some(time(2)));
        seen.apply(&node(&["b"]), time(3));
        seen.apply(&node(&["a", "b"]), time(4));
        assert_eq!(seen.of(&node(&[]), &taint("a")), Some(time(4)), "it was gone in between");
        seen.delete("n");
        assert_eq!(seen.of(&node(&[]), &taint("b")), None);
    }
}
