//! A node takes a pod only if it has what the pod asks for; the emptier one is the better.

use std::borrow::Cow;

use crate::scheduler::cache::{NodeInfo, PodInfo, Snapshot};
use crate::scheduler::framework::{
    ClusterEvent, Filter, MAX_SCORE, NodeFilter, NodeScore, Normalize, Rejection, Score,
};
use crate::scheduler::resources::Resources;

/// The filter and the score.
pub(super) struct ResourcesFit;

impl Filter for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        Some(Box::new(|node| {
            let missing = missing(&pod.requests, node);
            if missing.is_empty() {
                return Ok(());
            }
            // Where the whole node would be too small, nobody's leaving helps.
            let resolvable = fits_when_empty(&pod.requests, node);
            Err(Rejection { reasons: missing, resolvable })
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeGrew | ClusterEvent::PodLeft | ClusterEvent::PodShrank)
    }
}

/// What the node lacks for these requests. What is not asked for is never lacking.
fn missing(requests: &Resources, node: &NodeInfo) -> Vec<Cow<'static, str>> {
    let mut missing: Vec<Cow<'static, str>> = Vec::new();
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if pods + 1 > node.max_pods {
        missing.push("Too many pods".into());
    }
    let (has, used) = (&node.allocatable, &node.requested);
    let lacks = |wanted: i64, has: i64, used: i64| wanted > 0 && wanted > has - used;
    if lacks(requests.cpu_milli, has.cpu_milli, used.cpu_milli) {
        missing.push("Insufficient cpu".into());
    }
    if lacks(requests.memory_bytes, has.memory_bytes, used.memory_bytes) {
        missing.push("Insufficient memory".into());
    }
    if lacks(requests.ephemeral_bytes, has.ephemeral_bytes, used.ephemeral_bytes) {
        missing.push("Insufficient ephemeral-storage".into());
    }
    for (name, wanted) in &requests.others {
        let amount = |of: &Resources| of.others.get(name).copied().unwrap_or(0);
        if lacks(*wanted, amount(has), amount(used)) {
            missing.push(format!("Insufficient {name}").into());
        }
    }
    missing
}

fn fits_when_empty(requests: &Resources, node: &NodeInfo) -> bool {
    let has = &node.allocatable;
    node.max_pods > 0
        && requests.cpu_milli <= has.cpu_milli
        && requests.memory_bytes <= has.memory_bytes
        && requests.ephemeral_bytes <= has.ephemeral_bytes
        && requests
            .others
            .iter()
            .all(|(name, wanted)| *wanted <= has.others.get(name).copied().unwrap_or(0))
}

impl Score for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn normalize(&self) -> Normalize {
        Normalize::AsIs
    }

    /// The share of CPU and of memory that stays free, on average.
    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _feasible: &'a Snapshot,
        _nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        Some(Box::new(|node| {
            let (has, used, wanted) = (&node.allocatable, &node.counted, &pod.counted);
            let cpu = free_share(has.cpu_milli, used.cpu_milli.saturating_add(wanted.cpu_milli));
            let memory =
                free_share(has.memory_bytes, used.memory_bytes.saturating_add(wanted.memory_bytes));
            i64::midpoint(cpu, memory)
        }))
    }
}

fn free_share(has: i64, used: i64) -> i64 {
    if has <= 0 || used >= has {
        return 0;
    }
    let share = i128::from(has - used) * i128::from(MAX_SCORE) / i128::from(has);
    i64::try_from(share).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::testing::{node, pod};

    #[test]
    fn everything_that_lacks_is_said() {
        let full = node("n").has("pods", "1").has("example.com/gpu", "1").info(vec![
            pod("has").cpu("3").request("memory", "7Gi").request("example.com/gpu", "1").info(),
        ]);
        let nodes = vec![full];
        let wanting = pod("wants")
            .cpu("2")
            .request("memory", "2Gi")
            .request("ephemeral-storage", "1Gi")
            .request("example.com/gpu", "1")
            .info();
        let filter = Filter::prepare(&ResourcesFit, &wanting, &nodes).unwrap();
        let rejection = filter(&nodes[0]).unwrap_err();
        assert_eq!(
            rejection.reasons,
            [
                "Too many pods",
                "Insufficient cpu",
                "Insufficient memory",
                "Insufficient ephemeral-storage",
                "Insufficient example.com/gpu"
            ]
        );
        assert!(!rejection.resolvable, "the node has no ephemeral storage at all");
    }

    #[test]
    fn a_pod_that_asks_for_nothing_fits_where_a_pod_has_room() {
        let nodes = vec![
            node("full").cpu("1").info(vec![pod("has").cpu("1").info()]),
            node("none").has("pods", "0").info(vec![]),
        ];
        let wanting = pod("wants").info();
        let filter = Filter::prepare(&ResourcesFit, &wanting, &nodes).unwrap();
        assert_eq!(filter(&nodes[0]), Ok(()));
        assert_eq!(filter(&nodes[1]).unwrap_err().reasons, ["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_scores_higher() {
        let nodes = vec![
            node("half").info(vec![pod("has").cpu("2").request("memory", "4Gi").info()]),
            node("empty").info(vec![]),
        ];
        let wanting = pod("wants").cpu("1").request("memory", "2Gi").info();
        let score = Score::prepare(&ResourcesFit, &wanting, &nodes, &nodes).unwrap();
        assert_eq!((score(&nodes[0]), score(&nodes[1])), (25, 75));
    }
}
