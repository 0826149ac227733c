//! The built-in provisioner: a claim of class `local-path` gets a folder on the disk of the node
//! that its first pod goes to, and pods that use it go there from then on.
//!
//! A node's agent says in an annotation of its Node where such folders are. It makes them when a pod
//! mounts one, and removes them when [`VolumeFolders`] asks.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::status::Status;

use super::volumes::{PROVISIONED_BY, annotation, requested};
use super::{events, owners};

/// What the class of such volumes names as its provisioner.
pub const PROVISIONER: &str = "kontiki/local-path";
/// On a Node: the folder of its volumes.
pub const FOLDER: &str = "kontiki/local-volumes";
/// By this label volumes say where they are.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Removes what volumes hold from the disks of nodes.
#[async_trait]
pub trait VolumeFolders: Send + Sync {
    /// Removes the folder of a volume at a node; must succeed where it is gone already.
    async fn remove(&self, node: &Node, volume: &PersistentVolume) -> Result<(), Status>;
}

/// The volume for a claim on that node, or why there can be none.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&Node>,
) -> Result<PersistentVolume, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default();
    if modes.iter().any(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        return Err("only the access modes ReadWriteOnce and ReadWriteOncePod are there: \
                    the volume is on one node's disk"
            .to_owned());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("only volumeMode Filesystem is there, no block devices".to_owned());
    }
    if spec.selector.is_some() {
        return Err("claim.spec.selector is not supported for provisioned volumes".to_owned());
    }
    let node = node.ok_or(
        "no node was selected: the class must have volumeBindingMode WaitForFirstConsumer",
    )?;
    let name = owners::name(&node.metadata);
    let folder = annotation(node, FOLDER)
        .ok_or_else(|| format!("node {name} offers no folder in its annotation {FOLDER}"))?;
    let host = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME));
    let host = host.ok_or_else(|| format!("node {name} has no label {HOSTNAME}"))?;
    Ok(on_node(claim, class, host, folder))
}

fn on_node(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    host: &str,
    folder: &str,
) -> PersistentVolume {
    let meta = &claim.metadata;
    let name = format!("pvc-{}", owners::uid(meta));
    // Whoever looks at the disk shall find their data by the names they gave.
    let leaf = format!("{name}_{}_{}", owners::namespace(meta), owners::name(meta));
    let spec = claim.spec.clone().unwrap_or_default();
    let storage = Quantity(requested(claim).to_string());
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some([("storage".to_owned(), storage)].into()),
            claim_ref: Some(events::reference(claim)),
            local: Some(LocalVolumeSource { path: format!("{folder}/{leaf}"), fs_type: None }),
            node_affinity: Some(VolumeNodeAffinity { required: Some(only(host)) }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            mount_options: class.mount_options.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn only(host: &str) -> NodeSelector {
    let requirement = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![host.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
    NodeSelector { node_selector_terms: vec![term] }
}

/// The node that a volume made here is on.
pub fn node_of(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let requirements = required.node_selector_terms.first()?.match_expressions.as_ref()?;
    let host = requirements.iter().find(|requirement| requirement.key == HOSTNAME)?;
    host.values.as_ref()?.first().map(String::as_str)
}

/// The last part of a volume's path: how its node calls its folder.
pub fn leaf_of(volume: &PersistentVolume) -> Option<&str> {
    let path = &volume.spec.as_ref()?.local.as_ref()?.path;
    path.rsplit('/').next().filter(|leaf| !leaf.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": { "name": "data", "namespace": "shop", "uid": "u1" },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(claim).unwrap()
    }

    fn class() -> StorageClass {
        serde_json::from_value(json!({
            "metadata": { "name": "local-path" }, "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
        }))
        .unwrap()
    }

    fn node(annotations: Value) -> Node {
        serde_json::from_value(json!({ "metadata": {
            "name": "n1", "labels": { HOSTNAME: "n1" }, "annotations": annotations,
        }}))
        .unwrap()
    }

    #[test]
    fn a_volume_is_a_folder_of_the_node_and_stays_there() {
        let node = node(json!({ FOLDER: "/data/volumes" }));
        let volume = volume(&claim(json!({})), &class(), Some(&node)).unwrap();
        let spec = volume.spec.as_ref().unwrap();
        assert_eq!(spec.local.as_ref().unwrap().path, "/data/volumes/pvc-u1_shop_data");
        assert_eq!(leaf_of(&volume), Some("pvc-u1_shop_data"));
        assert_eq!(node_of(&volume), Some("n1"));
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
        assert_eq!(spec.capacity.as_ref().unwrap()["storage"].0, "1Gi");
        assert_eq!(spec.claim_ref.as_ref().unwrap().uid.as_deref(), Some("u1"));
    }

    #[test]
    fn what_one_disk_cannot_be_is_refused_with_its_reason() {
        let offering = node(json!({ FOLDER: "/data/volumes" }));
        for (spec, node, why) in [
            (json!({ "accessModes": ["ReadWriteMany"] }), Some(&offering), "access modes"),
            (json!({ "volumeMode": "Block" }), Some(&offering), "block devices"),
            (json!({ "selector": {} }), Some(&offering), "selector"),
            (json!({}), None, "WaitForFirstConsumer"),
            (json!({}), Some(&node(json!({}))), "offers no folder"),
        ] {
            let refused = volume(&claim(spec), &class(), node).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
