//! Preemption: a pod that fits nowhere may drive off pods of lower priority, as few and as
//! unimportant ones as will do. It only decides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::cache::{NodeInfo, PodInfo, Snapshot};
use super::cycle;
use super::framework::Filter;
use crate::controllers::{labels, owners, pods};

/// How many nodes that would do are compared at most.
const CANDIDATES_MAX: usize = 100;

/// A node, and who must leave it.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// The node's name.
    pub node: String,
    /// Who must leave, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them leave against a disruption budget.
    violations: usize,
}

/// Why a pod must not drive off others; `None` where it may.
pub fn refusal(pod: &PodInfo, nominated: Option<&NodeInfo>) -> Option<&'static str> {
    let policy = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    // Whom it drove off is still on the way out.
    let leaving = nominated.is_some_and(|node| {
        let mut others = node.pods.values();
        others.any(|other| other.priority() < pod.priority() && pods::is_terminating(&other.pod))
    });
    leaving.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The node whose pods are worth least to the cluster among those that would fit `pod` without
/// them. `open` are the nodes where other pods are what is in the way.
pub fn plan(
    pod: &PodInfo,
    nodes: &Snapshot,
    open: &[String],
    filters: &[&dyn Filter],
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Preemption> {
    let open: HashSet<&str> = open.iter().map(String::as_str).collect();
    let positions = (0..nodes.len()).filter(|at| open.contains(nodes[*at].name()));
    // Copied once: at each position it is changed, looked at and made good again.
    let mut trial = nodes.clone();
    positions
        .filter_map(|position| {
            let choice = on_node(pod, &mut trial, position, filters, budgets);
            trial[position] = Arc::clone(&nodes[position]);
            choice
        })
        .take(CANDIDATES_MAX)
        .min_by_key(worth)
}

/// What a choice is worth: less is better, in the order of Kubernetes' scheduler.
fn worth(choice: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    const SHIFT: i64 = 1 << 31;
    let highest = choice.victims.first().map_or(i32::MIN, |victim| victim.priority());
    // Shifted so that more victims of a negative priority do not come out as fewer.
    let sum = choice.victims.iter().map(|victim| i64::from(victim.priority()) + SHIFT).sum();
    let eldest = choice
        .victims
        .iter()
        .filter(|victim| victim.priority() == highest)
        .map(|victim| started(victim))
        .min()
        .unwrap_or(Timestamp::MIN);
    (choice.violations, highest, sum, choice.victims.len(), Reverse(eldest))
}

/// Who would have to leave the node at that position. Leaves the trial without them there.
fn on_node(
    pod: &PodInfo,
    trial: &mut Snapshot,
    position: usize,
    filters: &[&dyn Filter],
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Preemption> {
    let mut lower: Vec<Arc<PodInfo>> = trial[position]
        .pods
        .values()
        .filter(|other| other.priority() < pod.priority())
        .cloned()
        .collect();
    if lower.is_empty() {
        return None;
    }
    lower.sort_by_key(|other| importance(other));
    let mut node = NodeInfo::clone(&trial[position]);
    for other in &lower {
        node.remove(other.uid());
    }
    trial[position] = Arc::new(node);
    if !cycle::fits(pod, trial, position, filters) {
        return None;
    }
    let violating = violating(&lower, budgets);
    let (protected, free): (Vec<_>, Vec<_>) =
        lower.into_iter().partition(|other| violating.contains(&other.uid().to_owned()));
    let mut victims = Vec::new();
    let mut spare = |trial: &mut Snapshot, candidates: Vec<Arc<PodInfo>>| {
        let before = victims.len();
        for other in candidates {
            let without = Arc::clone(&trial[position]);
            let mut with = NodeInfo::clone(&without);
            with.add(Arc::clone(&other));
            trial[position] = Arc::new(with);
            if !cycle::fits(pod, trial, position, filters) {
                trial[position] = without;
                victims.push(other);
            }
        }
        victims.len() - before
    };
    let violations = spare(trial, protected);
    spare(trial, free);
    if victims.is_empty() {
        return None;
    }
    victims.sort_by_key(|victim| importance(victim));
    Some(Preemption { node: trial[position].name().to_owned(), victims, violations })
}

/// Orders the most important first: by priority, then by who runs longest.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp, String) {
    (Reverse(pod.priority()), started(pod), pod.uid().to_owned())
}

fn started(pod: &PodInfo) -> Timestamp {
    let status = pod.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    // One that has not begun yet is the youngest.
    status.map_or(Timestamp::MAX, |time| time.0)
}

/// The pods whose leaving a budget does not allow, where those before them leave.
fn violating(pods: &[Arc<PodInfo>], budgets: &[Arc<PodDisruptionBudget>]) -> Vec<String> {
    let mut left: HashMap<usize, i32> = HashMap::new();
    let mut violating = Vec::new();
    for pod in pods {
        let mut is_violating = false;
        for (number, budget) in budgets.iter().enumerate().filter(|(_, b)| covers(b, pod)) {
            let status = budget.status.as_ref();
            let name = owners::name(&pod.pod.metadata);
            let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
            // Who is being evicted already was counted then.
            if disrupted.is_some_and(|all: &BTreeMap<_, _>| all.contains_key(name)) {
                continue;
            }
            let allowed = status.map_or(0, |status| status.disruptions_allowed);
            let left = left.entry(number).or_insert(allowed);
            *left -= 1;
            is_violating |= *left < 0;
        }
        if is_violating {
            violating.push(pod.uid().to_owned());
        }
    }
    violating
}

fn covers(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    owners::namespace(&budget.metadata) == pod.namespace()
        && selector.is_some_and(|one| labels::matches(one, pod.pod.metadata.labels.as_ref()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::plugins::FILTERS;
    use super::super::testing::{MakePod, node, pod};
    use super::*;

    fn since(mut pod: MakePod, at: &str) -> Arc<PodInfo> {
        pod.0.status = Some(serde_json::from_value(json!({ "startTime": at })).unwrap());
        pod.info()
    }

    fn budget(allowed: i32) -> Arc<PodDisruptionBudget> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "b", "namespace": "default" },
                "spec": { "selector": { "matchLabels": { "app": "kept" } } },
                "status": {
                    "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                    "expectedPods": 1,
                },
            }))
            .unwrap(),
        )
    }

    fn choose(
        pod: &PodInfo,
        nodes: &Snapshot,
        budgets: &[Arc<PodDisruptionBudget>],
    ) -> Option<(String, Vec<String>)> {
        let open: Vec<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
        let choice = plan(pod, nodes, &open, FILTERS, budgets)?;
        let victims = choice.victims.iter().map(|victim| victim.uid().to_owned()).collect();
        Some((choice.node, victims))
    }

    #[test]
    fn as_few_as_will_do_are_driven_off_and_the_least_important() {
        let nodes = vec![node("n").cpu("4").info(vec![
            pod("small").cpu("1").priority(1).info(),
            pod("big").cpu("2").priority(1).info(),
            pod("better").cpu("1").priority(5).info(),
        ])];
        let high = |cpu: &str| pod("high").cpu(cpu).priority(10).info();
        let (_, victims) = choose(&high("1"), &nodes, &[]).unwrap();
        assert_eq!(victims.len(), 1, "{victims:?}");
        assert_ne!(victims, ["better"]);
        assert_eq!(choose(&high("4"), &nodes, &[]).unwrap().1.len(), 3);
        assert_eq!(choose(&high("5"), &nodes, &[]), None, "no leaving makes the node larger");
        let equal = pod("equal").cpu("1").priority(1).info();
        assert_eq!(choose(&equal, &nodes, &[]), None, "nobody of lower priority is there");
    }

    #[test]
    fn the_node_is_the_one_whose_loss_is_least() {
        let full = |name: &str, victims: Vec<Arc<PodInfo>>| node(name).cpu("2").info(victims);
        let high = pod("high").cpu("2").priority(10).info();
        let low = |name: &str, priority: i32| pod(name).cpu("2").priority(priority).info();
        let nodes = vec![full("a", vec![low("a1", 3)]), full("b", vec![low("b1", 1)])];
        assert_eq!(choose(&high, &nodes, &[]).unwrap().0, "b", "the lowest highest priority");
        let half = |name: &str| pod(name).cpu("1").priority(1).info();
        let nodes = vec![full("a", vec![half("a1"), half("a2")]), full("b", vec![low("b1", 1)])];
        assert_eq!(choose(&high, &nodes, &[]).unwrap().0, "b", "the fewest");
        let at = |name: &str, at: &str| since(pod(name).cpu("2").priority(1), at);
        let nodes = vec![
            full("a", vec![at("a1", "2026-01-01T00:00:00Z")]),
            full("b", vec![at("b1", "2026-01-02T00:00:00Z")]),
        ];
        assert_eq!(choose(&high, &nodes, &[]).unwrap().0, "b", "the youngest");
    }

    #[test]
    fn disruption_budgets_are_kept_where_they_can_be() {
        let high = pod("high").cpu("2").priority(10).info();
        let kept = pod("kept").cpu("2").label("app", "kept").priority(1).info();
        let other = pod("other").cpu("2").priority(2).info();
        let two = vec![
            node("a").cpu("2").info(vec![Arc::clone(&kept)]),
            node("b").cpu("2").info(vec![Arc::clone(&other)]),
        ];
        assert_eq!(choose(&high, &two, &[budget(0)]).unwrap().0, "b");
        assert_eq!(choose(&high, &two, &[budget(1)]).unwrap().0, "a");
        let one = vec![node("a").cpu("2").info(vec![kept])];
        assert_eq!(choose(&high, &one, &[budget(0)]).unwrap().1, ["kept"], "as upstream");
        let both = vec![node("a").cpu("4").info(vec![
            pod("kept").cpu("2").label("app", "kept").priority(1).info(),
            pod("free").cpu("2").priority(1).info(),
        ])];
        assert_eq!(choose(&high, &both, &[budget(0)]).unwrap().1, ["free"]);
    }

    #[test]
    fn who_may_not_or_waits_for_others_to_leave_drives_off_nobody() {
        let never = pod("p").priority(9).with(|spec| spec.preemption_policy = Some("Never".into()));
        let why = refusal(&never.info(), None).unwrap();
        assert_eq!(why, "not eligible due to preemptionPolicy=Never.");
        let high = pod("high").priority(9).info();
        assert_eq!(refusal(&high, None), None);
        let mut leaving = pod("low").priority(1);
        leaving.0.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        let nominated = node("n").info(vec![leaving.info()]);
        let why = "not eligible due to a terminating pod on the nominated node.";
        assert_eq!(refusal(&high, Some(&nominated)), Some(why));
    }
}
