//! A node whose CPU and memory are used alike has no leftover of one that nobody can use.

use crate::scheduler::cache::{PodInfo, Snapshot};
use crate::scheduler::framework::{MAX_SCORE, NodeScore, Normalize, Score};

/// The score.
pub(super) struct BalancedAllocation;

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn normalize(&self) -> Normalize {
        Normalize::AsIs
    }

    /// The best less half the difference of the used shares. A pod that asks for nothing moves
    /// nothing.
    fn prepare<'a>(
        &'a self,
        pod: &'a PodInfo,
        _feasible: &'a Snapshot,
        _nodes: &'a Snapshot,
    ) -> Option<NodeScore<'a>> {
        if pod.requests.cpu_milli == 0 && pod.requests.memory_bytes == 0 {
            return None;
        }
        Some(Box::new(|node| {
            let (has, used, wanted) = (&node.allocatable, &node.requested, &pod.requests);
            let cpu = used_permille(has.cpu_milli, used.cpu_milli.saturating_add(wanted.cpu_milli));
            let memory = used_permille(
                has.memory_bytes,
                used.memory_bytes.saturating_add(wanted.memory_bytes),
            );
            MAX_SCORE - (cpu - memory).abs() * MAX_SCORE / 2000
        }))
    }
}

fn used_permille(has: i64, used: i64) -> i64 {
    if has <= 0 {
        return 1000;
    }
    i64::try_from(i128::from(used.max(0)) * 1000 / i128::from(has)).unwrap_or(1000).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::testing::{node, pod};

    #[test]
    fn even_use_scores_highest() {
        let nodes = vec![
            node("even").info(vec![]),
            node("cpu-heavy").info(vec![pod("has").cpu("2").info()]),
        ];
        let wanting = pod("wants").cpu("1").request("memory", "2Gi").info();
        let score = BalancedAllocation.prepare(&wanting, &nodes, &nodes).unwrap();
        assert_eq!((score(&nodes[0]), score(&nodes[1])), (100, 75));
        assert!(BalancedAllocation.prepare(&pod("p").info(), &nodes, &nodes).is_none());
    }
}
