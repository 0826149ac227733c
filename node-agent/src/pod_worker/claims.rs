//! The volumes behind a pod's claims.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::steps::Job;
use crate::api::{ApiError, namespace, uid};
use crate::volumes::claim_of;

/// The volumes of the pod's claims, by claim; those known before while no server answers (N1).
pub(super) async fn volumes(job: &Job) -> Result<BTreeMap<String, PersistentVolume>, String> {
    let mut found = BTreeMap::new();
    let spec = job.pod.spec.as_ref();
    for volume in spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Some(name) = claim_of(&job.pod, volume) else { continue };
        let object = match one(job, volume, &name).await {
            Ok(object) => object,
            Err(Failure::Known(why)) => return Err(why),
            Err(Failure::Unreachable(why)) => match job.references.volumes.get(&name) {
                Some(known) => known.clone(),
                None => return Err(why),
            },
        };
        found.insert(name, object);
    }
    Ok(found)
}

enum Failure {
    Known(String),
    Unreachable(String),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Gone(_) | ApiError::Refused { .. } => Self::Known(error.to_string()),
            ApiError::Unreachable { .. } => Self::Unreachable(error.to_string()),
        }
    }
}

async fn one(job: &Job, volume: &Volume, name: &str) -> Result<PersistentVolume, Failure> {
    let namespace = namespace(&job.pod);
    let refuse =
        |why: String| Failure::Known(format!("error processing PVC {namespace}/{name}: {why}"));
    let claim = job.context.api.claim(namespace, name).await?;
    let bound = bound_to(&job.pod, volume, &claim).map_err(refuse)?;
    let object = job.context.api.volume(bound).await?;
    let is_its = object
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref())
        .is_some_and(|reference| reference.uid == claim.metadata.uid);
    if is_its { Ok(object) } else { Err(refuse(format!("volume {bound} has another claim"))) }
}

/// The name of the volume that the claim has for the pod.
fn bound_to<'a>(
    pod: &Pod,
    volume: &Volume,
    claim: &'a PersistentVolumeClaim,
) -> Result<&'a str, String> {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.controller == Some(true));
    if volume.ephemeral.is_some() && !owners.any(|owner| owner.uid == uid(pod)) {
        return Err("PVC was not created for the pod (pod is not owner)".to_owned());
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    let name = name.filter(|name| !name.is_empty() && phase == Some("Bound"));
    name.ok_or_else(|| "PVC is not bound".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_must_be_bound_and_the_pods_own_where_it_is_made_for_it() {
        let pod: Pod =
            serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u1" } })).unwrap();
        let named: Volume = serde_json::from_value(json!({
            "name": "v", "persistentVolumeClaim": { "claimName": "data" },
        }))
        .unwrap();
        let made: Volume = serde_json::from_value(json!({ "name": "v", "ephemeral": {} })).unwrap();
        let claim = |phase: &str, owner: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "metadata": { "name": "data", "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true,
                }]},
                "spec": { "volumeName": "pv-1" },
                "status": { "phase": phase },
            }))
            .unwrap()
        };
        assert_eq!(bound_to(&pod, &named, &claim("Bound", "x")), Ok("pv-1"));
        assert!(bound_to(&pod, &named, &claim("Pending", "x")).unwrap_err().contains("not bound"));
        assert_eq!(bound_to(&pod, &made, &claim("Bound", "u1")), Ok("pv-1"));
        assert!(bound_to(&pod, &made, &claim("Bound", "x")).unwrap_err().contains("not owner"));
    }
}
