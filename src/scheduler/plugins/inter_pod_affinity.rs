//! Pods say which other pods they must or would rather be near to, or far from.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::controllers::labels;
use crate::scheduler::cache::{NodeInfo, PodInfo, Snapshot};
use crate::scheduler::framework::{
    ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Rejection, Score,
};
use crate::scheduler::kin::{Kin, Tally};

const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const TOO_NEAR: &str = "node(s) didn't match pod anti-affinity rules";
const UNWELCOME: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// The filter and the score.
pub(super) struct InterPodAffinity;

/// A label of nodes with a value: where some pods are.
type Place = (String, String);

/// Places with what they are worth, by the label and then by its value: a node is looked up, however
/// many places there are.
#[derive(Default)]
struct Places(HashMap<String, HashMap<String, i64>>);

impl Places {
    fn add(&mut self, (key, value): Place, worth: i64) {
        *self.0.entry(key).or_default().entry(value).or_default() += worth;
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the places of a node are worth together; nothing where it is at none of them.
    fn worth_of(&self, node: &NodeInfo) -> Option<i64> {
        let found = self.0.iter().filter_map(|(key, values)| values.get(node.label(key)?)).copied();
        found.reduce(|sum, one| sum + one)
    }

    fn has(&self, node: &NodeInfo) -> bool {
        self.0
            .iter()
            .any(|(key, values)| node.label(key).is_some_and(|one| values.contains_key(one)))
    }
}

impl FromIterator<Place> for Places {
    fn from_iter<I: IntoIterator<Item = Place>>(all: I) -> Self {
        let mut places = Self::default();
        for place in all {
            places.add(place, 1);
        }
        places
    }
}

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.pod.spec.as_ref()?.affinity.as_ref()
}

fn must_be_near(pod: &PodInfo) -> &[PodAffinityTerm] {
    affinity(pod)
        .and_then(|affinity| affinity.pod_affinity.as_ref())
        .and_then(|near| near.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

fn must_be_far(pod: &PodInfo) -> &[PodAffinityTerm] {
    affinity(pod)
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|far| far.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

/// The pod's preferences, those to be far with a negative weight.
fn preferences(pod: &PodInfo) -> impl Iterator<Item = (i64, &PodAffinityTerm)> {
    let near = affinity(pod)
        .and_then(|affinity| affinity.pod_affinity.as_ref())
        .and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    let far = affinity(pod)
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    let weighted =
        |sign: i64| move |term: &'_ WeightedPodAffinityTerm| sign * i64::from(term.weight);
    near.iter()
        .map(move |term| (weighted(1)(term), &term.pod_affinity_term))
        .chain(far.iter().map(move |term| (weighted(-1)(term), &term.pod_affinity_term)))
}

/// Whether the term, which `holder` has, means pods of that kin.
fn means(term: &PodAffinityTerm, holder: &PodInfo, other: &Kin) -> bool {
    let Some(selector) = &term.label_selector else { return false };
    is_in_namespaces(term, holder, &other.namespace)
        && labels::matches(selector, Some(&other.labels))
}

/// A term without namespaces is about the holder's.
fn is_in_namespaces(term: &PodAffinityTerm, holder: &PodInfo, namespace: &str) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    if listed.iter().any(|one| one == namespace) {
        return true;
    }
    match &term.namespace_selector {
        None => listed.is_empty() && holder.namespace() == namespace,
        Some(selector) => {
            labels::matches(selector, Some(&holder.surroundings.labels_of(namespace)))
        }
    }
}

fn place(term: &PodAffinityTerm, node: &NodeInfo) -> Option<Place> {
    node.label(&term.topology_key).map(|value| (term.topology_key.clone(), value.to_owned()))
}

/// The places of the pods that a term means.
fn places_of(term: &PodAffinityTerm, pod: &PodInfo, nodes: &Snapshot) -> HashSet<Place> {
    let mut meant = Tally::new(|kin| means(term, pod, kin));
    nodes.iter().filter(|node| meant.on(node) > 0).filter_map(|node| place(term, node)).collect()
}

/// The places to which pods that are there let no such pod come.
fn unwelcome_places(pod: &PodInfo, nodes: &Snapshot) -> Places {
    let mut places = Places::default();
    for node in nodes {
        for other in node.choosy.values() {
            let against = must_be_far(other).iter().filter(|term| means(term, other, &pod.kin));
            against.filter_map(|term| place(term, node)).for_each(|place| places.add(place, 1));
        }
    }
    places
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        let near: Vec<(&PodAffinityTerm, HashSet<Place>)> =
            must_be_near(pod).iter().map(|term| (term, places_of(term, pod, nodes))).collect();
        let far: Places =
            must_be_far(pod).iter().flat_map(|term| places_of(term, pod, nodes)).collect();
        let unwelcome = unwelcome_places(pod, nodes);
        if near.is_empty() && far.is_empty() && unwelcome.is_empty() {
            return None;
        }
        // The first pod of a group that wants to be together has nobody to be near to yet.
        let is_first =
            near.iter().all(|(term, places)| places.is_empty() && means(term, pod, &pod.kin));
        Some(Box::new(move |node| {
            let is_near = near.iter().all(|(term, places)| match place(term, node) {
                None => false,
                Some(place) => is_first || places.contains(&place),
            });
            if !is_near {
                return Err(Rejection::by_node(NOT_NEAR));
            }
            if far.has(node) {
                return Err(Rejection::by_pods(TOO_NEAR));
            }
            if unwelcome.has(node) {
                return Err(Rejection::by_pods(UNWELCOME));
            }
            Ok(())
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        !matches!(event, ClusterEvent::NodeTaints | ClusterEvent::PodShrank)
    }
}

impl Score for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn normalize(&self) -> Normalize {
        Normalize::Stretch
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _feasible: &'a Snapshot,
        nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        let mut worth = Places::default();
        for (weight, term) in preferences(pod) {
            let mut meant = Tally::new(|kin| means(term, pod, kin));
            for node in nodes {
                let count = meant.on(node);
                if let Some(place) = place(term, node).filter(|_| count > 0) {
                    worth.add(place, weight * count);
                }
            }
        }
        for node in nodes {
            for other in node.choosy.values() {
                let theirs = preferences(other).filter(|(_, term)| means(term, other, &pod.kin));
                // Whoever had to be near to such a pod is glad of another.
                let glad = must_be_near(other)
                    .iter()
                    .filter(|term| means(term, other, &pod.kin))
                    .map(|term| (1, term));
                for (weight, term) in theirs.chain(glad) {
                    if let Some(place) = place(term, node) {
                        worth.add(place, weight);
                    }
                }
            }
        }
        if worth.is_empty() {
            return None;
        }
        Some(Box::new(move |node| worth.worth_of(node).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{PodAffinity, PodAntiAffinity};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;
    use crate::controllers::labels::Labels;
    use crate::scheduler::testing::{MakePod, node, pod};

    const HOST: &str = "kubernetes.io/hostname";

    fn term(app: &str) -> PodAffinityTerm {
        PodAffinityTerm {
            topology_key: HOST.to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(Labels::from([("app".to_owned(), app.to_owned())])),
                ..LabelSelector::default()
            }),
            ..PodAffinityTerm::default()
        }
    }

    fn far_from(pod: MakePod, app: &str) -> Arc<PodInfo> {
        pod.affinity(|affinity| {
            affinity.pod_anti_affinity = Some(PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![term(app)]),
                ..PodAntiAffinity::default()
            });
        })
        .info()
    }

    fn near_to(pod: MakePod, app: &str) -> Arc<PodInfo> {
        pod.affinity(|affinity| {
            affinity.pod_affinity = Some(PodAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![term(app)]),
                ..PodAffinity::default()
            });
        })
        .info()
    }

    fn outcome(pod: &PodInfo, nodes: &Snapshot) -> Vec<Result<(), Rejection>> {
        let filter = Filter::prepare(&InterPodAffinity, pod, nodes).unwrap();
        nodes.iter().map(|node| filter(node)).collect()
    }

    #[test]
    fn anti_affinity_keeps_apart_in_both_directions() {
        let db = pod("db").label("app", "db");
        let nodes = vec![node("a").info(vec![db.info()]), node("b").info(vec![])];
        let shy = far_from(pod("shy").label("app", "web"), "db");
        assert_eq!(outcome(&shy, &nodes), [Err(Rejection::by_pods(TOO_NEAR)), Ok(())]);

        let nodes = vec![node("a").info(vec![shy]), node("b").info(vec![])];
        let db = pod("db2").label("app", "db").info();
        assert_eq!(outcome(&db, &nodes), [Err(Rejection::by_pods(UNWELCOME)), Ok(())]);
    }

    #[test]
    fn affinity_needs_company_except_for_the_first_of_a_group() {
        let db = pod("db").label("app", "db").info();
        let nodes = vec![node("a").info(vec![db]), node("b").info(vec![])];
        let fond = near_to(pod("fond"), "db");
        assert_eq!(outcome(&fond, &nodes), [Ok(()), Err(Rejection::by_node(NOT_NEAR))]);

        let empty = vec![node("a").info(vec![])];
        assert_eq!(outcome(&fond, &empty), [Err(Rejection::by_node(NOT_NEAR))]);
        let first = near_to(pod("first").label("app", "group"), "group");
        assert_eq!(outcome(&first, &empty), [Ok(())]);
    }

    #[test]
    fn a_term_is_about_its_own_namespace_unless_it_says_others() {
        let mut other = pod("db").label("app", "db");
        other.0.metadata.namespace = Some("prod".to_owned());
        let other = other.info();
        let holder = pod("web").info();
        assert!(!means(&term("db"), &holder, &other.kin));
        let named = PodAffinityTerm { namespaces: Some(vec!["prod".to_owned()]), ..term("db") };
        assert!(means(&named, &holder, &other.kin));
        let all =
            PodAffinityTerm { namespace_selector: Some(LabelSelector::default()), ..term("db") };
        assert!(means(&all, &holder, &other.kin));
    }

    #[test]
    fn namespaces_are_selected_by_any_of_their_labels() {
        let labels_of = |name: &str| {
            let team = (name == "prod").then(|| ("team".to_owned(), "red".to_owned()));
            Some(team.into_iter().collect())
        };
        let around = crate::scheduler::kin::Surroundings::new(labels_of);
        let holder = PodInfo::new(pod("web").arc(), &around);
        let red = LabelSelector {
            match_labels: Some(Labels::from([("team".to_owned(), "red".to_owned())])),
            ..LabelSelector::default()
        };
        let term = PodAffinityTerm { namespace_selector: Some(red), ..term("db") };
        let mut db = pod("db").label("app", "db");
        assert!(!means(&term, &holder, &around.kin_of(&db.0)));
        db.0.metadata.namespace = Some("prod".to_owned());
        assert!(means(&term, &holder, &around.kin_of(&db.0)));
    }

    #[test]
    fn preferences_weigh_places() {
        let db = pod("db").label("app", "db").info();
        let nodes = vec![node("a").info(vec![db]), node("b").info(vec![])];
        let fond = pod("fond")
            .affinity(|affinity| {
                affinity.pod_anti_affinity = Some(PodAntiAffinity {
                    preferred_during_scheduling_ignored_during_execution: Some(vec![
                        WeightedPodAffinityTerm { weight: 30, pod_affinity_term: term("db") },
                    ]),
                    ..PodAntiAffinity::default()
                });
            })
            .info();
        let score = Score::prepare(&InterPodAffinity, &fond, &nodes, &nodes).unwrap();
        assert_eq!((score(&nodes[0]), score(&nodes[1])), (-30, 0));
    }
}
