//! A claim of mode `ReadWriteOncePod` is one pod's at a time, anywhere.

use std::collections::HashSet;

use crate::controllers::{owners, volumes::claims_of};
use crate::scheduler::cache::{PodInfo, Snapshot};
use crate::scheduler::framework::{ClusterEvent, Filter, NodeFilter, Rejection};

/// The filter.
pub(super) struct VolumeRestrictions;

impl Filter for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Snapshot) -> Option<NodeFilter<'a>> {
        let exclusive: HashSet<&str> = pod
            .claims
            .iter()
            .flatten()
            .filter(|need| need.is_exclusive)
            .map(|need| owners::name(&need.claim.metadata))
            .collect();
        if exclusive.is_empty() {
            return None;
        }
        let has = move |other: &PodInfo| {
            other.namespace() == pod.namespace()
                && claims_of(&other.pod).iter().any(|name| exclusive.contains(name.as_str()))
        };
        let holders: HashSet<&str> = nodes
            .iter()
            .filter(|node| node.pods.values().any(|other| has(other)))
            .map(|node| node.name())
            .collect();
        if holders.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            // Whoever else has it may be driven off, which opens only the node it is on.
            let why = "node has pod using PersistentVolumeClaim with the same name and \
                       ReadWriteOncePod access mode";
            if holders.contains(node.name()) {
                Err(Rejection::by_pods(why))
            } else {
                Err(Rejection::by_node(why))
            }
        }))
    }

    fn wakes_on(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::PodLeft | ClusterEvent::Volumes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};

    use super::*;
    use crate::scheduler::testing::{MakePod, node, pod};
    use crate::scheduler::volumes::{ClaimNeed, Place};

    fn using(name: &str) -> MakePod {
        pod(name).with(|spec| {
            spec.volumes = Some(vec![Volume {
                name: "v".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: "data".to_owned(),
                    read_only: None,
                }),
                ..Volume::default()
            }]);
        })
    }

    #[test]
    fn a_claim_for_one_pod_keeps_a_second_from_every_node() {
        let mut claim = k8s_openapi::api::core::v1::PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".to_owned());
        let need = |is_exclusive| ClaimNeed {
            claim: Arc::new(claim.clone()),
            is_exclusive,
            place: Place::Gone,
        };
        let second = using("second").info();
        let nodes = vec![node("a").info(vec![using("first").info()]), node("b").info(vec![])];
        let wanting = second.with_claims(Ok(vec![need(true)]));
        let filter = VolumeRestrictions.prepare(&wanting, &nodes).unwrap();
        assert!(filter(&nodes[0]).unwrap_err().resolvable);
        assert!(!filter(&nodes[1]).unwrap_err().resolvable);
        let shared = second.with_claims(Ok(vec![need(false)]));
        assert!(VolumeRestrictions.prepare(&shared, &nodes).is_none());
        let free = vec![node("a").info(vec![])];
        assert!(VolumeRestrictions.prepare(&wanting, &free).is_none());
    }
}
