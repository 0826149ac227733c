//! The volume claims of a StatefulSet's pods: there before the pod, and owned so that they go when
//! the set's retention policy says.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kontiki_api::client::{ApiType, Client};
use kontiki_api::informer::Informer;

use super::identity;
use crate::controllers::events::EventRecorder;
use crate::controllers::own_writes::OwnWrites;
use crate::controllers::owners::{self, ObjectKey};
use crate::controllers::pod_control::is_namespace_terminating;
use crate::controllers::runtime::{During, ReconcileError};

/// Whether a pod's claims are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// All of them.
    Now,
    /// One of an older pod still goes, or the namespace does.
    NotYet,
}

/// The claims of all sets.
pub(super) struct Claims {
    client: Client,
    informer: Arc<Informer<PersistentVolumeClaim>>,
    own: OwnWrites<ObjectKey, PersistentVolumeClaim>,
    events: EventRecorder,
}

impl Claims {
    pub(super) fn new(
        client: Client,
        informer: &Arc<Informer<PersistentVolumeClaim>>,
        events: EventRecorder,
    ) -> Self {
        let own = OwnWrites::new(Arc::clone(informer));
        Self { client, informer: Arc::clone(informer), own, events }
    }

    pub(super) async fn seen(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        self.own.seen(key).await
    }

    /// Creates the claims of a pod that are missing.
    pub(super) async fn furnish(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pod: &Pod,
    ) -> Result<Ready, ReconcileError> {
        let pod_name = owners::name(&pod.metadata);
        let Some(ordinal) = identity::ordinal(&key.name, pod_name) else { return Ok(Ready::Now) };
        for mut claim in identity::claims(set, ordinal).into_values() {
            let name = owners::name(&claim.metadata).to_owned();
            match self.informer.get(&key.namespace, &name) {
                Some(there) if there.metadata.deletion_timestamp.is_some() => {
                    return Ok(Ready::NotYet);
                }
                Some(_) => continue,
                None => {}
            }
            if policy(set).goes_with_set {
                claim.metadata.owner_references = Some(vec![reference(set)]);
            }
            match self.client.create(&claim).await {
                Ok(created) => {
                    self.own.wrote(key, &created);
                    let of = &key.name;
                    let message =
                        format!("create Claim {name} Pod {pod_name} in StatefulSet {of} success");
                    self.events.normal(set, "SuccessfulCreate", message);
                }
                Err(status) if status.is_already_exists() => {}
                Err(status) if is_namespace_terminating(&status) => return Ok(Ready::NotYet),
                Err(status) => {
                    return Err(status)
                        .during(|| format!("creating claim {}/{name}", key.namespace));
                }
            }
        }
        Ok(Ready::Now)
    }

    /// Sees to it that the claims of these pods are owned as the retention policy asks; those of
    /// the condemned by their pod, where claims go with it.
    pub(super) async fn keep_owned(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        for pod in pods {
            let name = owners::name(&pod.metadata);
            let Some(ordinal) = identity::ordinal(&key.name, name) else { continue };
            let is_condemned = !identity::is_wanted(set, ordinal);
            for claim in identity::claims(set, ordinal).into_values() {
                let Some(there) = self.informer.get(&key.namespace, owners::name(&claim.metadata))
                else {
                    continue;
                };
                if let Some(changed) = owned_as_asked(set, pod, &there, is_condemned) {
                    self.update(key, &changed).await?;
                }
            }
        }
        Ok(())
    }

    async fn update(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), ReconcileError> {
        match self.client.update(claim).await {
            Ok(written) => {
                self.own.wrote(key, &written);
                Ok(())
            }
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status).during(|| format!("changing the owner of a claim of {key}")),
        }
    }
}

/// When claims go.
struct Policy {
    goes_with_set: bool,
    goes_with_pod: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.clone())
        .unwrap_or_default();
    let deletes = |when: Option<String>| when.as_deref() == Some("Delete");
    Policy {
        goes_with_set: deletes(policy.when_deleted),
        goes_with_pod: deletes(policy.when_scaled),
    }
}

/// A reference by which the claim goes with its owner, and which holds up nothing.
fn reference<K: ApiType>(owner: &K) -> OwnerReference {
    OwnerReference {
        controller: None,
        block_owner_deletion: None,
        ..owners::controller_reference(owner)
    }
}

/// The claim with the owners it shall have, where it has others.
pub(super) fn owned_as_asked(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
    is_condemned: bool,
) -> Option<PersistentVolumeClaim> {
    let Policy { goes_with_set, goes_with_pod } = policy(set);
    let by_pod = goes_with_pod && is_condemned;
    let by_set = goes_with_set && !by_pod;
    let old = claim.metadata.owner_references.clone().unwrap_or_default();
    let mut new = old.clone();
    for (wanted, reference) in [(by_set, reference(set)), (by_pod, reference(pod))] {
        let has = new.iter().any(|one| one.uid == reference.uid);
        match (wanted, has) {
            (true, false) => new.push(reference),
            (false, true) => new.retain(|one| one.uid != reference.uid),
            _ => {}
        }
    }
    if new == old {
        return None;
    }
    let mut changed = claim.clone();
    changed.metadata.owner_references = Some(new);
    Some(changed)
}
