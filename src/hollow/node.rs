//! What a hollow node says of itself.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// How the names of hollow nodes begin.
pub const PREFIX: &str = "hollow-";
/// Where leases of nodes are.
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// The label by which they are told from others.
pub const LABEL: &str = "kontiki.dev/hollow";
/// How many zones they are spread over.
const ZONES: usize = 3;
const LEASE_SECONDS: i32 = 40;

/// What a node offers, as quantities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Processors.
    pub cpu: String,
    /// Memory.
    pub memory: String,
    /// Pods.
    pub pods: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { cpu: "8".to_owned(), memory: "32Gi".to_owned(), pods: 110 }
    }
}

/// The name of the node with that number.
pub fn name(index: usize) -> String {
    format!("{PREFIX}{index:05}")
}

/// The number of a node, where it is a hollow one among so many.
pub fn index_of(name: &str, nodes: usize) -> Option<usize> {
    let index = name.strip_prefix(PREFIX)?.parse().ok()?;
    (index < nodes && self::name(index) == name).then_some(index)
}

/// The Node as it is registered.
pub fn object(index: usize) -> Value {
    let name = name(index);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", index % ZONES),
            LABEL: "true",
        } },
    })
}

/// Its status: large enough, and well.
pub fn status(shape: &Shape, now: Timestamp) -> Value {
    let amounts =
        json!({ "cpu": shape.cpu, "memory": shape.memory, "pods": shape.pods.to_string() });
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "hollow",
            "lastHeartbeatTime": format!("{now:.0}"),
        })
    };
    json!({ "status": {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [
            condition("Ready", "True", "KubeletReady"),
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "hollow://1",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.35.0",
            "machineID": "", "operatingSystem": "linux", "osImage": "hollow", "systemUUID": "",
        },
    } })
}

/// Its lease as it is made.
pub fn lease(name: &str, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": name, "namespace": "kube-node-lease" },
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": format!("{now:.6}"),
        },
    })
}

/// What changes in it from time to time.
pub fn renewal(now: Timestamp) -> Value {
    json!({ "spec": { "renewTime": format!("{now:.6}") } })
}

/// How many turns of all nodes have come up after that time, where each node has its own moment of
/// the period.
pub fn due(elapsed: Duration, period: Duration, nodes: usize) -> usize {
    let turns = elapsed.as_micros() * nodes as u128 / period.as_micros().max(1);
    usize::try_from(turns).unwrap_or(usize::MAX)
}

/// The turns that are to be done when so many are done and so many are due: what a node missed
/// while nothing could be done is done once for it, not as often as it was missed.
pub fn turns(done: usize, due: usize, nodes: usize) -> std::ops::Range<usize> {
    done.max(due.saturating_sub(nodes))..due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_that_were_missed_are_made_up_for_once_a_node() {
        assert_eq!(turns(10, 12, 100), 10..12);
        assert_eq!(turns(10, 1010, 100), 910..1010, "a stall of ten periods");
        assert!(turns(12, 12, 100).is_empty());
    }

    #[test]
    fn nodes_are_known_by_their_names() {
        assert_eq!(name(7), "hollow-00007");
        assert_eq!(index_of("hollow-00007", 8), Some(7));
        assert_eq!(index_of("hollow-00007", 7), None, "somebody else's");
        assert_eq!(index_of("hollow-7", 8), None);
        assert_eq!(index_of("node-1", 8), None);
    }

    #[test]
    fn each_node_has_its_turn_once_in_a_period() {
        let period = Duration::from_secs(10);
        for (millis, expected) in
            [(0, 0), (9, 0), (10, 1), (5000, 500), (10_000, 1000), (20_010, 2001)]
        {
            assert_eq!(due(Duration::from_millis(millis), period, 1000), expected, "{millis} ms");
        }
    }
}
