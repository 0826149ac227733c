//! A port of a node is had once.

use crate::scheduler::cache::{PodInfo, Snapshot};
use crate::scheduler::framework::{ClusterEvent, Filter, NodeFilter, Rejection};

/// The filter.
pub(super) struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, _nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        if pod.host_ports.is_empty() {
            return None;
        }
        Some(Box::new(|node| {
            let mut taken = node.pods.values().flat_map(|other| &other.host_ports);
            if taken.any(|taken| pod.host_ports.iter().any(|wanted| wanted.conflicts_with(taken))) {
                Err(Rejection::by_pods(
                    "node(s) didn't have free ports for the requested pod ports",
                ))
            } else {
                Ok(())
            }
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeGrew | ClusterEvent::PodLeft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::testing::{node, pod};

    #[test]
    fn ports_conflict_by_number_protocol_and_address() {
        let nodes = vec![node("n").info(vec![pod("has").host_port("10.0.0.1", "TCP", 80).info()])];
        for (ip, protocol, port, free) in [
            ("10.0.0.1", "TCP", 80, false),
            ("", "TCP", 80, false),
            ("10.0.0.2", "TCP", 80, true),
            ("10.0.0.1", "UDP", 80, true),
            ("10.0.0.1", "TCP", 81, true),
        ] {
            let wanting = pod("wants").host_port(ip, protocol, port).info();
            let filter = NodePorts.prepare(&wanting, &nodes).unwrap();
            assert_eq!(filter(&nodes[0]).is_ok(), free, "{ip}:{port}/{protocol}");
        }
        assert!(NodePorts.prepare(&pod("none").info(), &nodes).is_none());
    }
}
