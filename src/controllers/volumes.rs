//! What claims and volumes say of each other: their classes, who is bound to whom, and which volume
//! is the right one for a claim. For the binder and for the scheduler.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::quantity::Quantity;

use super::{labels, owners};
use crate::scheduler::plugins::takes;

/// On a claim: it was bound once, and keeps its volume from then on.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: the binder chose the other half, not the user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node its first pod goes to.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who shall make its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same by its older name.
pub const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The class of claims and volumes, by its older name.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// On a class: claims get it that say nothing of any.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Classes whose volumes somebody makes by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// An annotation of an object; `None` where it is empty, too.
pub fn annotation<'a, K: Metadata<Ty = ObjectMeta>>(object: &'a K, name: &str) -> Option<&'a str> {
    let all = object.metadata().annotations.as_ref()?;
    all.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// The class that a claim asks for; empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(claim, BETA_CLASS).or(field).unwrap_or_default()
}

/// Whether a claim says nothing of a class, not even that it wants none.
pub fn lacks_class(claim: &PersistentVolumeClaim) -> bool {
    let field = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    field.is_none() && annotation(claim, BETA_CLASS).is_none()
}

/// Whether claims get the class that say nothing of any.
pub fn is_default(class: &StorageClass) -> bool {
    annotation(class, DEFAULT_CLASS) == Some("true")
}

/// The class of claims that say nothing of any: of several the newest.
pub fn default_class(classes: &[Arc<StorageClass>]) -> Option<&str> {
    let defaults = classes.iter().filter(|class| is_default(class));
    let age = |class: &StorageClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(created), owners::name(&class.metadata).to_owned())
    };
    defaults.min_by_key(|class| age(class)).map(|class| owners::name(&class.metadata))
}

/// The class of a volume; empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(volume, BETA_CLASS).or(field).unwrap_or_default()
}

/// Whether volumes of the class are made or chosen only when a pod wants them.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The volume that a claim names; empty for none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// The claim that a volume names.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether the claim has its volume for good, and both say so.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

/// The claim's phase; empty where it has none yet.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The volume's phase; empty where it has none yet.
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the volume is reserved for exactly this claim.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        reference.name.as_deref() == claim.metadata.name.as_deref()
            && reference.namespace.as_deref() == claim.metadata.namespace.as_deref()
            && (uid.is_empty() || uid == owners::uid(&claim.metadata))
    })
}

/// The name of the claim behind a volume of a pod: the one it names, or the one made for it.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", owners::name(&pod.metadata), volume.name))
}

/// The names of all claims that a pod uses.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(pod, volume)).collect()
}

/// Why a volume cannot serve a claim, in Kubernetes' words; size, class, mode and access alone.
pub fn mismatch(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), &'static str> {
    if capacity(volume) < requested(claim) {
        return Err("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return Err("storageClassName does not match");
    }
    if !modes_agree(volume, claim) {
        return Err("incompatible volumeMode");
    }
    if !access_is_had(volume, claim) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

/// Whether pods on the node can have the volume.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity.and_then(|affinity| affinity.required.as_ref()).is_none_or(|one| takes(one, node))
}

/// The volume to bind a claim to: the one reserved for it, else the smallest that is large enough.
/// With `node` only volumes that reach it; `Reserved::Only` leaves the free ones alone.
pub fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    choose: Choose<'_>,
) -> Option<Arc<PersistentVolume>> {
    let usable = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none()
            && modes_agree(volume, claim)
            && capacity(volume) >= requested(claim)
    };
    let node = match choose {
        Choose::ForNode(node) => Some(node),
        Choose::Any | Choose::Reserved => None,
    };
    let near = |volume: &&Arc<PersistentVolume>| node.is_none_or(|node| reaches(volume, node));
    let reserved = volumes.iter().filter(usable).find(|volume| is_for(volume, claim));
    if let Some(reserved) = reserved {
        return Some(reserved).filter(near).cloned();
    }
    if matches!(choose, Choose::Reserved) {
        return None;
    }
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selected = |volume: &&Arc<PersistentVolume>| {
        selector.is_none_or(|one| labels::matches(one, volume.metadata.labels.as_ref()))
    };
    volumes
        .iter()
        .filter(usable)
        .filter(near)
        .filter(|volume| claim_ref(volume).is_none() && volume_phase(volume) == "Available")
        .filter(|volume| mismatch(volume, claim).is_ok())
        .filter(selected)
        .min_by(|a, b| {
            capacity(a).cmp(&capacity(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        })
        .cloned()
}

/// Which volumes come into question.
#[derive(Debug, Clone, Copy)]
pub enum Choose<'a> {
    /// All.
    Any,
    /// Those that reach the node.
    ForNode(&'a Node),
    /// Those reserved for the claim.
    Reserved,
}

/// How much storage a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    amount(resources.and_then(|resources| resources.requests.as_ref()?.get("storage")))
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    amount(capacity.and_then(|capacity| capacity.get("storage")))
}

fn amount(text: Option<&Text>) -> Quantity {
    text.and_then(|text| text.0.parse().ok()).unwrap_or_default()
}

fn modes_agree(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of = |mode: Option<&str>| mode.unwrap_or("Filesystem").to_owned();
    let volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    of(volume) == of(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()))
}

fn access_is_had(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let had = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    let wanted = claim.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten());
    wanted.into_iter().all(|mode| had.is_some_and(|had| had.contains(mode)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(more: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": { "name": "data", "namespace": "default", "uid": "c1" },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
                "resources": { "requests": { "storage": "2Gi" } },
            },
        });
        merge(&mut claim["spec"], more);
        serde_json::from_value(claim).unwrap()
    }

    fn volume(name: &str, more: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce", "ReadWriteMany"], "storageClassName": "slow",
                "capacity": { "storage": "5Gi" },
            },
            "status": { "phase": "Available" },
        });
        merge(&mut volume["spec"], more);
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn merge(into: &mut Value, more: Value) {
        into.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }

    fn chosen(volumes: &[Arc<PersistentVolume>], choose: Choose<'_>) -> Option<String> {
        best(&claim(json!({})), volumes, choose)?.metadata.name.clone()
    }

    #[test]
    fn of_several_default_classes_the_newest_counts_and_only_for_who_names_none() {
        let class = |name: &str, created: &str, default: &str| -> Arc<StorageClass> {
            let metadata = json!({
                "name": name, "creationTimestamp": created,
                "annotations": { "storageclass.kubernetes.io/is-default-class": default },
            });
            let class = json!({ "metadata": metadata, "provisioner": "disks" });
            Arc::new(serde_json::from_value(class).unwrap())
        };
        let classes = [
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("other", "2026-03-01T00:00:00Z", "false"),
            class("new", "2026-02-01T00:00:00Z", "true"),
        ];
        assert_eq!(default_class(&classes), Some("new"));
        assert_eq!(default_class(&classes[1..2]), None);
        assert!(!lacks_class(&claim(json!({}))));
        assert!(!lacks_class(&claim(json!({ "storageClassName": "" }))));
        assert!(lacks_class(&claim(json!({ "storageClassName": null }))));
    }

    #[test]
    fn the_smallest_that_is_large_enough_is_chosen() {
        let volumes = [
            volume("large", json!({})),
            volume("small", json!({ "capacity": { "storage": "1Gi" } })),
            volume("right", json!({ "capacity": { "storage": "2Gi" } })),
            volume(
                "other",
                json!({ "capacity": { "storage": "2Gi" }, "storageClassName": "fast" }),
            ),
            volume("block", json!({ "capacity": { "storage": "2Gi" }, "volumeMode": "Block" })),
            volume(
                "ro",
                json!({ "capacity": { "storage": "2Gi" }, "accessModes": ["ReadOnlyMany"] }),
            ),
            volume(
                "taken",
                json!({ "capacity": { "storage": "2Gi" }, "claimRef": { "name": "x" } }),
            ),
        ];
        assert_eq!(chosen(&volumes, Choose::Any).as_deref(), Some("right"));
        assert_eq!(chosen(&volumes, Choose::Reserved), None);
    }

    #[test]
    fn a_volume_reserved_for_the_claim_goes_before_better_ones() {
        let own = json!({ "claimRef": { "name": "data", "namespace": "default" } });
        let volumes =
            [volume("right", json!({ "capacity": { "storage": "2Gi" } })), volume("own", own)];
        assert_eq!(chosen(&volumes, Choose::Any).as_deref(), Some("own"));
        assert_eq!(chosen(&volumes, Choose::Reserved).as_deref(), Some("own"));
        let earlier =
            json!({ "claimRef": { "name": "data", "namespace": "default", "uid": "older" } });
        assert_eq!(
            chosen(&[volume("v", earlier)], Choose::Any),
            None,
            "another claim of that name"
        );
    }

    #[test]
    fn a_volume_must_reach_the_node() {
        let here = json!({ "nodeAffinity": { "required": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "host", "operator": "In", "values": ["here"] }] },
        ]}}});
        let volumes = [volume("v", here)];
        let node = |host: &str| -> Node {
            serde_json::from_value(
                json!({ "metadata": { "name": host, "labels": { "host": host } } }),
            )
            .unwrap()
        };
        assert_eq!(chosen(&volumes, Choose::ForNode(&node("here"))).as_deref(), Some("v"));
        assert_eq!(chosen(&volumes, Choose::ForNode(&node("there"))), None);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let volume = volume("v", json!({}));
        for (more, why) in [
            (
                json!({ "resources": { "requests": { "storage": "6Gi" } } }),
                "requested PV is too small",
            ),
            (json!({ "storageClassName": "fast" }), "storageClassName does not match"),
            (json!({ "volumeMode": "Block" }), "incompatible volumeMode"),
            (json!({ "accessModes": ["ReadWriteOncePod"] }), "incompatible accessMode"),
        ] {
            assert_eq!(mismatch(&volume, &claim(more)), Err(why));
        }
        assert_eq!(mismatch(&volume, &claim(json!({}))), Ok(()));
    }
}
