//! Pods that belong together are spread over zones, nodes or whatever else a label tells apart.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::node_affinity::is_selected;
use super::tolerates;
use crate::controllers::{labels, owners};
use crate::scheduler::cache::{NodeInfo, PodInfo, Snapshot};
use crate::scheduler::framework::{
    ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Rejection, Score,
};
use crate::scheduler::kin::Tally;

const NOT_EVEN: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The filter and the score.
pub(super) struct TopologySpread;

/// A constraint with the pods it counts in each domain.
struct Counted<'a> {
    key: &'a str,
    max_skew: i64,
    /// Whether the pod counts itself.
    own: i64,
    domains: HashMap<&'a str, i64>,
    /// How many the least of them has.
    least: i64,
}

impl Filter for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        let constraints = constraints(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return None;
        }
        let counted: Vec<Counted<'a>> = constraints
            .iter()
            .map(|constraint| count(constraint, &constraints, pod, nodes))
            .collect();
        Some(Box::new(move |node| {
            counted.iter().try_for_each(|constraint| constraint.allows(node))
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::NodeGrew
                | ClusterEvent::NodeLabels
                | ClusterEvent::PodArrived
                | ClusterEvent::PodLeft
        )
    }
}

impl Counted<'_> {
    fn allows(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(domain) = node.label(self.key) else { return Err(Rejection::by_node(NO_LABEL)) };
        let here = self.domains.get(domain).copied().unwrap_or(0);
        if here + self.own - self.least > self.max_skew {
            Err(Rejection::by_pods(NOT_EVEN))
        } else {
            Ok(())
        }
    }
}

fn constraints<'a>(pod: &'a PodInfo, action: &str) -> Vec<&'a TopologySpreadConstraint> {
    pod.pod
        .spec
        .iter()
        .flat_map(|spec| spec.topology_spread_constraints.iter().flatten())
        .filter(|constraint| constraint.when_unsatisfiable == action)
        .collect()
}

/// Counts the matching pods of the pod's namespace in each domain of the constraint, over the nodes
/// that have the labels of all constraints and that its policies include.
fn count<'a>(
    constraint: &'a TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
    pod: &PodInfo,
    nodes: &'a Snapshot,
) -> Counted<'a> {
    let selector = selector(constraint, pod);
    let mut domains: HashMap<&'a str, i64> = HashMap::new();
    let mut matching = Tally::new(|kin| {
        kin.namespace == pod.namespace()
            && !kin.is_terminating
            && labels::matches(&selector, Some(&kin.labels))
    });
    for node in nodes.iter().filter(|node| is_included(constraint, all, pod, node)) {
        let Some(domain) = node.label(&constraint.topology_key) else { continue };
        *domains.entry(domain).or_default() += matching.on(node);
    }
    // How many domains there must be before the least of them counts as more than 0.
    let min_domains = constraint.min_domains.and_then(|least| usize::try_from(least).ok());
    let least = match domains.values().min() {
        Some(least) if domains.len() >= min_domains.unwrap_or(1) => *least,
        _ => 0,
    };
    Counted {
        key: &constraint.topology_key,
        max_skew: i64::from(constraint.max_skew),
        least,
        own: i64::from(labels::matches(&selector, pod.pod.metadata.labels.as_ref())),
        domains,
    }
}

fn is_included(
    constraint: &TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
    pod: &PodInfo,
    node: &NodeInfo,
) -> bool {
    let by_affinity =
        constraint.node_affinity_policy.as_deref() == Some("Ignore") || is_selected(pod, node);
    let by_taints = constraint.node_taints_policy.as_deref() != Some("Honor") || {
        let mut taints = node.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.all(|taint| taint.effect == "PreferNoSchedule" || tolerates(&pod.pod, taint))
    };
    by_affinity && by_taints && all.iter().all(|one| node.label(&one.topology_key).is_some())
}

/// The constraint's selector, narrowed to the pod's own values of `matchLabelKeys`. Without a
/// selector nothing matches.
fn selector(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> LabelSelector {
    let Some(mut selector) = constraint.label_selector.clone() else { return nothing() };
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    selector
}

fn nothing() -> LabelSelector {
    let never = LabelSelectorRequirement {
        key: String::new(),
        operator: "Exists".to_owned(),
        values: None,
    };
    LabelSelector { match_expressions: Some(vec![never]), match_labels: None }
}

/// How often each value of a label occurs among the pods that count.
struct Preference<'a> {
    key: &'a str,
    max_skew: i64,
    weight_milli: i64,
    domains: Domains<'a>,
}

/// The pods that count, by the values of the label.
enum Domains<'a> {
    /// Counted over all nodes.
    Counted(HashMap<&'a str, i64>),
    /// Each node is its own: those of this owner are counted where a node is looked at.
    Node(&'a str),
}

impl Score for TopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn normalize(&self) -> Normalize {
        Normalize::Spread
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        feasible: &'a Snapshot,
        nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        let asked = constraints(pod, "ScheduleAnyway");
        let preferences: Vec<Preference<'a>> = if asked.is_empty() {
            by_owner(pod, nodes)
        } else {
            asked
                .iter()
                .map(|constraint| {
                    let counted = count(constraint, &asked, pod, nodes);
                    let known: HashSet<&str> =
                        feasible.iter().filter_map(|node| node.label(counted.key)).collect();
                    Preference {
                        key: &constraint.topology_key,
                        max_skew: counted.max_skew,
                        weight_milli: log_milli(known.len() + 2),
                        domains: Domains::Counted(counted.domains),
                    }
                })
                .collect()
        };
        if preferences.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            preferences
                .iter()
                .map(|one| one.here(node) * one.weight_milli / 1000 + one.max_skew - 1)
                .sum()
        }))
    }
}

impl Preference<'_> {
    /// How many pods that count are in the domain of a node.
    fn here(&self, node: &NodeInfo) -> i64 {
        let Some(domain) = node.label(self.key) else { return 0 };
        match &self.domains {
            Domains::Counted(all) => all.get(domain).copied().unwrap_or(0),
            Domains::Node(owner) => siblings(owner, node),
        }
    }
}

/// Pods of one controller are spread over nodes and zones though nobody asks for it.
fn by_owner<'a>(pod: &'a PodInfo, nodes: &'a Snapshot) -> Vec<Preference<'a>> {
    let Some(owner) = owners::controller_of(&pod.pod.metadata) else { return Vec::new() };
    let hosts = nodes.iter().filter(|node| node.label(HOSTNAME).is_some()).count();
    let mut zones: HashMap<&'a str, i64> = HashMap::new();
    for node in nodes {
        if let Some(zone) = node.label(ZONE) {
            *zones.entry(zone).or_default() += siblings(&owner.uid, node);
        }
    }
    let of = |key, max_skew, count: usize, domains| {
        let weight_milli = log_milli(count + 2);
        (count > 0).then_some(Preference { key, max_skew, weight_milli, domains })
    };
    let count = zones.len();
    // A host name is one node's.
    let by_host = of(HOSTNAME, 3, hosts, Domains::Node(&owner.uid));
    by_host.into_iter().chain(of(ZONE, 5, count, Domains::Counted(zones))).collect()
}

/// How many pods of an owner are on a node.
fn siblings(owner: &str, node: &NodeInfo) -> i64 {
    let all = node.kins.iter().filter(|(kin, _)| !kin.is_terminating && kin.owner == owner);
    all.map(|(_, count)| count).sum()
}

/// The natural logarithm in thousandths, without floating point: so that equal scores are equal.
fn log_milli(number: usize) -> i64 {
    const LN_2_MILLI: i64 = 693;
    let whole = i64::from(number.max(1).ilog2());
    let base = 1_usize << number.max(1).ilog2();
    // Between two powers of two, in a straight line.
    let part = i64::try_from((number - base) * 1000 / base).unwrap_or(0);
    whole * LN_2_MILLI + part * LN_2_MILLI / 1000
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::scheduler::testing::{MakePod, node, pod};

    fn web(name: &str) -> MakePod {
        pod(name).label("app", "web")
    }

    fn spread(pod: MakePod, key: &str, max_skew: i32, action: &str) -> Arc<PodInfo> {
        pod.with(|spec| {
            spec.topology_spread_constraints = Some(vec![TopologySpreadConstraint {
                topology_key: key.to_owned(),
                max_skew,
                when_unsatisfiable: action.to_owned(),
                label_selector: Some(LabelSelector {
                    match_labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
                    ..LabelSelector::default()
                }),
                ..TopologySpreadConstraint::default()
            }]);
        })
        .info()
    }

    fn zones() -> Snapshot {
        vec![
            node("a1").label(ZONE, "a").info(vec![web("1").info(), web("2").info()]),
            node("b1").label(ZONE, "b").info(vec![web("3").info()]),
            node("bare").info(vec![]),
        ]
    }

    #[test]
    fn the_fullest_domain_is_closed_when_the_skew_would_grow_too_great() {
        let wanting = spread(web("new"), ZONE, 1, "DoNotSchedule");
        let nodes = zones();
        let filter = Filter::prepare(&TopologySpread, &wanting, &nodes).unwrap();
        assert_eq!(filter(&nodes[0]), Err(Rejection::by_pods(NOT_EVEN)));
        assert_eq!(filter(&nodes[1]), Ok(()));
        assert_eq!(filter(&nodes[2]), Err(Rejection::by_node(NO_LABEL)));
        drop(filter);
        let other = spread(pod("other"), ZONE, 1, "DoNotSchedule");
        let filter = Filter::prepare(&TopologySpread, &other, &nodes).unwrap();
        assert_eq!(filter(&nodes[0]), Ok(()), "a pod that does not count itself adds nothing");
    }

    #[test]
    fn a_preference_scores_the_emptier_domain_higher() {
        let wanting = spread(web("new"), ZONE, 1, "ScheduleAnyway");
        let nodes = zones();
        let score = Score::prepare(&TopologySpread, &wanting, &nodes, &nodes).unwrap();
        assert!(score(&nodes[0]) > score(&nodes[1]), "raw scores are counts: less is better");
        assert!(Filter::prepare(&TopologySpread, &wanting, &nodes).is_none());
    }

    #[test]
    fn pods_of_one_controller_are_spread_unasked() {
        use k8s_openapi::api::apps::v1::ReplicaSet;
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
        let set = ReplicaSet {
            metadata: ObjectMeta { uid: Some("set".to_owned()), ..ObjectMeta::default() },
            ..ReplicaSet::default()
        };
        let owned = |name: &str| {
            let mut pod = pod(name);
            pod.0.metadata.owner_references = Some(vec![owners::controller_reference(&set)]);
            pod.info()
        };
        let nodes = vec![node("a").info(vec![owned("1"), owned("2")]), node("b").info(vec![])];
        let wanting = owned("new");
        let score = Score::prepare(&TopologySpread, &wanting, &nodes, &nodes).unwrap();
        assert!(score(&nodes[0]) > score(&nodes[1]));
        assert!(Score::prepare(&TopologySpread, &pod("alone").info(), &nodes, &nodes).is_none());
    }

    #[test]
    fn logarithms_grow_slowly() {
        assert_eq!(log_milli(1), 0);
        assert_eq!(log_milli(2), 693);
        assert_eq!(log_milli(4), 1386);
        assert!(log_milli(3) > 693 && log_milli(3) < 1386);
    }
}
