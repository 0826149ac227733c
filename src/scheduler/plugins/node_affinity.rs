//! A pod says by labels and names which nodes it must or would rather have.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::controllers::owners;
use crate::scheduler::cache::{NodeInfo, PodInfo, Snapshot};
use crate::scheduler::framework::{
    ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Rejection, Score,
};

/// The filter and the score.
pub(super) struct NodeAffinity;

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        let spec = pod.pod.spec.as_ref()?;
        let required = required(spec);
        if spec.node_selector.is_none() && required.is_none() {
            return None;
        }
        Some(Box::new(move |node| {
            if is_selected(pod, node) {
                Ok(())
            } else {
                Err(Rejection::by_node("node(s) didn't match Pod's node affinity/selector"))
            }
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeGrew | ClusterEvent::NodeLabels)
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn normalize(&self) -> Normalize {
        Normalize::Greatest
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _feasible: &'a Snapshot,
        _nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        let affinity = pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        Some(Box::new(move |node| {
            preferred
                .iter()
                .filter(|term| {
                    // Unlike a required term, a preferred one without conditions is for all nodes.
                    is_blank(&term.preference) || term_matches(&term.preference, &node.node)
                })
                .map(|term| i64::from(term.weight))
                .sum()
        }))
    }
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Whether one of the terms takes the node.
pub fn takes(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether the pod's node selector and required affinity take the node.
pub(super) fn is_selected(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.pod.spec.as_ref().is_none_or(|spec| selects(spec, &node.node))
}

/// Whether a pod of that specification may, by node selector and required affinity, be on the node.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let by_labels = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| label(node, key) == Some(value.as_str()));
    by_labels && required(spec).is_none_or(|required| takes(required, node))
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn is_blank(term: &NodeSelectorTerm) -> bool {
    term.match_expressions.as_ref().is_none_or(Vec::is_empty)
        && term.match_fields.as_ref().is_none_or(Vec::is_empty)
}

/// Whether all conditions of the term hold; one without conditions takes no node.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    !is_blank(term)
        && term
            .match_expressions
            .iter()
            .flatten()
            .all(|one| requirement_matches(one, label(node, &one.key)))
        && term.match_fields.iter().flatten().all(|one| {
            // The name is the only field there is.
            one.key == "metadata.name"
                && requirement_matches(one, Some(owners::name(&node.metadata)))
        })
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let contains = |value: &str| values.iter().any(|one| one == value);
    let ordered = |holds: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(|bound| bound.parse().ok());
        let own = value.and_then(|value| value.parse().ok());
        own.zip(bound).is_some_and(|(own, bound)| holds(own, bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(contains),
        "NotIn" => !value.is_some_and(contains),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => ordered(|own, bound| own > bound),
        "Lt" => ordered(|own, bound| own < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, PreferredSchedulingTerm};

    use super::*;
    use crate::scheduler::testing::{node, pod};

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        }
    }

    #[test]
    fn each_operator_takes_the_nodes_it_should() {
        for (operator, values, present, absent) in [
            ("In", &["7", "8"][..], true, false),
            ("NotIn", &["7"][..], false, true),
            ("Exists", &[][..], true, false),
            ("DoesNotExist", &[][..], false, true),
            ("Gt", &["6"][..], true, false),
            ("Gt", &["7"][..], false, false),
            ("Lt", &["8"][..], true, false),
            ("Lt", &["x"][..], false, false),
            ("Near", &["7"][..], false, false),
        ] {
            let requirement = requirement("size", operator, values);
            assert_eq!(
                requirement_matches(&requirement, Some("7")),
                present,
                "{operator} {values:?}"
            );
            assert_eq!(requirement_matches(&requirement, None), absent, "{operator} without");
        }
    }

    #[test]
    fn terms_are_alternatives_and_names_can_be_meant() {
        let wanting = pod("p")
            .affinity(|affinity| {
                affinity.node_affinity = Some(Affinity {
                    required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                        node_selector_terms: vec![
                            NodeSelectorTerm {
                                match_expressions: Some(vec![requirement("disk", "In", &["ssd"])]),
                                match_fields: None,
                            },
                            NodeSelectorTerm {
                                match_expressions: None,
                                match_fields: Some(vec![requirement(
                                    "metadata.name",
                                    "In",
                                    &["b"],
                                )]),
                            },
                            NodeSelectorTerm::default(),
                        ],
                    }),
                    ..Affinity::default()
                });
            })
            .info();
        let nodes = vec![
            node("a").label("disk", "ssd").info(vec![]),
            node("b").info(vec![]),
            node("c").info(vec![]),
        ];
        let filter = Filter::prepare(&NodeAffinity, &wanting, &nodes).unwrap();
        let taken: Vec<bool> = nodes.iter().map(|node| filter(node).is_ok()).collect();
        assert_eq!(taken, [true, true, false]);
    }

    #[test]
    fn a_node_selector_must_match_whole() {
        let wanting = pod("p").node_selector("disk", "ssd").node_selector("zone", "a").info();
        let nodes = vec![
            node("a").label("disk", "ssd").label("zone", "a").info(vec![]),
            node("b").label("disk", "ssd").info(vec![]),
        ];
        let filter = Filter::prepare(&NodeAffinity, &wanting, &nodes).unwrap();
        assert!(filter(&nodes[0]).is_ok() && filter(&nodes[1]).is_err());
        assert!(Filter::prepare(&NodeAffinity, &pod("q").info(), &nodes).is_none());
    }

    #[test]
    fn preferences_add_up() {
        let term = |weight, value: &str| PreferredSchedulingTerm {
            weight,
            preference: NodeSelectorTerm {
                match_expressions: Some(vec![requirement("disk", "In", &[value])]),
                match_fields: None,
            },
        };
        let wanting = pod("p")
            .affinity(|affinity| {
                affinity.node_affinity = Some(Affinity {
                    preferred_during_scheduling_ignored_during_execution: Some(vec![
                        term(80, "ssd"),
                        term(20, "hdd"),
                        PreferredSchedulingTerm { weight: 5, ..PreferredSchedulingTerm::default() },
                    ]),
                    ..Affinity::default()
                });
            })
            .info();
        let nodes = vec![node("a").label("disk", "ssd").info(vec![]), node("b").info(vec![])];
        let score = Score::prepare(&NodeAffinity, &wanting, &nodes, &nodes).unwrap();
        assert_eq!((score(&nodes[0]), score(&nodes[1])), (85, 5));
    }
}
