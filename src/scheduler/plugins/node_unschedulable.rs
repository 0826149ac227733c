//! A cordoned node takes no new pods, except those that tolerate just that.

use k8s_openapi::api::core::v1::Taint;

use super::tolerates;
use crate::scheduler::cache::{PodInfo, Snapshot};
use crate::scheduler::framework::{ClusterEvent, Filter, NodeFilter, Rejection};

/// The filter.
pub(super) struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if tolerates(&pod.pod, &cordon) {
            return None;
        }
        Some(Box::new(|node| {
            let cordoned =
                node.node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
            if cordoned { Err(Rejection::by_node("node(s) were unschedulable")) } else { Ok(()) }
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeGrew | ClusterEvent::NodeTaints)
    }
}
