//! What a ReplicaSet needs done, decided from what is: how many pods to
//! create, which to delete, and the status to write.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::labels::{self, Labels};
use crate::controllers::share::{count_i32, nonzero};
use crate::controllers::{owners, pods};

/// The most pods one reconcile creates or deletes; the rest follows in the next.
pub const BURST: usize = 500;

/// How the number of pods must change.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// As wanted.
    Keep,
    /// That many more pods.
    Create(usize),
    /// These pods fewer.
    Delete(Vec<Arc<Pod>>),
}

/// Decides how to come from the active pods to `spec.replicas`. `related` are the active pods of
/// all the ReplicaSets of the same owner: a node that runs many of them gives up one first.
pub fn scale(set: &ReplicaSet, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scale {
    let wanted = usize::try_from(wanted(set)).unwrap_or(0);
    match active.len().cmp(&wanted) {
        Ordering::Equal => Scale::Keep,
        Ordering::Less => Scale::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            Scale::Delete(victims(active, related, surplus, now))
        }
    }
}

/// `spec.replicas`, which is 1 where it is not said.
pub fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The `count` pods that are the least loss.
fn victims(
    active: &[Arc<Pod>],
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for node in
        related.iter().filter(|pod| pods::is_active(pod)).filter_map(|pod| pods::node_name(pod))
    {
        *crowd.entry(node).or_default() += 1;
    }
    let mut ranked: Vec<(usize, Arc<Pod>)> = active
        .iter()
        .map(|pod| {
            (
                pods::node_name(pod).and_then(|node| crowd.get(node)).copied().unwrap_or(0),
                Arc::clone(pod),
            )
        })
        .collect();
    ranked.sort_by(|(crowd_a, a), (crowd_b, b)| loss(a, *crowd_a, b, *crowd_b, now));
    ranked.truncate(count);
    ranked.into_iter().map(|(_, pod)| pod).collect()
}

/// Which of two pods is the smaller loss (comes first): in this order, the one not bound, pending,
/// not ready, cheaper by its deletion cost, on the fuller node, ready for less long, restarted
/// more often, younger. Times count by their order of magnitude, so that two pods made about the
/// same time are equal; the uid makes the order total.
fn loss(a: &Pod, crowd_a: usize, b: &Pod, crowd_b: usize, now: Timestamp) -> Ordering {
    let bound = |pod: &Pod| pods::node_name(pod).is_some();
    let phase = |pod: &Pod| match pods::phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    bound(a)
        .cmp(&bound(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd_b.cmp(&crowd_a))
        .then_with(|| {
            magnitude(pods::ready_since(a), now).cmp(&magnitude(pods::ready_since(b), now))
        })
        .then_with(|| pods::max_restarts(b).cmp(&pods::max_restarts(a)))
        .then_with(|| magnitude(created(a), now).cmp(&magnitude(created(b), now)))
        .then_with(|| owners::uid(&a.metadata).cmp(owners::uid(&b.metadata)))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The order of magnitude of an age, in powers of two of seconds; -1 for a time that is not known.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> i64 {
    since.map_or(-1, |since| {
        let seconds = now.duration_since(since).as_secs().max(0).unsigned_abs();
        i64::from(u64::BITS - seconds.leading_zeros())
    })
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get("controller.kubernetes.io/pod-deletion-cost"))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

/// How many of its pods are being deleted and have not come to their end.
pub fn terminating(set: &ReplicaSet, all: &[Arc<Pod>]) -> i32 {
    let Some(spec) = &set.spec else { return 0 };
    let own = all.iter().filter(|pod| {
        pods::is_terminating(pod)
            && !pods::is_terminal(pod)
            && owners::is_controlled_by(&pod.metadata, owners::uid(&set.metadata))
            && labels::matches(&spec.selector, pod.metadata.labels.as_ref())
    });
    count_i32(own.count())
}

/// The status for `active` pods, and for `terminating` ones; `failure` says why creating or
/// deleting pods did not work, if it did not.
pub fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: Option<i32>,
    failure: Option<Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready_seconds = spec.min_ready_seconds.unwrap_or(0);
    let template = spec
        .template
        .and_then(|template| template.metadata)
        .and_then(|meta| meta.labels)
        .unwrap_or_default();
    let count =
        |holds: &dyn Fn(&Pod) -> bool| count_i32(active.iter().filter(|pod| holds(pod)).count());
    ReplicaSetStatus {
        replicas: count_i32(active.len()),
        fully_labeled_replicas: nonzero(count(&|pod| has_all(pod, &template))),
        ready_replicas: nonzero(count(&pods::is_ready)),
        available_replicas: nonzero(count(&|pod| pods::is_available(pod, min_ready_seconds, now))),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, failure, now),
        terminating_replicas: terminating,
    }
}

/// Why the ReplicaSet could not create or delete pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the API said.
    pub message: String,
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const REPLICA_FAILURE: &str = "ReplicaFailure";
    let mut all = old.unwrap_or_default();
    let present = all.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        None => all.retain(|condition| condition.type_ != REPLICA_FAILURE),
        // As upstream: the first failure stays until things work again.
        Some(_) if present => {}
        Some(failure) => all.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message),
            last_transition_time: Some(Time(now)),
        }),
    }
    Some(all).filter(|all| !all.is_empty())
}

fn has_all(pod: &Pod, template: &Labels) -> bool {
    let own = pod.metadata.labels.as_ref();
    template.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}

/// When the status must be looked at again because a ready pod becomes available by time alone.
pub fn next_available(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> Option<std::time::Duration> {
    let seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    pods::next_available(active.iter().map(|pod| &**pod), seconds, now)
}
