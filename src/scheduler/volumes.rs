//! What a pod's claims want of a node, and what is written so that they get it.
//!
//! A claim that is bound wants nodes that its volume reaches. One whose class waits for the first
//! pod wants a node with a fitting volume, or one where a volume can be made; it is reserved, or the
//! node is written into the claim, before the pod is bound.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kontiki_api::client::Client;
use kontiki_api::informer::{Informer, Informers};
use kontiki_api::registry::options::{Part, Patch};
use kontiki_api::status::Status;
use serde_json::json;

use crate::controllers::volumes::{
    BOUND_BY_CONTROLLER, Choose, NO_PROVISIONER, SELECTED_NODE, annotation, best, claim_phase,
    claim_ref, claims_of, class_of_claim, is_bound, reaches, volume_name, waits_for_consumer,
};
use crate::controllers::{events, owners};

/// How often a claim that is to be bound is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What one claim of a pod wants.
#[derive(Debug, Clone)]
pub struct ClaimNeed {
    /// The claim.
    pub claim: Arc<PersistentVolumeClaim>,
    /// Whether only one pod may have it.
    pub is_exclusive: bool,
    /// Where it can be had.
    pub place: Place,
}

/// Where a claim can be had.
#[derive(Debug, Clone)]
pub enum Place {
    /// Where its volume is.
    Bound(Arc<PersistentVolume>),
    /// The volume it has does not exist.
    Gone,
    /// Where one of these fits, or can be made.
    Open {
        /// Volumes of its class that are free or reserved for it.
        volumes: Vec<Arc<PersistentVolume>>,
        /// The class, where somebody makes its volumes.
        class: Option<Arc<StorageClass>>,
    },
}

/// How a claim gets its volume once its pod's node is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Provision {
    /// This volume is reserved for it.
    Reserve(Arc<PersistentVolume>),
    /// The node is written into it, for who makes its volume.
    Select,
}

impl ClaimNeed {
    /// How the claim gets a volume on that node; `Ok(None)` where it has one already.
    pub fn on(
        &self,
        node: &Node,
        taken: &HashSet<&str>,
    ) -> Result<Option<Provision>, &'static str> {
        match &self.place {
            Place::Bound(volume) if reaches(volume, node) => Ok(None),
            Place::Bound(_) => Err("node(s) didn't match PersistentVolume's node affinity"),
            Place::Gone => {
                Err("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
            }
            Place::Open { volumes, class } => {
                let left: Vec<Arc<PersistentVolume>> = volumes
                    .iter()
                    .filter(|volume| !taken.contains(owners::name(&volume.metadata)))
                    .cloned()
                    .collect();
                if let Some(volume) = best(&self.claim, &left, Choose::ForNode(node)) {
                    return Ok(Some(Provision::Reserve(volume)));
                }
                let selected = annotation(&*self.claim, SELECTED_NODE);
                let is_elsewhere =
                    selected.is_some_and(|selected| selected != owners::name(&node.metadata));
                match class {
                    Some(class) if !is_elsewhere && is_allowed(class, node) => {
                        Ok(Some(Provision::Select))
                    }
                    _ => Err("node(s) didn't find available persistent volumes to bind"),
                }
            }
        }
    }
}

/// How all claims of a pod get their volumes on that node.
pub fn provisions(
    claims: &[ClaimNeed],
    node: &Node,
) -> Result<Vec<(Arc<PersistentVolumeClaim>, Provision)>, &'static str> {
    let mut all: Vec<(Arc<PersistentVolumeClaim>, Provision)> = Vec::new();
    for need in claims {
        let taken: HashSet<&str> = all
            .iter()
            .filter_map(|(_, provision)| match provision {
                Provision::Reserve(volume) => Some(owners::name(&volume.metadata)),
                Provision::Select => None,
            })
            .collect();
        if let Some(provision) = need.on(node, &taken)? {
            all.push((Arc::clone(&need.claim), provision));
        }
    }
    Ok(all)
}

/// Whether the class makes volumes for that node.
fn is_allowed(class: &StorageClass, node: &Node) -> bool {
    let Some(terms) = class.allowed_topologies.as_ref().filter(|terms| !terms.is_empty()) else {
        return true;
    };
    let labels = node.metadata.labels.as_ref();
    let has = |key: &str, values: &[String]| {
        labels.and_then(|labels| labels.get(key)).is_some_and(|own| values.contains(own))
    };
    terms.iter().any(|term| {
        term.match_label_expressions.iter().flatten().all(|one| has(&one.key, &one.values))
    })
}

/// Where claims, volumes and classes are looked up.
pub trait Look {
    /// A claim.
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    /// A volume.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    /// All volumes.
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    /// A class.
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
}

/// What the scheduler sees of claims, volumes and classes.
#[derive(Clone)]
pub struct Storage {
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    pub(super) classes: Arc<Informer<StorageClass>>,
}

impl Storage {
    /// By these informers.
    pub fn new(informers: &Informers) -> Self {
        Self { claims: informers.of(), volumes: informers.of(), classes: informers.of() }
    }

    /// Sees to it that the claims get their volumes for a pod on `node`, and waits until they have.
    pub async fn bind(
        &self,
        client: &Client,
        provisions: &[(Arc<PersistentVolumeClaim>, Provision)],
        node: &str,
    ) -> Result<(), Status> {
        for (claim, provision) in provisions {
            match provision {
                Provision::Reserve(volume) => reserve(client, volume, claim).await?,
                Provision::Select => select(client, claim, node).await?,
            }
        }
        for (claim, _) in provisions {
            self.bound(claim, node).await?;
        }
        Ok(())
    }

    /// Waits until the claim is bound. Callers bound the wait.
    async fn bound(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<(), Status> {
        let (namespace, name) = (owners::namespace(&claim.metadata), owners::name(&claim.metadata));
        let mut was_selected = false;
        loop {
            let now = self.claims.get(namespace, name);
            let now = now.filter(|now| now.metadata.uid == claim.metadata.uid);
            let Some(now) = now else {
                return Err(Status::unavailable(format!("claim {namespace}/{name} is gone")));
            };
            if is_bound(&now) && claim_phase(&now) == "Bound" {
                return Ok(());
            }
            // Who makes volumes takes the node away again where it can make none.
            match annotation(&*now, SELECTED_NODE) {
                Some(selected) if selected != node => {
                    let why = format!("claim {namespace}/{name} goes to node {selected}");
                    return Err(Status::unavailable(why));
                }
                Some(_) => was_selected = true,
                None if was_selected => {
                    let why = format!("no volume for claim {namespace}/{name} on node {node}");
                    return Err(Status::unavailable(why));
                }
                None => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Look for Storage {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get("", name)
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.list()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get("", name)
    }
}

/// What the pod's claims want; the error is for all nodes alike, in Kubernetes' words. `reserved` are
/// volumes that other pods' claims are about to get.
pub(crate) fn needs(
    seen: &dyn Look,
    pod: &Pod,
    reserved: &HashSet<String>,
) -> Result<Vec<ClaimNeed>, String> {
    let namespace = owners::namespace(&pod.metadata);
    claims_of(pod).iter().map(|name| need(seen, pod, namespace, name, reserved)).collect()
}

fn need(
    seen: &dyn Look,
    pod: &Pod,
    namespace: &str,
    name: &str,
    reserved: &HashSet<String>,
) -> Result<ClaimNeed, String> {
    let claim = seen.claim(namespace, name).ok_or_else(|| {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let is_ephemeral = !volumes
            .filter_map(|volume| volume.persistent_volume_claim.as_ref())
            .any(|source| source.claim_name == name);
        if is_ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        }
    })?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if claim_phase(&claim) == "Lost" {
        let volume = volume_name(&claim);
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    let is_exclusive = modes.is_some_and(|modes| modes.iter().any(|m| m == "ReadWriteOncePod"));
    let place = place(seen, &claim, reserved)?;
    Ok(ClaimNeed { claim, is_exclusive, place })
}

fn place(
    seen: &dyn Look,
    claim: &PersistentVolumeClaim,
    reserved: &HashSet<String>,
) -> Result<Place, String> {
    if is_bound(claim) {
        let volume = seen.volume(volume_name(claim));
        return Ok(volume.map_or(Place::Gone, Place::Bound));
    }
    let class = seen.class(class_of_claim(claim));
    let delayed = class.filter(|class| waits_for_consumer(class));
    let (Some(class), true) = (delayed, volume_name(claim).is_empty()) else {
        return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
    };
    let all = seen.volumes();
    let is_free = |volume: &Arc<PersistentVolume>| {
        claim_ref(volume).is_some() || !reserved.contains(owners::name(&volume.metadata))
    };
    Ok(Place::Open {
        volumes: all.into_iter().filter(is_free).collect(),
        class: Some(class).filter(|class| class.provisioner != NO_PROVISIONER),
    })
}

async fn reserve(
    client: &Client,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), Status> {
    if claim_ref(volume).is_some_and(|reference| reference.uid == claim.metadata.uid) {
        return Ok(());
    }
    let mut reserved = volume.clone();
    if claim_ref(volume).is_none() {
        let marks = reserved.metadata.annotations.get_or_insert_default();
        marks.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    if let Some(spec) = &mut reserved.spec {
        spec.claim_ref = Some(events::reference(claim));
    }
    client.update(&reserved).await.map(drop)
}

async fn select(client: &Client, claim: &PersistentVolumeClaim, node: &str) -> Result<(), Status> {
    if annotation(claim, SELECTED_NODE) == Some(node) {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "metadata": {
        "uid": claim.metadata.uid,
        "annotations": { SELECTED_NODE: node },
    }}));
    let (namespace, name) = (owners::namespace(&claim.metadata), owners::name(&claim.metadata));
    client.patch::<PersistentVolumeClaim>(namespace, name, Part::Main, &patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scheduler::testing::node;

    fn claim(annotations: Value) -> Arc<PersistentVolumeClaim> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "c", "namespace": "default", "uid": "c", "annotations": annotations },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                    "resources": { "requests": { "storage": "1Gi" } },
                },
            }))
            .unwrap(),
        )
    }

    fn volume(name: &str, host: &str) -> Arc<PersistentVolume> {
        let volume = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "capacity": { "storage": "1Gi" },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": "kubernetes.io/hostname", "operator": "In", "values": [host] },
                ]}]}},
            },
            "status": { "phase": "Available" },
        });
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn class(topologies: Value) -> Arc<StorageClass> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "local" }, "provisioner": "disks", "allowedTopologies": topologies,
            }))
            .unwrap(),
        )
    }

    fn need(annotations: Value, place: Place) -> ClaimNeed {
        ClaimNeed { claim: claim(annotations), is_exclusive: false, place }
    }

    #[test]
    fn a_bound_claim_wants_the_nodes_of_its_volume() {
        let (here, there) = (node("here").arc(), node("there").arc());
        let bound = need(json!({}), Place::Bound(volume("v", "here")));
        assert_eq!(bound.on(&here, &HashSet::new()), Ok(None));
        let why = "node(s) didn't match PersistentVolume's node affinity";
        assert_eq!(bound.on(&there, &HashSet::new()), Err(why));
        assert!(need(json!({}), Place::Gone).on(&here, &HashSet::new()).is_err());
    }

    #[test]
    fn two_claims_of_a_pod_do_not_get_the_same_volume() {
        let here = node("here").arc();
        let open = |volumes: &[Arc<PersistentVolume>]| {
            let place = Place::Open { volumes: volumes.to_vec(), class: None };
            vec![need(json!({}), place.clone()), need(json!({}), place)]
        };
        let (one, two) = (volume("v1", "here"), volume("v2", "here"));
        let found = provisions(&open(&[one.clone(), two.clone()]), &here).unwrap();
        let found: Vec<Provision> = found.into_iter().map(|(_, provision)| provision).collect();
        assert_eq!(found, [Provision::Reserve(one.clone()), Provision::Reserve(two)]);
        let why = "node(s) didn't find available persistent volumes to bind";
        assert_eq!(provisions(&open(&[one]), &here).map(|all| all.len()), Err(why));
    }

    #[test]
    fn a_volume_is_made_where_the_class_makes_some_and_where_the_claim_goes() {
        let here = node("here").label("zone", "a").arc();
        let open = |annotations: Value, class: Option<Arc<StorageClass>>| {
            let need = need(annotations, Place::Open { volumes: vec![], class });
            need.on(&here, &HashSet::new()).is_ok()
        };
        let zone = |zone: &str| json!([{ "matchLabelExpressions": [{ "key": "zone", "values": [zone] }] }]);
        assert!(open(json!({}), Some(class(json!(null)))));
        assert!(open(json!({}), Some(class(zone("a")))));
        assert!(!open(json!({}), Some(class(zone("b")))));
        assert!(!open(json!({}), None), "nobody makes any");
        assert!(open(json!({ SELECTED_NODE: "here" }), Some(class(json!(null)))));
        assert!(!open(json!({ SELECTED_NODE: "there" }), Some(class(json!(null)))));
    }
}
