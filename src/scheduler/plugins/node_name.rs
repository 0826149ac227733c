//! A pod that names its node gets that one or none.

use crate::controllers::pods;
use crate::scheduler::cache::{PodInfo, Snapshot};
use crate::scheduler::framework::{ClusterEvent, Filter, NodeFilter, Rejection};

/// The filter.
pub(super) struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        let wanted = pods::node_name(&pod.pod)?;
        Some(Box::new(move |node| {
            if node.name() == wanted {
                Ok(())
            } else {
                Err(Rejection::by_node("node(s) didn't match the requested node name"))
            }
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        event == ClusterEvent::NodeGrew
    }
}
