//! A pod says by labels and names which nodes it must or would rather have.

use kontiki_node_agent::fit::affinity::{is_blank, required, selects, term_matches};

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

/// Whether the pod's node selector and required affinity take the node.
pub(super) fn is_selected(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.pod.spec.as_ref().is_none_or(|spec| selects(spec, &node.node))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        NodeAffinity as Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
        PreferredSchedulingTerm,
    };

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
