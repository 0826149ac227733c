//! The taints that a node must have for what is wrong with it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::{Readiness, condition, seconds};

/// The node says that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node is silent.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// No new pods.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// No pods at all.
pub const NO_EXECUTE: &str = "NoExecute";

/// The taint that goes with a condition of a type and status.
const OF_CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Whether the pods of a node that is down are driven off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// It is its turn.
    Now,
    /// Not yet; where it has begun it goes on.
    Later,
    /// All nodes are down: rather it is we who cannot hear. Where it has begun it is called off.
    Never,
}

/// The node's taints, where they must change.
pub fn plan(
    node: &Node,
    readiness: Readiness,
    eviction: Eviction,
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let old = taints(node);
    let wanted = no_schedule(node);
    let evicting = no_execute(old, readiness, eviction);
    let mut new: Vec<Taint> = old
        .iter()
        .filter(|taint| match taint.effect.as_str() {
            NO_SCHEDULE => !is_ours(&taint.key) || wanted.contains(&taint.key.as_str()),
            NO_EXECUTE if [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) => {
                readiness == Readiness::Unsaid || evicting == Some(taint.key.as_str())
            }
            _ => true,
        })
        .cloned()
        .collect();
    let wanted = wanted.into_iter().map(|key| (key, NO_SCHEDULE));
    for (key, effect) in wanted.chain(evicting.map(|key| (key, NO_EXECUTE))) {
        if !has(&new, key, effect) {
            new.push(Taint {
                key: key.to_owned(),
                value: None,
                effect: effect.to_owned(),
                time_added: Some(Time(seconds(now))),
            });
        }
    }
    (new != old).then_some(new)
}

/// Whether a node that is down has no taint yet that drives its pods off.
pub fn wants_turn(node: &Node, readiness: Readiness) -> bool {
    let old = taints(node);
    readiness.is_down() && !has(old, NOT_READY, NO_EXECUTE) && !has(old, UNREACHABLE, NO_EXECUTE)
}

/// The taints of a node.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn has(taints: &[Taint], key: &str, effect: &str) -> bool {
    taints.iter().any(|taint| taint.key == key && taint.effect == effect)
}

fn is_ours(key: &str) -> bool {
    key == UNSCHEDULABLE || OF_CONDITIONS.iter().any(|(_, _, ours)| *ours == key)
}

fn no_schedule(node: &Node) -> Vec<&'static str> {
    let holds = |kind: &str, status: &str| {
        condition(node, kind).is_some_and(|condition| condition.status == status)
    };
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    OF_CONDITIONS
        .into_iter()
        .filter(|(kind, status, _)| holds(kind, status))
        .map(|(_, _, key)| key)
        .chain(cordoned.then_some(UNSCHEDULABLE))
        .collect()
}

/// The taint that drives the pods off. One that is there becomes the other without a turn of its own.
fn no_execute(old: &[Taint], readiness: Readiness, eviction: Eviction) -> Option<&'static str> {
    let key = match readiness {
        Readiness::NotReady => NOT_READY,
        Readiness::Unknown => UNREACHABLE,
        Readiness::Ready | Readiness::Unsaid => return None,
    };
    let has_begun = has(old, NOT_READY, NO_EXECUTE) || has(old, UNREACHABLE, NO_EXECUTE);
    let shall = match eviction {
        Eviction::Now => true,
        Eviction::Later => has_begun,
        Eviction::Never => false,
    };
    shall.then_some(key)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const BEFORE: &str = "2026-01-01T00:00:00Z";

    fn node(conditions: &[(&str, &str)], taints: &[(&str, &str)], cordoned: bool) -> Node {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| json!({ "type": kind, "status": status }))
            .collect();
        let taints: Vec<Value> = taints
            .iter()
            .map(|(key, effect)| json!({ "key": key, "effect": effect, "timeAdded": BEFORE }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": "n" },
            "spec": { "taints": taints, "unschedulable": cordoned },
            "status": { "conditions": conditions },
        }))
        .unwrap()
    }

    fn planned(node: &Node, eviction: Eviction) -> Option<Vec<(String, String)>> {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        plan(node, Readiness::of(node), eviction, now)
            .map(|taints| taints.into_iter().map(|taint| (taint.key, taint.effect)).collect())
    }

    fn pairs(taints: &[(&str, &str)]) -> Vec<(String, String)> {
        taints.iter().map(|(key, effect)| ((*key).into(), (*effect).into())).collect()
    }

    #[test]
    fn each_condition_has_its_taint_and_loses_it() {
        for (kind, status, key) in OF_CONDITIONS {
            let ill = node(&[(kind, status)], &[("mine", NO_SCHEDULE)], false);
            assert_eq!(
                planned(&ill, Eviction::Later),
                Some(pairs(&[("mine", NO_SCHEDULE), (key, NO_SCHEDULE)])),
                "{kind} {status}"
            );
            let well =
                node(&[("Ready", "True")], &[("mine", NO_SCHEDULE), (key, NO_SCHEDULE)], false);
            assert_eq!(
                planned(&well, Eviction::Later),
                Some(pairs(&[("mine", NO_SCHEDULE)])),
                "{kind}"
            );
        }
    }

    #[test]
    fn a_cordoned_node_is_tainted_until_it_is_not() {
        let ready = [("Ready", "True")];
        let cordoned = node(&ready, &[], true);
        assert_eq!(
            planned(&cordoned, Eviction::Later),
            Some(pairs(&[(UNSCHEDULABLE, NO_SCHEDULE)]))
        );
        let tainted = node(&ready, &[(UNSCHEDULABLE, NO_SCHEDULE)], true);
        assert_eq!(planned(&tainted, Eviction::Later), None);
        let free = node(&ready, &[(UNSCHEDULABLE, NO_SCHEDULE)], false);
        assert_eq!(planned(&free, Eviction::Later), Some(pairs(&[])));
    }

    #[test]
    fn eviction_begins_in_turn_goes_on_and_is_called_off() {
        let silent = [("Ready", "Unknown")];
        let both = [(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)];
        let fresh = node(&silent, &[(UNREACHABLE, NO_SCHEDULE)], false);
        assert!(wants_turn(&fresh, Readiness::Unknown));
        assert_eq!(planned(&fresh, Eviction::Later), None);
        assert_eq!(planned(&fresh, Eviction::Now), Some(pairs(&both)));
        let begun = node(&silent, &both, false);
        assert!(!wants_turn(&begun, Readiness::Unknown));
        assert_eq!(planned(&begun, Eviction::Later), None);
        assert_eq!(planned(&begun, Eviction::Never), Some(pairs(&[(UNREACHABLE, NO_SCHEDULE)])));
        let back = node(&[("Ready", "True")], &both, false);
        assert_eq!(planned(&back, Eviction::Later), Some(pairs(&[])));
    }

    #[test]
    fn a_node_that_speaks_again_but_is_not_ready_swaps_its_taint_at_once() {
        let both = [(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)];
        let node = node(&[("Ready", "False")], &both, false);
        assert_eq!(
            planned(&node, Eviction::Later),
            Some(pairs(&[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]))
        );
    }

    #[test]
    fn a_node_that_has_not_reported_keeps_the_taints_it_came_with() {
        let taints = [(NOT_READY, NO_EXECUTE), ("mine", NO_EXECUTE)];
        let node = node(&[], &taints, false);
        assert_eq!(planned(&node, Eviction::Later), None);
        assert!(!wants_turn(&node, Readiness::Unsaid));
    }

    #[test]
    fn a_taint_says_when_it_was_added_and_an_old_one_keeps_its_time() {
        let node = node(&[("Ready", "Unknown")], &[(UNREACHABLE, NO_SCHEDULE)], false);
        let now: Timestamp = "2026-01-01T01:00:00.25Z".parse().unwrap();
        let taints = plan(&node, Readiness::Unknown, Eviction::Now, now).unwrap();
        let times: Vec<String> =
            taints.iter().map(|taint| taint.time_added.as_ref().unwrap().0.to_string()).collect();
        assert_eq!(times, [BEFORE, "2026-01-01T01:00:00Z"]);
    }
}
