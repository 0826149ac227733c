//! A pod's claims must have their volumes where it goes, or must be able to get them there.

use crate::scheduler::cache::{PodInfo, Snapshot};
use crate::scheduler::framework::{ClusterEvent, Filter, NodeFilter, Rejection};
use crate::scheduler::volumes::provisions;

/// The filter.
pub(super) struct VolumeBinding;

impl Filter for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        match &pod.claims {
            Ok(claims) if claims.is_empty() => None,
            Ok(claims) => Some(Box::new(|node| {
                provisions(claims, &node.node).map(drop).map_err(Rejection::by_node)
            })),
            Err(why) => Some(Box::new(|_| Err(Rejection::by_node(why.clone())))),
        }
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::Volumes | ClusterEvent::NodeGrew | ClusterEvent::NodeLabels)
    }
}
