//! Taints keep pods off a node unless they tolerate them; `PreferNoSchedule` only discourages.

use k8s_openapi::api::core::v1::Taint;
use kontiki_node_agent::fit::taints::tolerates;

use crate::scheduler::cache::{NodeInfo, PodInfo, Snapshot};
use crate::scheduler::framework::{
    ClusterEvent, Filter, NodeFilter, NodeScore, Normalize, Rejection, Score,
};

/// The filter and the score.
pub(super) struct TaintToleration;

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        Some(Box::new(|node| {
            let untolerated = taints(node)
                .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
                .find(|taint| !tolerates(&pod.pod, taint));
            match untolerated {
                None => Ok(()),
                Some(taint) => {
                    let value = taint.value.as_deref().unwrap_or_default();
                    Err(Rejection::by_node(format!(
                        "node(s) had untolerated taint {{{}: {value}}}",
                        taint.key
                    )))
                }
            }
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeGrew | ClusterEvent::NodeTaints)
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn normalize(&self) -> Normalize {
        Normalize::Least
    }

    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _feasible: &'a Snapshot,
        _nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        Some(Box::new(|node| {
            let discouraging = taints(node)
                .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerates(&pod.pod, taint))
                .count();
            i64::try_from(discouraging).unwrap_or(i64::MAX)
        }))
    }
}

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    node.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;

    use super::*;
    use crate::scheduler::testing::{node, pod};

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn the_first_taint_not_tolerated_is_the_reason() {
        let wanting = pod("p").tolerate(toleration("a", "Exists", "", "")).info();
        let tainted =
            node("n").taint("a", "", "NoSchedule").taint("b", "x", "NoExecute").info(vec![]);
        let nodes = vec![tainted];
        let filter = Filter::prepare(&TaintToleration, &wanting, &nodes).unwrap();
        let rejection = filter(&nodes[0]).unwrap_err();
        assert_eq!(rejection, Rejection::by_node("node(s) had untolerated taint {b: x}"));
        drop(filter);
        let soft = vec![node("n").taint("b", "", "PreferNoSchedule").info(vec![])];
        let filter = Filter::prepare(&TaintToleration, &wanting, &soft).unwrap();
        assert_eq!(filter(&soft[0]), Ok(()));
        let score = Score::prepare(&TaintToleration, &wanting, &soft, &soft).unwrap();
        assert_eq!(score(&soft[0]), 1);
    }
}
