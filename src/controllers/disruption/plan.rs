//! How many pods a PodDisruptionBudget lets go now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::node_lifecycle::health::seconds;
use crate::controllers::share::{Round, count_i32, resolve};
use crate::controllers::{owners, pods};

/// How long an evicted pod may take to be gone before it counts as healthy again.
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const ALLOWED: &str = "DisruptionAllowed";

/// The uid and the replicas of what a pod belongs to: a Deployment stands for its ReplicaSets.
pub type Scale = (String, i32);

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The status.
    pub status: PodDisruptionBudgetStatus,
    /// Pods that were evicted and are still there.
    pub not_deleted: Vec<Arc<Pod>>,
    /// When to look again.
    pub again_after: Option<Duration>,
}

/// Decides. `scales` are what the pods belong to, by the pod's uid; `Err` where that is not known.
pub fn plan(
    budget: &PodDisruptionBudget,
    all: &[Arc<Pod>],
    scales: &Result<BTreeMap<String, Scale>, String>,
    now: Timestamp,
) -> Plan {
    let old = budget.status.clone().unwrap_or_default();
    let mut plan = Plan { status: old.clone(), not_deleted: Vec::new(), again_after: None };
    let disrupted = still_expected(&old, all, now, &mut plan);
    plan.status.observed_generation = budget.metadata.generation;
    let (expected, desired) = match scales {
        Ok(scales) => expected(budget, all.len(), scales),
        Err(why) => {
            plan.status.disruptions_allowed = 0;
            say(&mut plan.status, "False", "SyncFailed", why, now);
            return plan;
        }
    };
    let healthy = all.iter().filter(|pod| {
        !pods::is_terminating(pod)
            && pods::is_ready(pod)
            && !disrupted.contains_key(owners::name(&pod.metadata))
    });
    let healthy = count_i32(healthy.count());
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    plan.status.current_healthy = healthy;
    plan.status.desired_healthy = desired;
    plan.status.expected_pods = expected;
    plan.status.disruptions_allowed = allowed;
    plan.status.disrupted_pods = Some(disrupted).filter(|disrupted| !disrupted.is_empty());
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    say(&mut plan.status, status, reason, "", now);
    plan
}

/// The evicted pods that are expected to go still.
fn still_expected(
    old: &PodDisruptionBudgetStatus,
    all: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let known = old.disrupted_pods.clone().unwrap_or_default();
    let mut kept = BTreeMap::new();
    for pod in all.iter().filter(|pod| !pods::is_terminating(pod)) {
        let name = owners::name(&pod.metadata);
        let Some(since) = known.get(name) else { continue };
        let left = DELETION_TIMEOUT - now.duration_since(since.0);
        match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
            None => plan.not_deleted.push(Arc::clone(pod)),
            Some(left) => {
                plan.again_after = plan.again_after.into_iter().chain([left]).min();
                kept.insert(name.to_owned(), since.clone());
            }
        }
    }
    kept
}

/// How many pods there should be, and how many of them healthy.
fn expected(
    budget: &PodDisruptionBudget,
    count: usize,
    scales: &BTreeMap<String, Scale>,
) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (0, 0) };
    let by_owner: BTreeMap<&str, i32> =
        scales.values().map(|(owner, replicas)| (owner.as_str(), *replicas)).collect();
    let scale: i32 = by_owner.values().sum();
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (scale, (scale - resolve(most, scale, Round::Up)).max(0)),
        (None, Some(IntOrString::Int(least))) => (count_i32(count), *least),
        (None, Some(share)) => (scale, resolve(share, scale, Round::Up)),
        (None, None) => (count_i32(count), 0),
    }
}

fn say(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|one| one.type_ == ALLOWED && one.status == value);
    let since = known.map_or(Time(seconds(now)), |one| one.last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation,
    };
    match conditions.iter_mut().find(|one| one.type_ == ALLOWED) {
        Some(known) => *known = new,
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn budget(spec: Value, disrupted: Value) -> PodDisruptionBudget {
        let budget = json!({
            "metadata": { "name": "b", "generation": 2 }, "spec": spec,
            "status": { "disruptedPods": disrupted },
        });
        serde_json::from_value(budget).unwrap()
    }

    /// Pods `a`, `b`, …, ready where the letter is a capital.
    fn pods(text: &str) -> Vec<Arc<Pod>> {
        let pod = |letter: char| {
            let name = letter.to_ascii_lowercase().to_string();
            let ready = if letter.is_uppercase() { "True" } else { "False" };
            let pod = json!({
                "metadata": { "name": name, "uid": name },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            });
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        text.chars().map(pod).collect()
    }

    fn scaled(all: &[Arc<Pod>], replicas: i32) -> BTreeMap<String, Scale> {
        all.iter()
            .map(|pod| (owners::uid(&pod.metadata).to_owned(), ("set".to_owned(), replicas)))
            .collect()
    }

    #[test]
    fn as_many_may_go_as_are_healthy_beyond_what_is_asked() {
        for (spec, text, replicas, [expected, desired, healthy, allowed]) in [
            (json!({ "minAvailable": 2 }), "ABC", 3, [3, 2, 3, 1]),
            (json!({ "minAvailable": 2 }), "ABc", 3, [3, 2, 2, 0]),
            (json!({ "minAvailable": "50%" }), "ABC", 3, [3, 2, 3, 1]),
            (json!({ "minAvailable": "100%" }), "ABC", 3, [3, 3, 3, 0]),
            (json!({ "maxUnavailable": 1 }), "ABC", 3, [3, 2, 3, 1]),
            (json!({ "maxUnavailable": 1 }), "AB", 3, [3, 2, 2, 0]),
            (json!({ "maxUnavailable": "40%" }), "ABC", 3, [3, 1, 3, 2]),
            (json!({ "maxUnavailable": 5 }), "AB", 2, [2, 0, 2, 2]),
            (json!({ "minAvailable": 0 }), "", 0, [0, 0, 0, 0]),
        ] {
            let all = pods(text);
            let scales = scaled(&all, replicas);
            let status = plan(&budget(spec.clone(), json!({})), &all, &Ok(scales), NOW).status;
            let found = [
                status.expected_pods,
                status.desired_healthy,
                status.current_healthy,
                status.disruptions_allowed,
            ];
            assert_eq!(found, [expected, desired, healthy, allowed], "{spec}");
            let condition = status.conditions.unwrap().remove(0);
            let told = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
            assert_eq!((condition.reason.as_str(), status.observed_generation), (told, Some(2)));
        }
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_until_it_ought_to_be() {
        let at = |seconds: i64| (NOW - SignedDuration::from_secs(seconds)).to_string();
        let all = pods("ABC");
        let budget =
            budget(json!({ "minAvailable": 1 }), json!({ "a": at(30), "b": at(150), "x": at(1) }));
        let plan = plan(&budget, &all, &Ok(scaled(&all, 3)), NOW);
        assert_eq!(plan.status.current_healthy, 2);
        let disrupted = plan.status.disrupted_pods.unwrap();
        assert_eq!(disrupted.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(plan.not_deleted, [Arc::clone(&all[1])]);
        assert_eq!(plan.again_after, Some(Duration::from_secs(90)));
    }

    #[test]
    fn where_it_is_not_known_how_many_there_should_be_none_may_go() {
        let all = pods("ABC");
        let unknown = Err("found no controllers".to_owned());
        let status =
            plan(&budget(json!({ "maxUnavailable": 1 }), json!({})), &all, &unknown, NOW).status;
        assert_eq!(status.disruptions_allowed, 0);
        assert_eq!(status.conditions.unwrap()[0].reason, "SyncFailed");
    }
}
