//! What becomes of a claim, and of a volume. It only decides.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::controllers::owners;
use crate::controllers::volumes::{
    self, BOUND_BY_CONTROLLER, Choose, NO_PROVISIONER, PROVISIONED_BY, SELECTED_NODE, annotation,
    best, claim_ref, is_bound, is_for, volume_name, waits_for_consumer,
};

/// Something to tell about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Whether it is bad news.
    pub is_warning: bool,
}

impl Note {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_warning: false }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_warning: true }
    }
}

/// What to do with a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimStep {
    /// It has no volume yet.
    Wait(Option<Note>),
    /// It gets that volume; again does no harm.
    Bind(Arc<PersistentVolume>),
    /// A volume of the class is to be made for it.
    Provision(Arc<StorageClass>),
    /// It had a volume, and has it no more.
    Lost(Note),
}

/// Decides about a claim. `class` is the object of the class it names, where there is one.
pub fn claim(
    claim: &PersistentVolumeClaim,
    all: &[Arc<PersistentVolume>],
    class: Option<&Arc<StorageClass>>,
) -> ClaimStep {
    let wanted = volume_name(claim);
    let found = all.iter().find(|volume| owners::name(&volume.metadata) == wanted);
    if is_bound(claim) {
        return keep(claim, found);
    }
    if volumes::annotation(claim, volumes::BIND_COMPLETED).is_some() {
        let message =
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return ClaimStep::Lost(Note::warning("ClaimLost", message));
    }
    if wanted.is_empty() { choose(claim, all, class) } else { take(claim, wanted, found) }
}

/// For a claim that was bound before.
fn keep(claim: &PersistentVolumeClaim, found: Option<&Arc<PersistentVolume>>) -> ClaimStep {
    let Some(volume) = found else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return ClaimStep::Lost(Note::warning("ClaimLost", message));
    };
    match claim_ref(volume) {
        None => ClaimStep::Bind(Arc::clone(volume)),
        Some(reference) if reference.uid.as_deref() == claim.metadata.uid.as_deref() => {
            ClaimStep::Bind(Arc::clone(volume))
        }
        Some(_) => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            ClaimStep::Lost(Note::warning("ClaimMisbound", message))
        }
    }
}

/// For a claim that names its volume.
fn take(
    claim: &PersistentVolumeClaim,
    wanted: &str,
    found: Option<&Arc<PersistentVolume>>,
) -> ClaimStep {
    let Some(volume) = found else { return ClaimStep::Wait(None) };
    if is_for(volume, claim) {
        return ClaimStep::Bind(Arc::clone(volume));
    }
    if claim_ref(volume).is_some() {
        let message = format!("volume {wanted:?} already bound to a different claim.");
        return ClaimStep::Wait(Some(Note::warning("FailedBinding", message)));
    }
    match volumes::mismatch(volume, claim) {
        Ok(()) => ClaimStep::Bind(Arc::clone(volume)),
        Err(why) => {
            let message = format!("Cannot bind to requested volume {wanted:?}: {why}");
            ClaimStep::Wait(Some(Note::warning("VolumeMismatch", message)))
        }
    }
}

/// For a claim that takes what fits.
fn choose(
    claim: &PersistentVolumeClaim,
    all: &[Arc<PersistentVolume>],
    class: Option<&Arc<StorageClass>>,
) -> ClaimStep {
    let delayed = class.is_some_and(|class| waits_for_consumer(class))
        && annotation(claim, SELECTED_NODE).is_none();
    let which = if delayed { Choose::Reserved } else { Choose::Any };
    if let Some(volume) = best(claim, all, which) {
        return ClaimStep::Bind(volume);
    }
    if delayed {
        let message = "waiting for first consumer to be created before binding";
        return ClaimStep::Wait(Some(Note::normal("WaitForFirstConsumer", message)));
    }
    let name = volumes::class_of_claim(claim);
    match class {
        Some(class) if class.provisioner == NO_PROVISIONER => ClaimStep::Wait(Some(Note::normal(
            "FailedBinding",
            format!("no persistent volumes of class {name:?} available for this claim"),
        ))),
        Some(class) => ClaimStep::Provision(Arc::clone(class)),
        None if name.is_empty() => ClaimStep::Wait(Some(Note::normal(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ))),
        None => ClaimStep::Wait(Some(Note::warning(
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io {name:?} not found"),
        ))),
    }
}

/// What to do with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeStep {
    /// Any claim may have it, or the one it is reserved for.
    Available,
    /// It waits for its claim to take it.
    AwaitClaim,
    /// It has its claim.
    Bound,
    /// Its claim has another volume: it becomes free again.
    Unbind,
    /// Its claim is gone: it is released, and then becomes what its policy says.
    Release,
}

/// Decides about a volume. `claim` is the claim of the name that it refers to, where there is one.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some(reference) = claim_ref(volume) else { return VolumeStep::Available };
    let uid = reference.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        return VolumeStep::Available;
    }
    let Some(claim) = claim.filter(|claim| owners::uid(&claim.metadata) == uid) else {
        return VolumeStep::Release;
    };
    match volume_name(claim) {
        "" => VolumeStep::AwaitClaim,
        name if name == owners::name(&volume.metadata) => VolumeStep::Bound,
        _ if annotation(volume, PROVISIONED_BY).is_some() && is_deleted_after(volume) => {
            VolumeStep::Release
        }
        _ => VolumeStep::Unbind,
    }
}

/// Whether the volume goes with its claim.
pub fn is_deleted_after(volume: &PersistentVolume) -> bool {
    policy(volume) == "Delete"
}

/// What becomes of a volume whose claim is gone.
pub fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

/// The volume without its claim: a reservation by the user stays one.
pub fn unbound(volume: &PersistentVolume) -> PersistentVolume {
    let mut volume = volume.clone();
    let chosen_here = volume
        .metadata
        .annotations
        .as_mut()
        .is_some_and(|annotations| annotations.remove(BOUND_BY_CONTROLLER).is_some());
    if let Some(spec) = &mut volume.spec {
        if chosen_here {
            spec.claim_ref = None;
        } else if let Some(reference) = &mut spec.claim_ref {
            reference.uid = None;
            reference.resource_version = None;
        }
    }
    volume
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim_of(annotations: Value, spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {
                "name": "data", "namespace": "default", "uid": "c1", "annotations": annotations,
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                "resources": { "requests": { "storage": "2Gi" } },
            },
        });
        claim["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(claim).unwrap()
    }

    fn volume_of(reference: Value, policy: &str) -> Arc<PersistentVolume> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "v" },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                    "capacity": { "storage": "2Gi" }, "claimRef": reference,
                    "persistentVolumeReclaimPolicy": policy,
                },
                "status": { "phase": "Available" },
            }))
            .unwrap(),
        )
    }

    fn class(provisioner: &str, mode: &str) -> Arc<StorageClass> {
        let class = json!({
            "metadata": { "name": "fast" }, "provisioner": provisioner, "volumeBindingMode": mode,
        });
        Arc::new(serde_json::from_value(class).unwrap())
    }

    fn own() -> Value {
        json!({ "name": "data", "namespace": "default", "uid": "c1" })
    }

    fn reason(step: &ClaimStep) -> &str {
        match step {
            ClaimStep::Wait(None) => "wait",
            ClaimStep::Wait(Some(note)) | ClaimStep::Lost(note) => note.reason,
            ClaimStep::Bind(_) => "bind",
            ClaimStep::Provision(_) => "provision",
        }
    }

    #[test]
    fn a_new_claim_is_bound_provisioned_or_waits() {
        let (free, none) = (json!(null), json!({}));
        let immediate = class("disks", "Immediate");
        let delayed = class("disks", "WaitForFirstConsumer");
        let by_hand = class(NO_PROVISIONER, "Immediate");
        let volumes = [volume_of(free, "Retain")];
        let fresh = claim_of(none.clone(), json!({}));
        let chosen = claim_of(json!({ SELECTED_NODE: "n1" }), json!({}));
        let classless = claim_of(none, json!({ "storageClassName": "" }));
        for (subject, volumes, class, expected) in [
            (&fresh, &volumes[..], Some(&immediate), "bind"),
            (&fresh, &[][..], Some(&immediate), "provision"),
            (&fresh, &volumes[..], Some(&delayed), "WaitForFirstConsumer"),
            (&chosen, &[][..], Some(&delayed), "provision"),
            (&fresh, &[][..], Some(&by_hand), "FailedBinding"),
            (&fresh, &[][..], None, "ProvisioningFailed"),
            (&classless, &volumes[..], None, "FailedBinding"),
        ] {
            assert_eq!(reason(&claim(subject, volumes, class)), expected, "{subject:?}");
        }
    }

    #[test]
    fn a_claim_that_names_its_volume_gets_that_or_waits() {
        let named = claim_of(json!({}), json!({ "volumeName": "v" }));
        let large = json!({ "volumeName": "v", "resources": { "requests": { "storage": "9Gi" } } });
        let large = claim_of(json!({}), large);
        let other = json!({ "name": "x", "namespace": "default", "uid": "x1" });
        assert_eq!(reason(&claim(&named, &[volume_of(json!(null), "Retain")], None)), "bind");
        assert_eq!(reason(&claim(&named, &[volume_of(own(), "Retain")], None)), "bind");
        assert_eq!(reason(&claim(&named, &[], None)), "wait");
        assert_eq!(reason(&claim(&named, &[volume_of(other, "Retain")], None)), "FailedBinding");
        let step = claim(&large, &[volume_of(json!(null), "Retain")], None);
        assert_eq!(reason(&step), "VolumeMismatch");
    }

    #[test]
    fn a_bound_claim_keeps_its_volume_or_is_lost() {
        let bound = json!({ volumes::BIND_COMPLETED: "yes" });
        let held = claim_of(bound.clone(), json!({ "volumeName": "v" }));
        let other = json!({ "name": "x", "namespace": "default", "uid": "x1" });
        assert_eq!(reason(&claim(&held, &[volume_of(own(), "Retain")], None)), "bind");
        assert_eq!(reason(&claim(&held, &[], None)), "ClaimLost");
        assert_eq!(reason(&claim(&held, &[volume_of(other, "Retain")], None)), "ClaimMisbound");
        assert_eq!(reason(&claim(&claim_of(bound, json!({})), &[], None)), "ClaimLost");
    }

    #[test]
    fn a_volume_follows_its_claim() {
        let taking = claim_of(json!({}), json!({ "volumeName": "v" }));
        let open = claim_of(json!({}), json!({}));
        let elsewhere = claim_of(json!({}), json!({ "volumeName": "w" }));
        let reserved = json!({ "name": "data", "namespace": "default" });
        for (reference, claim, expected) in [
            (json!(null), None, VolumeStep::Available),
            (reserved, Some(&open), VolumeStep::Available),
            (own(), Some(&open), VolumeStep::AwaitClaim),
            (own(), Some(&taking), VolumeStep::Bound),
            (own(), Some(&elsewhere), VolumeStep::Unbind),
            (own(), None, VolumeStep::Release),
            (
                json!({ "name": "data", "namespace": "default", "uid": "before" }),
                Some(&open),
                VolumeStep::Release,
            ),
        ] {
            assert_eq!(volume(&volume_of(reference, "Retain"), claim), expected);
        }
    }

    #[test]
    fn what_the_user_reserved_stays_reserved() {
        let by_user = unbound(&volume_of(own(), "Retain"));
        let reference = by_user.spec.unwrap().claim_ref.unwrap();
        assert_eq!((reference.name.as_deref(), reference.uid), (Some("data"), None));
        let mut by_binder = PersistentVolume::clone(&volume_of(own(), "Retain"));
        let mark = (BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        by_binder.metadata.annotations = Some([mark].into());
        assert_eq!(unbound(&by_binder).spec.unwrap().claim_ref, None);
    }
}
